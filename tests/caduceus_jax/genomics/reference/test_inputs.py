"""What a user passes becomes one kind of object, in order."""

import polars
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.inputs import (
    as_genome,
    as_intervals,
    as_sequences,
    as_variants,
    is_path,
)
from tests.genomes import fasta, genome, prepared, write_bed, write_vcf


@pytest.fixture(scope="module")
def chr1(tmp_path_factory):
    return genome(tmp_path_factory.mktemp("genome") / "a.fa", {"chr1": "ACGTACGTAC"})


def test_genomes(tmp_path, chr1):
    assert as_genome(chr1) is chr1
    store = prepared(tmp_path, chr1="ACGT")
    for given in (store.path, str(store.path), fasta(tmp_path / "b.fa", chr1="ACGT")):
        assert as_genome(given).fetch("chr1", 1, 3) == "CG"


def test_variants_in_every_form(tmp_path):
    frame = polars.DataFrame({"chrom": ["chr1"], "pos": [3], "ref": ["G"], "alt": ["T"]})
    frame.write_csv(tmp_path / "a.csv")
    for given in (
        ["chr1:3:G>T"],
        [cj.Variant("chr1", 3, "G", "T")],
        frame,
        frame.to_pandas(),
        tmp_path / "a.csv",
        write_vcf(tmp_path / "a.vcf", "chr1\t3\t.\tG\tT\t.\t.\t."),
    ):
        found = as_variants(given).variants
        assert (found.chrom[0], found.position[0], found.ref[0], found.alt[0]) == (
            "chr1",
            2,  # 0-based
            "G",
            "T",
        )


def test_regions_in_every_form(tmp_path, chr1):
    frame = polars.DataFrame({"chrom": ["chr1"], "start": [2], "end": [5]})
    for given in (
        "chr1:3-5",  # from 1, the end included
        ["chr1:3-5"],
        [("chr1", 2, 5)],
        cj.Interval("chr1", 2, 5),
        frame,
        frame.to_pandas(),
        write_bed(tmp_path / "a.bed", "chr1\t2\t5"),
    ):
        found = as_intervals(given, chr1)
        assert (found.chrom[0], found.start[0], found.end[0]) == ("chr1", 2, 5)
    whole = as_intervals("chr1", chr1)
    assert (whole.start[0], whole.end[0]) == (0, 10)


def test_sequences_of_texts_and_files(tmp_path):
    how = {"context_length": None, "edge": "pad", "max_length": 100, "oriented": False}
    found, table = as_sequences(["ACGT", "AC"], None, **how)
    assert (found.read(1), table) == (b"AC", None)
    found, _ = as_sequences(fasta(tmp_path / "a.fa", one="ACGTA"), None, **how)
    assert found.frame["name"].to_list() == ["one"] and found.read(0) == b"ACGTA"
    frame = polars.DataFrame({"label": [1], "sequence": ["ACG"]})
    found, table = as_sequences(frame, None, **how)
    assert found.read(0) == b"ACG" and table is not None and table.columns == ["label", "sequence"]


def test_texts_and_paths(tmp_path):
    assert is_path(tmp_path) and is_path(str(write_bed(tmp_path / "a.bed", "chr1\t0\t1")))
    assert not is_path("chr1:1-10")


@pytest.mark.parametrize("regions", ["chr7", "chr1:0-4", "chr1:5-3", "chr1:9-99"])
def test_regions_that_are_not_there(chr1, regions):
    with pytest.raises(UserError, match="chr"):
        as_intervals(regions, chr1)
