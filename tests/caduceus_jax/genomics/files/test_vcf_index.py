"""Indexes of VCF files: they find records, and are written for sorted ones alone."""

import pathlib

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.vcf import Vcf, write_vcf
from caduceus_jax.genomics.files.vcf_index import index_vcf, remove_indexes

HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ("1\t9\t.\tA\tC\t.\t.\t.\n1\t8\t.\tA\tC\t.\t.\t.\n", "5: 1:8"),
        ("1\t9\t.\tA\tC\t.\t.\t.\n2\t8\t.\tA\tC\t.\t.\t.\n1\t9\t.\tA\tC\t.\t.\t.\n", "6: 1:9"),
    ],
)
def test_what_is_not_sorted_gets_no_index(tmp_path, records, says):
    pytest.importorskip("pysam")
    source, out = write(tmp_path / "a.vcf", HEADER + records), tmp_path / "out.vcf.gz"
    write_vcf(
        Vcf(source), out, {}, [{}] * records.count("\n"), provenance={"ID": "made"}, compress=True
    )
    with pytest.raises(UserError) as error:
        index_vcf(out)
    number, _, site = says.partition(": ")
    assert str(error.value) == (
        f"{out}:{int(number)}: {site} is out of order, and an index needs sorted records: "
        "sort the input, for example with bcftools sort (the VCF is written, its index is not)"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.vcf", "out.vcf.gz"]


def test_an_index_finds_records(tmp_path):
    pysam = pytest.importorskip("pysam")
    records = "".join(f"{c}\t{p}\t.\tA\tC\t.\t.\t.\n" for c in "21" for p in (5, 5, 900, 70000))
    source, out = write(tmp_path / "a.vcf", HEADER + records), tmp_path / "out.vcf.gz"
    write_vcf(Vcf(source), out, {}, [{}] * 8, provenance={"ID": "made"}, compress=True)
    index_vcf(out)
    with pysam.TabixFile(str(out)) as file:
        found = [tuple(line.split("\t")[:2]) for line in file.fetch("1", 4, 1000)]
    assert found == [("1", "5"), ("1", "5"), ("1", "900")]


def test_indexes_of_an_earlier_file_are_removed_beside_a_link_and_its_file(tmp_path):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "b.vcf.gz", tmp_path / "a.vcf.gz"
    link.symlink_to(real)
    kept = [real, tmp_path / "other.vcf.gz.tbi"]
    for path in (*kept, *(pathlib.Path(f"{p}{e}") for p in (real, link) for e in (".tbi", ".csi"))):
        path.write_text("of yesterday")
    remove_indexes(link)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*kept, link])
