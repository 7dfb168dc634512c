"""Which files the commands on every base write, and what tells their regions apart."""

import pathlib

import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.scoring.per_base_files import check_track_files, region_inputs
from tests.genomes import genome, write_bed


@pytest.fixture
def chr1(tmp_path):
    return genome(tmp_path / "a.fa", {"chr1": "ACGTACGTAC"})


def test_a_bigwig_has_one_track(tmp_path):
    out, table = tmp_path / "a.bw", tmp_path / "a.tsv"
    files = check_track_files({out: ".bw", table: ".tsv"}, ("entropy", "logp"))
    assert files == [
        (tmp_path / "a.entropy.bw", ".bw", "entropy"),
        (tmp_path / "a.logp.bw", ".bw", "logp"),
        (table, ".tsv", "entropy"),
    ]
    assert check_track_files({out: ".bw"}, ("entropy",)) == [(out, ".bw", "entropy")]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    out = pathlib.Path(tmp_path / "nowhere" / "a.bw")
    with pytest.raises(UserError, match="nowhere"):
        check_track_files({out: ".bw"}, ("entropy", "logp"))


def test_a_file_of_regions_is_known_by_its_content(tmp_path, chr1):
    places, identity = region_inputs("chr1:3-5", chr1)
    assert (places.start[0], places.end[0], identity) == (2, 5, "chr1:3-5")
    bed = write_bed(tmp_path / "a.bed", "chr1\t2\t5")
    same = write_bed(tmp_path / "b.bed", "chr1\t2\t5")
    other = write_bed(tmp_path / "c.bed", "chr1\t2\t6")
    identities = [region_inputs(str(path), chr1)[1] for path in (bed, same, other)]
    assert identities[0] == identities[1] != identities[2]


def test_the_name_of_a_contig_is_not_a_file(tmp_path, chr1, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bed(tmp_path / "chr1", "chr1\t2\t5")
    places, _ = region_inputs("chr1", chr1)
    assert (places.start[0], places.end[0]) == (0, 10)
