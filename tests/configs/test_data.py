"""The files that the quickstart ships fit each other."""

import numpy as np

from caduceus_jax.cli.arguments import read_config
from caduceus_jax.configs import resolve_data
from caduceus_jax.genomics.files.fasta import iterate_fasta
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.data.sources import open_stores
from caduceus_jax.train.data.splits import read_splits

COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


def _genome():
    ((name, bases),) = iterate_fasta(resolve_data("configs/data/yeast_mitochondrion.fa"))
    assert name == "chrM"
    return bases


def test_the_genome_is_the_one_described():
    bases = _genome()
    assert len(bases) == 85_779
    assert set(bytes(bases)) == set(b"ACGT")


def test_variants_fit_the_genome_and_lie_in_its_held_out_part(tmp_path):
    config = read_config(PretrainConfig, ["--config", "quickstart"])
    stores = open_stores(config.data, tmp_path)
    (block,) = read_splits(stores, config.data, config.max_length).validation
    bases = _genome()
    lines = resolve_data("configs/data/yeast_mitochondrion.vcf").read_text().splitlines()
    records = [line.split("\t") for line in lines if not line.startswith("#")]
    assert len(records) == 344
    positions = np.array([int(record[1]) - 1 for record in records])  # VCF counts from 1
    assert (np.diff(positions) == 25).all()
    assert positions[0] == block.start and positions[-1] < block.end
    transitions = {"A": "G", "G": "A", "C": "T", "T": "C"}
    for position, record in zip(positions, records, strict=True):
        assert record[0] == "chrM"
        assert record[3] == chr(bases[position])
        assert record[4] == transitions[record[3]]


def test_regions_are_genes_that_start_and_stop_like_genes():
    bases = _genome()
    lines = resolve_data("configs/data/yeast_mitochondrion.bed").read_text().splitlines()
    regions = {name: (int(s), int(e), strand) for _, s, e, name, _, strand in map(str.split, lines)}
    assert len(regions) == len(lines) == 55
    for name in ("COX1", "COX2", "COX3", "COB", "ATP6", "OLI1"):
        start, end, strand = regions[name]
        gene = bytes(bases[start:end])
        assert strand == "+" and gene.startswith(b"ATG") and gene.endswith(b"TAA")
    # Methionine's transfer RNA, on the strand that the file says, has the anticodon CAT.
    start, end, strand = regions["tM(CAU)Q1"]
    assert b"CAT" in bytes(bases[start:end])
    start, end, strand = regions["tT(UAG)Q2"]
    assert strand == "-" and b"TAG" in bytes(bases[start:end]).translate(COMPLEMENT)[::-1]
