"""VCF files: what is read, what each wrong file says, and what is written."""

import gzip
import pathlib

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.alleles import Genotype
from caduceus_jax.genomics.files.vcf import Vcf, read_vcf, write_vcf
from caduceus_jax.genomics.structural import Event

HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
RECORDS = (
    "chr1\t10\trs1\tA\tC,G\t29.50\tPASS\tAF=0.000199681,0.5\n"
    "chr1\t12\t.\tac\ta\t.\t.\t.\n"
    "2\t0\t.\tT\t.\t.\tq10\tDB;NOTE=ü\n"
    "2\t5\t.\tT\t<DEL>,*,]2:7]T\t.\t.\tEND=9\n"
)


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("form", ["plain", "crlf", "gzip", "bgzip"])
def test_reads_one_row_for_each_alt(tmp_path, form):
    text = HEADER + RECORDS
    path = write(tmp_path / "a.vcf", text.replace("\n", "\r\n") if form == "crlf" else text)
    if form == "gzip":
        path = write(tmp_path / "a.vcf.gz", text)
    if form == "bgzip":
        pysam = pytest.importorskip("pysam")
        pysam.tabix_compress(str(path), f"{path}.gz")
        path = tmp_path / "a.vcf.gz"
    variants = read_vcf(path)
    assert variants.record.tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert variants.line.tolist() == [3, 3, 4, 5, 6, 6, 6]
    assert variants.chrom == ["chr1"] * 3 + ["2"] * 4
    assert variants.position.tolist() == [9, 9, 11, -1, 4, 4, 4]
    assert variants.ref == ["A", "A", "ac", "T", "T", "T", "T"]
    assert variants.alt == ["C", "G", "a", None, "<DEL>", "*", "]2:7]T"]
    assert variants.events == {4: Event("DEL", 4)}


def test_reads_bcf(tmp_path):
    pysam = pytest.importorskip("pysam")
    contigs = "##contig=<ID=chr1,length=99>\n##contig=<ID=2,length=9>\n"
    contigs += '##INFO=<ID=END,Number=1,Type=Integer,Description="end">\n'
    source = write(
        tmp_path / "a.vcf",
        HEADER.replace("#CHROM", contigs + "#CHROM")
        + "chr1\t10\trs1\tA\tC,G\t29.5\tPASS\t.\n2\t5\t.\tT\t<DEL>,A\t.\t.\tEND=9\n",
    )
    path = tmp_path / "a.bcf"
    with (
        pysam.VariantFile(str(source)) as file,
        pysam.VariantFile(str(path), "wb", header=file.header) as out,
    ):
        for record in file:
            out.write(record)
    variants = read_vcf(path)
    assert variants.line.tolist() == [1, 1, 2, 2]
    assert variants.position.tolist() == [9, 9, 4, 4]
    assert variants.alt == ["C", "G", "<DEL>", "A"]
    assert variants.events == {2: Event("DEL", 4)}
    out = tmp_path / "out.vcf"
    write_vcf(
        Vcf(path), out, {}, [{"S": "1"}, {"S": "2"}], provenance={"ID": "made"}, compress=False
    )
    assert out.read_text().splitlines()[-2:] == [
        "chr1\t10\trs1\tA\tC,G\t29.5\tPASS\tS=1",
        "2\t5\t.\tT\t<DEL>,A\t.\t.\tEND=9;S=2",
    ]
    path.write_bytes(gzip.decompress(path.read_bytes())[:40])
    with pytest.raises(UserError, match=r"a\.bcf cannot be read as BCF: "):
        read_vcf(path)


def test_header_alone_is_no_variant(tmp_path):
    variants = read_vcf(write(tmp_path / "a.vcf", HEADER))
    assert variants.alt == [] and variants.position.shape == (0,)


BAD_FILES = {
    "": " is empty: a VCF starts with a line ##fileformat=VCFv4.2",
    "chrom,pos,ref,alt\n1,2,A,C\n": (
        " is not a VCF: it starts with 'chrom,pos,ref,alt', where a VCF starts with a line "
        "##fileformat=VCFv4.2; tables of variants end in .tsv, .csv or .parquet"
    ),
    "chr1\t1\t.\tA\tC\t.\t.\t.\n": (
        " is not a VCF: it starts with 'chr1\\t1\\t.\\tA\\tC\\t.\\t.\\t.', where a VCF starts with "
        "a line ##fileformat=VCFv4.2; tables of variants end in .tsv, .csv or .parquet"
    ),
    "##fileformat=VCFv4.2\n##source=x\n": " ends within its header: there is no #CHROM line",
    "##fileformat=VCFv4.2\nchr1\t1\t.\tA\tC\t.\t.\t.\n": (
        ":2: a VCF has a line #CHROM POS ID REF ALT QUAL FILTER INFO before its records, separated "
        "by tabs"
    ),
    HEADER.replace("\t", " "): (
        ":2: a VCF has a line #CHROM POS ID REF ALT QUAL FILTER INFO before its records, separated "
        "by tabs"
    ),
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_files_that_are_no_vcf(tmp_path, text):
    path = write(tmp_path / "a.vcf", text)
    with pytest.raises(UserError) as error:
        read_vcf(path)
    assert str(error.value) == f"{path}{BAD_FILES[text]}"


BAD_LINES = {
    "chr1\t1": "only 2 of a VCF's 8 columns; they are separated by tabs",
    "chr1 1 . A C . . .": "only 1 of a VCF's 8 columns; they are separated by tabs",
    "\t1\t.\tA\tC\t.\t.\t.": "the first column, CHROM, is empty",
    "chr1\tten\t.\tA\tC\t.\t.\t.": "POS is 'ten', not a whole number from 1 up",
    "chr1\t-3\t.\tA\tC\t.\t.\t.": "POS is '-3', not a whole number from 1 up",
    "chr1\t3000000000\t.\tA\tC\t.\t.\t.": (
        "POS is 3000000000, beyond 2^31: no contig is that long"
    ),
    "chr1\t1\t.\t.\tC\t.\t.\t.": "REF is '.': it must be the reference's bases",
    "chr1\t1\t.\t\tC\t.\t.\t.": "REF is '': it must be the reference's bases",
    "chr1\t1\ta\0b\tA\tC\t.\t.\t.": "a zero byte: this is not text, so not a VCF file",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_lines_are_one_sentence_with_the_line(tmp_path, line):
    path = write(tmp_path / "a.vcf", f"{HEADER}\n{line}\n")
    with pytest.raises(UserError) as error:
        read_vcf(path)
    assert str(error.value) == f"{path}:4: {BAD_LINES[line]}"


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(UserError, match=r"no\.vcf does not exist$"):
        read_vcf(tmp_path / "no.vcf")
    pysam = pytest.importorskip("pysam")
    source = write(tmp_path / "a.vcf", HEADER + RECORDS * 2_000)
    pysam.tabix_compress(str(source), f"{source}.gz")
    path = tmp_path / "a.vcf.gz"
    path.write_bytes(path.read_bytes()[:-28])  # between two blocks, where gzip sees no harm
    assert gzip.decompress(path.read_bytes()) == source.read_bytes()
    with pytest.raises(UserError, match=r"a\.vcf\.gz is cut short \(bgzip's end marker is missi"):
        read_vcf(path)


@pytest.mark.parametrize("compress", [False, True])
def test_writing_changes_nothing_but_the_added_fields(tmp_path, compress):
    old = '##INFO=<ID=SCORE,Number=1,Type=String,Description="old">\n'
    source = write(
        tmp_path / "a.vcf",
        HEADER.replace("#CHROM", old + "#CHROM")
        + "chr1\t10\trs1\tA\tC,G\t29.50\tPASS\tAF=0.000199681;SCORE=x;DB\tGT\t0|1\n"
        + "2\t5\t.\tT\t.\t.\tq10\t.\n",
    )
    out = tmp_path / "out.vcf"
    fields = [{"SCORE": "0.5,.", "SAYS": "ok"}, {"SAYS": "no"}]
    declarations = {
        "SCORE": 'Number=A,Type=Float,Description="new"',
        "SAYS": 'Number=.,Type=String,Description="d"',
    }
    write_vcf(
        Vcf(source),
        out,
        declarations,
        fields,
        provenance={"ID": "made", "By": "us"},
        compress=compress,
    )
    data = out.read_bytes()
    assert (gzip.decompress(data) if compress else data).decode() == (
        "##fileformat=VCFv4.2\n"
        '##INFO=<ID=SCORE,Number=A,Type=Float,Description="new">\n'
        '##INFO=<ID=SAYS,Number=.,Type=String,Description="d">\n'
        '##caduceus_jax=<ID=made,By="us">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        "chr1\t10\trs1\tA\tC,G\t29.50\tPASS\tAF=0.000199681;DB;SCORE=0.5,.;SAYS=ok\tGT\t0|1\n"
        "2\t5\t.\tT\t.\t.\tq10\tSAYS=no\n"
    )


def test_bytes_that_are_no_text_survive(tmp_path):
    source = tmp_path / "a.vcf"
    source.write_bytes(HEADER.encode() + b"chr1\t10\t\xfc\tA\tC\t.\t.\tX=\xff\n")
    out = tmp_path / "out.vcf"
    write_vcf(Vcf(source), out, {}, [{}], provenance={"ID": "made"}, compress=False)
    assert out.read_bytes().endswith(b"\nchr1\t10\t\xfc\tA\tC\t.\t.\tX=\xff\n")


def test_info_without_a_field_is_a_dot(tmp_path):
    source, out = write(tmp_path / "a.vcf", HEADER + "1\t9\t.\tA\tC\t.\t.\t.\n"), tmp_path / "o.vcf"
    write_vcf(Vcf(source), out, {}, [{}], provenance={"ID": "made"}, compress=False)
    assert out.read_text().endswith("\n1\t9\t.\tA\tC\t.\t.\t.\n")


def test_genotypes_of_a_sample(tmp_path):
    lines = [
        "1\t5\t.\tA\tC\t.\t.\t.\tGT:PS\t0|1:7\t1/1",
        "1\t6\t.\tA\tC\t.\t.\t.\tDP\t3\t4",
        "1\t7\t.\tA\tC\t.\t.\t.\tPS:GT\t8:1|0\t.",
        "1\t8\t.\tA\tC\t.\t.\t.",  # a record without its samples
    ]
    header = HEADER.replace("INFO\n", "INFO\tFORMAT\ta\tb\n")
    vcf = Vcf(write(tmp_path / "a.vcf", header + "".join(line + "\r\n" for line in lines)))
    unknown = Genotype((), None)
    first = [Genotype((0, 1), "7"), unknown, Genotype((1, 0), "8"), unknown]
    assert vcf.genotypes(None) == vcf.genotypes("a") == first
    assert vcf.genotypes("b") == [Genotype((1, 1), None), *[unknown] * 3]
    with pytest.raises(UserError, match=r"a\.vcf has no sample c; it has a, b"):
        vcf.genotypes("c")
    with pytest.raises(UserError, match=r"has no samples: phased variants need a sample's GT"):
        Vcf(write(tmp_path / "b.vcf", HEADER)).genotypes(None)
