"""Random access to a genome: the right bases, and an index that is never the wrong one."""

import gzip
import os
import pathlib

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.reference.genome import Genome, find_contig

TEXT = ">chr1 the first\nACGTa\ncgtNR\nTT\n>chrM\nGGG\n>2\nCAT\n"
CHR1 = "ACGTAcgtNNTT".upper()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "caduceus-jax" / "fasta-index"


@pytest.fixture(params=["plain", "crlf", "no newline at the end", "bgzip"])
def genome(request, tmp_path):
    path = tmp_path / "genome.fa"
    text = TEXT.replace("\n", "\r\n") if request.param == "crlf" else TEXT
    path.write_bytes((text.rstrip() if "end" in request.param else text).encode())
    if request.param == "bgzip":
        pysam = pytest.importorskip("pysam")
        pysam.tabix_compress(str(path), f"{path}.gz")
        path = tmp_path / "genome.fa.gz"
    return Genome(path)


def text(bases: np.ndarray) -> str:
    return bases.tobytes().decode()


def test_contigs_and_lengths(genome):
    assert genome.names == ("chr1", "chrM", "2")
    assert genome.lengths.tolist() == [12, 3, 3]


def test_every_stretch_is_that_of_the_text(genome):
    for start in range(-3, 14):
        for end in range(start, 16):
            outside = "N" * 20
            expected = (outside + CHR1 + outside)[20 + start : 20 + end]
            assert text(genome.bases(0, start, end)) == expected
            assert genome.fetch("chr1", start, end) == expected
    assert genome.fetch("2", 0, 3) == genome.fetch("2") == "CAT"


def test_soft_mask_and_ambiguity_codes(genome):
    assert genome.fetch("chr1", 3, 11, soft_mask=True) == "TacgtNNT"
    assert genome.fetch("chr1", 3, 11) == "TACGTNNT"


def test_windows_beyond_the_ends_are_filled_with_n(genome):
    windows = genome.windows(np.array([1, 0, 2]), np.array([-2, 9, 1]), 4)
    assert [text(window) for window in windows] == ["NNGG", "NTTN", "ATNN"]


def test_names_that_differ_by_prefix_are_the_same_contig_with_one_notice(genome, capsys):
    capsys.readouterr()
    assert genome.contigs(["chr1", "1", "MT", "chr2", "M", "chr3", "1"]).tolist() == [
        *(0, 0, 1, 2, 1, -1, 0)
    ]
    assert genome.contigs(["1"]).tolist() == [0]
    assert capsys.readouterr().err == (
        f"1 is taken for chr1 of {genome.path}, and so are all names that differ by chr, or by M "
        "and MT, alone\n"
    )


def test_index_is_built_beside_the_file_and_reused(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(TEXT)
    Genome(path)
    index = tmp_path / "a.fa.fai"
    assert index.read_text() == "chr1\t12\t16\t5\t6\nchrM\t3\t37\t3\t4\n2\t3\t44\t3\t4\n"
    os.utime(index, ns=(0, 2 * 10**18))
    Genome(path)
    assert index.stat().st_mtime_ns == 2 * 10**18
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fa", "a.fa.fai"]


@pytest.mark.parametrize("age", ["older than the file", "newer, of another file", "garbage"])
def test_a_stale_index_is_rebuilt(tmp_path, age):
    path, index = tmp_path / "a.fa", tmp_path / "a.fa.fai"
    path.write_text(">chr1\nAAAAAAAAAA\n>chrM\nCC\n")
    Genome(path)
    if age == "garbage":
        index.write_text("chr1\tmany\n")
    path.write_text(TEXT)
    newest = path.stat().st_mtime_ns + (-(10**9) if age == "older than the file" else 10**9)
    os.utime(index, ns=(newest, newest))
    genome = Genome(path)
    assert genome.lengths.tolist() == [12, 3, 3]
    assert genome.fetch("chrM", 0, 3) == "GGG"


def test_index_goes_to_the_cache_where_the_folder_may_not_be_written(tmp_path, cache):
    path = tmp_path / "a.fa"
    path.write_text(TEXT)
    # Root may write anywhere; nobody can put a file where a folder with content is.
    (tmp_path / "a.fa.fai" / "content").mkdir(parents=True)
    assert Genome(path).fetch("chr1", 0, 4) == "ACGT"
    (made,) = cache.iterdir()
    assert made.name.startswith("a.fa-") and made.suffix == ".fai"
    assert Genome(path).fetch("chr1", 0, 4) == "ACGT"
    made.unlink()
    made.mkdir()
    (made / "content").mkdir()
    with pytest.raises(UserError, match=r"a\.fa has no index, and none can be written beside it"):
        Genome(path)


def message(path: pathlib.Path) -> str:
    with pytest.raises(UserError) as error:
        Genome(path)
    return str(error.value)


def test_bad_files_are_one_sentence(tmp_path):
    path = tmp_path / "a.fa"
    assert message(path) == f"{path} does not exist"
    assert message(tmp_path) == (
        f"{tmp_path} holds no prepared genome (index.json is missing): caduceus-jax prepare makes "
        "one"
    )
    path.write_text("")
    assert message(path) == f"{path} is empty: a FASTA file has a '>' line and sequence"
    path.write_text(">a\nAC\n>b\nMEL\n")
    assert message(path) == (
        f"{path}:4: 'E' is not a nucleotide code: this looks like a protein FASTA, and DNA is "
        "needed"
    )
    path.write_text(">a\nAC\n>a\nC\n")
    assert message(path) == (
        f"{path}:3: the name a was already used in line 1: rename one of the two records"
    )
    path.write_text(">a\n>b\nC\n")
    assert message(path) == f"{path}:1: the record a has no sequence: remove it"
    assert not (tmp_path / "a.fa.fai").exists()


@pytest.mark.parametrize("path", ["-", "/dev/stdin"])
def test_a_genome_is_not_read_from_standard_input(path):
    assert message(path) == (
        "standard input is a pipe, and a genome is read at random: write it to a file first"
    )


UNEVEN = {
    ">a\nACGT\nAC\nACGT\n": 3,
    ">a\nACGT\nACGTA\n": 3,
    ">a\nACG\n\n\nA\n>b\nA\n": 3,
    ">b\nA\n>a\n\nACG\nACG\n": 4,
    ">a\nACG\nA\nA": 3,
    ">a\nACG\nACGT": 3,
    ">a\nACGT\r\nACGT\nACGT\r\n": 3,
}


@pytest.mark.parametrize(
    ("uneven", "compressed"), [*((text, False) for text in UNEVEN), (next(iter(UNEVEN)), True)]
)
def test_uneven_lines_cannot_be_indexed(tmp_path, uneven, compressed):
    path = tmp_path / "a.fa"
    path.write_text(uneven)
    if compressed:
        pysam = pytest.importorskip("pysam")
        pysam.tabix_compress(str(path), f"{path}.gz")
        path = tmp_path / "a.fa.gz"
    assert message(path) == (
        f"{path}:{UNEVEN[uneven]}: the lines of a record differ in length, so that no index can "
        "point into it: wrap them alike, for example with seqkit seq"
    )


def test_gzip_names_the_way_out(tmp_path):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    assert message(path) == (
        f"{path} is compressed with gzip, which must be read from its start every time: gunzip it, "
        "or compress it with bgzip instead"
    )
    path.write_text(TEXT)
    assert Genome(path).fetch("chr1") == CHR1  # whatever its name says


def test_bad_bytes_behind_an_old_index_are_found_when_they_are_read(tmp_path):
    """An index that somebody else made does not vouch for the sequence."""
    path = tmp_path / "a.fa"
    path.write_text(">a\nACGTACGT\nACGTACGT\n")
    Genome(path)
    index = (tmp_path / "a.fa.fai").stat().st_mtime_ns
    path.write_text(">a\nACGTACGT\nACG-ACGT\n")
    os.utime(path, ns=(index, index))
    genome = Genome(path)
    assert genome.fetch("a", 0, 11) == "ACGTACGTACG"
    with pytest.raises(UserError) as error:
        genome.fetch("a", 8, 14)
    assert str(error.value) == (
        f"{path}:3: '-' is not a nucleotide code: remove the gaps of an alignment first"
    )


def test_agrees_with_pyfaidx_on_a_real_chromosome(shared, tmp_path):
    import pyfaidx

    path = tmp_path / "lambda.fa"
    source = next((shared / "data/genome_lambda").glob("*.fa.gz"))
    path.write_bytes(gzip.decompress(source.read_bytes()))
    genome, fasta = Genome(path), pyfaidx.Fasta(str(path))
    rng = np.random.default_rng(0)
    for start in rng.integers(0, 48_000, 50).tolist():
        expected = fasta[genome.names[0]][start : start + 500].seq.upper()
        assert genome.fetch(genome.names[0], start, start + 500) == expected


# UCSC's hg19 with both mitochondria: NC_001807 as chrM, the revised Cambridge sequence as chrMT.
HG19 = {"chr1": 249, "chrM": 16_571, "chrMT": 16_569}
HG38 = {"chr1": 248, "chrM": 16_569}
ENSEMBL = {"1": 248, "MT": 16_569}


@pytest.mark.parametrize(
    ("genome", "name", "declared", "expected"),
    [
        (HG38, "chr1", None, "chr1"),
        (HG38, "1", None, "chr1"),
        (HG38, "Chr1", None, "chr1"),
        (HG38, "chr2", None, None),
        (ENSEMBL, "chr1", None, "1"),
        (HG38, "MT", None, "chrM"),
        (HG38, "chrMT", None, "chrM"),
        (ENSEMBL, "chrM", None, "MT"),
        (ENSEMBL, "M", None, "MT"),
        (HG19, "MT", None, "chrMT"),
        (HG19, "chrMT", None, "chrMT"),
        (HG19, "M", None, "chrM"),
        (HG19, "chrM", None, "chrM"),
        (HG19, "mt", None, None),
        (HG19, "mt", 16_569, "chrMT"),
        (HG19, "MT", 16_569, "chrMT"),
        (HG19, "MT", 16_571, "chrM"),
        (HG19, "chrM", 16_569, "chrMT"),
        ({"chrM": 16_571}, "MT", 16_569, None),
        ({"chrM": 16_571}, "MT", None, "chrM"),
        ({"chrM": 16_571}, "MT", 16_571, "chrM"),
        (HG38, "chr1", 249, "chr1"),
        (HG38, "1", 249, "chr1"),
        ({"M": 5, "MT": 6}, "chrM", None, "M"),
        ({"M": 5, "MT": 6}, "chrMT", None, "MT"),
        ({"chr_M": 5}, "M", None, None),
    ],
)
def test_names(genome, name, declared, expected):
    assert find_contig(name, genome, declared) == expected
