"""BED files: what is read, and what each wrong line says."""

import gzip

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.bed import read_bed


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["peaks.bed", "peaks.bed.gz"])
def test_reads_regions_and_names(tmp_path, newline, name):
    lines = [
        "browser position chr1:1-100",
        'track name="peaks" description="a b"',
        "#chrom\tstart\tend",
        "chr1\t0\t10\tfirst peak\t960\t+",
        "",
        "chr2\t5\t6",
        "chr10 7 20 third",
        "chr1\t2147483647\t2147483648\t.",
        "tracker\t1\t2",
        "chr1\t-0\t000000000002",
    ]
    path, text = tmp_path / name, newline.join(lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    regions = read_bed(path)
    assert regions.chrom == ["chr1", "chr2", "chr10", "chr1", "tracker", "chr1"]
    assert regions.start.tolist() == [0, 5, 7, 2**31 - 1, 1, 0]
    assert regions.end.tolist() == [10, 6, 20, 2**31, 2, 2]
    assert regions.name == [
        *(
            "first peak",
            "chr2:5-6",
            "third",
            "chr1:2147483647-2147483648",
            "tracker:1-2",
            "chr1:0-2",
        )
    ]
    assert regions.line.tolist() == [4, 6, 7, 8, 9, 10]


def test_no_region_is_no_region(tmp_path):
    path = tmp_path / "none.bed"
    path.write_text("#nothing\n")
    assert read_bed(path).chrom == []
    assert read_bed(path).start.shape == (0,)


BAD = {
    "chrom\tstart\tend": (
        "start is 'start', not a whole number; a header line must start with '#'"
    ),
    "chr1\t1.5\t2": "start is '1.5', not a whole number; a header line must start with '#'",
    "chr1\t1\t2,000": "end is '2,000', not a whole number; a header line must start with '#'",
    "chr1\t\t2": "start is '', not a whole number; a header line must start with '#'",
    "chr1\t1": "only 2 of the columns chrom, start and end; they are separated by tabs",
    "chr1": "only 1 of the columns chrom, start and end; they are separated by tabs",
    "\t1\t2": "the first column, chrom, is empty",
    "chr1\t-1\t2": "start is -1; BED counts bases from 0",
    "chr1\t5\t5": (
        "start 5 is not below end 5: BED counts from 0 and the end is the base after the last one"
    ),
    "chr1\t6\t5": (
        "start 6 is not below end 5: BED counts from 0 and the end is the base after the last one"
    ),
    "chr1\t5\t\u0666": "end is '\u0666', not a whole number; a header line must start with '#'",
    "chr1\t5\t" + "9" * 5_000: f"end is {'9' * 20}, beyond 2^31: no contig is that long",
    "chr1\t-" + "9" * 5_000 + "\t7": f"start is -{'9' * 19}; BED counts bases from 0",
    "chr1\t5\t6\tna\0me": "a zero byte: this is not text, so not a BED file",
    # What Unicode calls a space separates no columns.
    "chr1\u00a05 9": "only 2 of the columns chrom, start and end; they are separated by tabs",
    "chr1\x1c5 9": "only 2 of the columns chrom, start and end; they are separated by tabs",
    "chr1\t5\t2147483649": "end is 2147483649, beyond 2^31: no contig is that long",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_lines_are_one_sentence_with_the_line(tmp_path, line):
    path = tmp_path / "bad.bed"
    path.write_text(f"#header\nchr1\t1\t2\n{line}\n")
    with pytest.raises(UserError) as error:
        read_bed(path)
    assert str(error.value) == f"{path}:3: {BAD[line]}"


def test_fasta_instead_of_bed(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(">chr1\nACGT\n")
    with pytest.raises(UserError) as error:
        read_bed(path)
    assert str(error.value) == f"{path} is a FASTA file, where a BED file of regions is needed"


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"no\.bed does not exist$"):
        read_bed(tmp_path / "no.bed")
