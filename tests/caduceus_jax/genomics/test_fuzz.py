"""Any bytes whatever, and valid files with errors in them: a right result or a UserError."""

import gzip
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caduceus_jax import UserError
from caduceus_jax.genomics.files.vcf import read_vcf
from tests.stress.readers import CHECKS, PIECES, SEEDS, mutated, split

pysam = pytest.importorskip("pysam")

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
    for which in range(0, len(split(SEEDS[reader])), 2):
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


BCF_OF = (
    b"##fileformat=VCFv4.2\n##contig=<ID=chr1,length=99>\n"
    b'##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">\n'
    b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    b"chr1\t3\trs1\tA\tC,G\t.\t.\tDP=3\nchr1\t9\t.\tAT\tA\t9\t.\t.\n"
)


def bgzip(data: bytes, path: pathlib.Path) -> bytes:
    with pysam.BGZFile(str(path), "wb") as file:
        file.write(data)
    return path.read_bytes()


@pytest.fixture(scope="module")
def bcf(tmp_path_factory) -> bytes:
    """A valid BCF file, decompressed."""
    text = tmp_path_factory.mktemp("bcf") / "some.vcf"
    text.write_bytes(BCF_OF)
    with pysam.VariantFile(str(text)) as source:
        path = text.with_suffix(".bcf")
        with pysam.VariantFile(str(path), "wb", header=source.header) as file:
            for record in source:
                file.write(record)
    return gzip.decompress(path.read_bytes())


def test_bcf_that_is_no_text(bcf, tmp_path):
    assert CHECKS["vcf"](bgzip(bcf, tmp_path / "bcf"), tmp_path)
    path = tmp_path / "any.vcf"
    bgzip(bcf.replace(b"Dep", b"D\x80p"), path)
    with pytest.raises(UserError, match=r"any\.vcf cannot be read as BCF: 'utf-8' codec can't"):
        read_vcf(path)


def test_bcf_with_errors_in_it(bcf, tmp_path):
    """htslib reads it, which says what it thinks of it on standard error."""
    byte = st.sampled_from(b"\x00\x01\x7f\x80\xff")

    @quick
    @given(edits=st.lists(st.tuples(st.integers(0, len(bcf) - 1), byte), min_size=1, max_size=3))
    def holds(edits):
        data = bytearray(bcf)
        for where, value in edits:
            data[where] = value
        CHECKS["vcf"](bgzip(bytes(data), tmp_path / "bcf"), tmp_path)

    holds()
