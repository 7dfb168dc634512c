"""One small annotation as GTF and as GFF3, for the tests of genes."""

import gzip
import pathlib

# Two genes on chr1: A, on the + strand from 5,001, of two transcripts; B, on the - strand.
_ROWS = [
    ("gene", 5001, 6000, "+", "A", None),
    ("transcript", 5001, 6000, "+", "A", "A1"),
    ("exon", 5001, 5100, "+", "A", "A1"),
    ("five_prime_utr", 5001, 5050, "+", "A", "A1"),
    ("CDS", 5051, 5100, "+", "A", "A1"),
    ("exon", 5901, 6000, "+", "A", "A1"),
    ("transcript", 5501, 6000, "+", "A", "A2"),
    ("exon", 5501, 6000, "+", "A", "A2"),
    ("gene", 9001, 9500, "-", "B", None),
    ("transcript", 9001, 9500, "-", "B", "B1"),
    ("exon", 9001, 9500, "-", "B", "B1"),
]


def gtf(path: pathlib.Path, *, genes: bool = True) -> pathlib.Path:
    """Writes the annotation as GTF; `genes` false leaves all but parts of transcripts out."""
    lines = ["#!genome-build test"]
    for kind, start, end, strand, gene, transcript in _ROWS:
        if not genes and kind in ("gene", "transcript"):
            continue
        text = f'gene_id "ID_{gene}"; gene_name "{gene}";'
        text += f' transcript_id "{transcript}";' if transcript else ""
        lines.append(f"1\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t.\t{text}")
    return _write(path, "\n".join(lines) + "\n\n")


def gff3(path: pathlib.Path) -> pathlib.Path:
    """Writes the annotation as GFF3, with a sequence at its end."""
    lines = ["##gff-version 3"]
    for kind, start, end, strand, gene, transcript in _ROWS:
        text = f"Parent=transcript:{transcript}"
        if kind == "gene":
            text = f"ID=gene:{gene}x;Name={gene}"
        elif kind == "transcript":
            kind, text = "mRNA", f"ID=transcript:{transcript};Parent=gene:{gene}x"
        lines.append(f"chr1\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t.\t{text}")
    return _write(path, "\r\n".join(lines) + "\r\n##FASTA\r\n>chr1\r\nACGT\r\n")


def _write(path: pathlib.Path, text: str) -> pathlib.Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path
