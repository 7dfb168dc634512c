"""Any bytes whatever, and valid files with errors in them: a right result or a UserError."""

import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reliability.readers import CHECKS, PIECES, SEEDS, mutated

pytest.importorskip("pysam")

EDITS = st.lists(
    st.tuples(
        st.integers(0, 400), st.integers(0, 8), st.sampled_from(PIECES) | st.binary(max_size=4)
    ),
    max_size=4,
)
quick = settings(max_examples=120, deadline=None, derandomize=True)


@pytest.mark.parametrize("reader", CHECKS)
def test_a_valid_file_is_accepted(reader, tmp_path):
    """Otherwise the tests below would say nothing."""
    assert CHECKS[reader](SEEDS[reader], tmp_path)


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
        @given(edits=EDITS, compress=st.booleans(), cut=st.none() | st.integers(0, 400))
        def holds(edits, compress, cut):
            data = mutated(SEEDS[reader], edits, compress)
            CHECKS[reader](data[:cut], pathlib.Path(folder))

        holds()
