"""Any bytes whatever, and valid files with errors in them: a right result or a UserError."""

import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reliability.readers import CHECKS, PIECES, SEEDS, mutated, split

pytest.importorskip("pysam")

PIECE = st.sampled_from(PIECES) | st.binary(max_size=4)
TOKENS = st.lists(st.tuples(st.integers(0, 99), PIECE), max_size=3)
EDITS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), PIECE), max_size=2)
quick = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.mark.parametrize("reader", CHECKS)
def test_a_valid_file_is_accepted(reader, tmp_path):
    """Otherwise the tests below would say nothing."""
    assert CHECKS[reader](SEEDS[reader], tmp_path)


@pytest.mark.parametrize("reader", CHECKS)
def test_each_field_replaced(reader, tmp_path):
    """By everything that is likely to matter where it does not belong."""
    for which in range(len(split(SEEDS[reader]))):
        for piece in PIECES:
            CHECKS[reader](mutated(SEEDS[reader], [(which, piece)], [], False), tmp_path)


@pytest.mark.parametrize("reader", CHECKS)
def test_any_bytes(reader):
    with tempfile.TemporaryDirectory() as folder:

        @quick
        @given(data=st.binary(max_size=200), start=st.integers(0, 40))
        def holds(data, start):
            CHECKS[reader](SEEDS[reader][:start] + data, pathlib.Path(folder))

        holds()


@pytest.mark.parametrize("reader", CHECKS)
def test_files_with_errors_in_them(reader):
    with tempfile.TemporaryDirectory() as folder:

        @quick
        @given(
            tokens=TOKENS,
            edits=EDITS,
            compress=st.booleans(),
            cut=st.none() | st.integers(0, 400),
        )
        def holds(tokens, edits, compress, cut):
            data = mutated(SEEDS[reader], tokens, edits, compress)
            CHECKS[reader](data[:cut], pathlib.Path(folder))

        holds()
