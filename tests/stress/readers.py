"""What must hold of the readers for any bytes whatever: a right result, or a UserError.

What is right is said by parsers of a few lines, which share nothing with the ones under test.
"""

import gzip
import pathlib
import re
from collections.abc import Callable

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.files.fasta import iterate_fasta
from caduceus_jax.genomics.files.vcf import Vcf, write_vcf
from caduceus_jax.genomics.reference.genome import Genome

BOM = b"\xef\xbb\xbf"
Check = Callable[[bytes, pathlib.Path], bool]

_AMBIGUOUS = bytes.maketrans(b"RYSWKMBDHVryswkmbdhvUu", b"N" * 10 + b"n" * 10 + b"Tt")


def plain(data: bytes) -> bytes:
    """What a file holds, decompressed where it is gzip."""
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def naive_fasta(text: bytes) -> list[tuple[str, bytes]]:
    records = []
    for entry in re.split(rb"^>", text.removeprefix(BOM), flags=re.MULTILINE)[1:]:
        header, _, lines = entry.partition(b"\n")
        bases = b"".join(lines.split()).translate(_AMBIGUOUS)
        records.append((header.split()[0].decode(errors="replace"), bases))
    return records


def check_fasta(data: bytes, folder: pathlib.Path) -> bool:
    """Reads the file from end to end. Returns whether it was accepted."""
    path = folder / "any.fa"
    path.write_bytes(data)
    try:
        records = list(iterate_fasta(path))
    except UserError:
        return False
    assert [(name, bases.tobytes()) for name, bases in records] == naive_fasta(plain(data))
    return True


def check_genome(data: bytes, folder: pathlib.Path) -> bool:
    """Indexes the file and reads windows of it that reach beyond both ends of each contig."""
    path = folder / "indexed.fa"
    for old in folder.glob("indexed.fa*"):
        old.unlink()
    path.write_bytes(data)
    try:
        genome = Genome(path)
        windows = [
            genome.bases(contig, start, start + 7).tobytes()
            for contig in range(len(genome.names))
            for start in range(-3, int(genome.lengths[contig]) + 3, 5)
        ]
    except UserError:
        return False
    records = naive_fasta(plain(data))
    assert genome.names == tuple(name for name, _ in records)
    assert genome.lengths.tolist() == [len(bases) for _, bases in records]
    expected = []
    for _, bases in records:
        padded = b"NNN" + bases.upper() + b"N" * 10
        expected += [padded[start : start + 7] for start in range(0, len(bases) + 6, 5)]
    assert windows == expected
    return True


def check_bed(data: bytes, folder: pathlib.Path) -> bool:
    """Reads the regions."""
    path = folder / "any.bed"
    path.write_bytes(data)
    try:
        regions = read_bed(path)
    except UserError:
        return False
    rows = []
    for number, line in enumerate(plain(data).removeprefix(BOM).split(b"\n"), start=1):
        words = line.split(b"\t") if b"\t" in line else line.split()
        if not line.strip() or line.startswith(b"#") or line.split()[0] in (b"track", b"browser"):
            continue
        try:
            chrom = words[0].strip().decode()
        except UnicodeDecodeError:
            chrom = words[0].strip().decode("latin-1")
        rows.append((number, chrom, *map(int, words[1:3])))
    columns = (regions.line.tolist(), regions.chrom, regions.start.tolist(), regions.end.tolist())
    assert list(zip(*columns, strict=True)) == rows
    assert len(regions.name) == len(rows) and all(regions.name)
    assert (regions.start >= 0).all() and (regions.start < regions.end).all()
    return True


def check_vcf(data: bytes, folder: pathlib.Path) -> bool:
    """Reads the variants, and copies the file with one more field, which changes nothing else."""
    path, out = folder / "any.vcf", folder / "out.vcf"
    path.write_bytes(data)
    try:
        source = Vcf(path)
        variants = source.variants()
        count = int(variants.record[-1]) + 1 if len(variants.record) else 0
        fields = [{"SEEN": str(i)} for i in range(count)]
        declarations = {"SEEN": 'Number=1,Type=Integer,Description="Number of the record"'}
        write_vcf(source, out, declarations, fields, provenance={"ID": "seen"}, compress=False)
    except UserError:
        return False
    if plain(data).startswith(b"BCF"):
        return True
    lines = plain(data).removeprefix(BOM).split(b"\n")
    header = next(i for i, line in enumerate(lines) if not line.startswith(b"##"))
    records = [line for line in lines[header + 1 :] if line.strip(b" \t\r")]
    alts = [len(record.split(b"\t")[4].split(b",")) for record in records]
    assert variants.record.tolist() == [i for i, n in enumerate(alts) for _ in range(n)]
    positions = [int(record.split(b"\t")[1]) - 1 for record in records]
    assert variants.position.tolist() == [positions[i] for i in variants.record]
    written = out.read_bytes().split(b"\n")[:-1]
    written = written[len(written) - len(records) :]
    for number, (record, copy) in enumerate(zip(records, written, strict=True)):
        assert copy.endswith(b"\r") == record.endswith(b"\r")
        columns, copied = (line.rstrip(b"\r").split(b"\t") for line in (record, copy))
        assert copied[:7] + copied[8:] == columns[:7] + columns[8:]
        assert copied[7].split(b";")[-1] == b"SEEN=%d" % number
    return True


CHECKS: dict[str, Check] = {
    "fasta": check_fasta,
    "genome": check_genome,
    "bed": check_bed,
    "vcf": check_vcf,
}

_VCF = (
    b'##fileformat=VCFv4.2\n##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">\n'
    b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\n"
    b"chr1\t3\trs1\tA\tC,G\t.\tPASS\tDP=3;SEEN=9\tGT\t0/1\n"
    b"chr1\t9\t.\tAT\t<DEL>\t9\t.\t.\tGT\t0/0\n\nchr2\t1\t.\tN\t*,]chr1:3]A\t.\t.\tDP=1\tGT\t.\n"
)
_FASTA = b">chr1 first\nACGTRNacgt\nACGUACGTAC\nAC\n>chr2\r\nACG\r\nTT\r\n>3\nNNN\n"
_BED = b"track name=x\n#c\nchr1\t0\t10\ta\t0\t+\nchr1 5 9\n\nchr2\t3\t4\t.\r\n"
# Valid files to be mutated.
SEEDS = {"fasta": _FASTA, "genome": _FASTA, "bed": _BED, "vcf": _VCF}
# What is likely to matter where it does not belong.
PIECES = (
    *(b"\n", b"\r\n", b"\r", b"\t", b" ", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\x1c", b"\x0c"),
    *(b">", b">chr1\n", b"#", b"##", b"*", b"-", b"-1", b".", b",", b";", b"=", b"<", b"[", b"N"),
    *(b"4294967296", b"9" * 5_000, b"1e3", b"0x1", b"1_0", "\u0663".encode(), "\u00b2".encode()),
    *(b"#CHROM\tPOS", b"track", b"\x1f\x8b", b"BCF\x02\x02", b"A" * 70, b"ACGT\n" * 20),
)


def split(seed: bytes) -> list[bytes]:
    """Fields and what separates them, by turns."""
    return re.split(rb"([\t\n ,;:>]+)", seed)


def mutated(
    seed: bytes,
    tokens: list[tuple[int, bytes]],
    edits: list[tuple[int, int, bytes]],
    compress: bool,
) -> bytes:
    """The seed with errors in it.

    Args:
        seed: a valid file.
        tokens: (which, what comes instead): fields and separators are counted alike, modulo their
            number.
        edits: (where, bytes that go, what comes), afterwards, modulo the length.
        compress: gzip the result.
    """
    parts = split(seed)
    for which, piece in tokens:
        parts[which % len(parts)] = piece
    data = bytearray(b"".join(parts))
    for where, gone, piece in edits:
        start = where % (len(data) + 1)
        data[start : start + gone] = piece
    return gzip.compress(bytes(data), mtime=0) if compress else bytes(data)
