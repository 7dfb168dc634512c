"""Small genomes on disk, and small files of regions and variants."""

import pathlib

import numpy as np

from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.train.data.prepare import write_store

VCF_HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def fasta(path: pathlib.Path, **records: str) -> pathlib.Path:
    """Writes a FASTA file of these records, each on one line."""
    path.write_text("".join(f">{contig}\n{text}\n" for contig, text in records.items()))
    return path


def drawn(lengths: dict[str, int], unknown: int) -> dict[str, str]:
    """Random contigs; of chr1, base `unknown` (0-based) is N and the next an ambiguity code."""
    rng = np.random.default_rng(0)
    contigs = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in lengths.items()}
    chr1 = contigs["chr1"]
    return contigs | {"chr1": chr1[:unknown] + "NR" + chr1[unknown + 2 :]}


def genome(path: pathlib.Path, records: dict[str, str]) -> Genome:
    """The genome of a FASTA file of these records."""
    return Genome(fasta(path, **records))


def prepared(folder: pathlib.Path, **records: str) -> Store:
    """A store of these records, in a folder of its own within `folder`."""
    name = f"genome{len(list(folder.iterdir()))}"
    return write_store(fasta(folder / f"{name}.fa", **records), folder / name)


def write_vcf(path: pathlib.Path, *records: str) -> pathlib.Path:
    """Writes a VCF file of these lines."""
    path.write_text(VCF_HEADER + "".join(record + "\n" for record in records))
    return path


def write_bed(path: pathlib.Path, *lines: str | tuple[str, int, int]) -> pathlib.Path:
    """Writes a BED file of these lines, or of (chrom, start, end)."""
    texts = (line if isinstance(line, str) else "\t".join(map(str, line)) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def reverse_complement(bases: str) -> str:
    return bases.translate(COMPLEMENT)[::-1]


def other(base: str, steps: int = 1) -> str:
    """The base so many places behind, in the order A, C, G, T."""
    return "ACGT"[("ACGT".index(base) + steps) % 4]
