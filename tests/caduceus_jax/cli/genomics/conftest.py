"""Small inputs of the commands of genomics."""

import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, CaduceusForSequenceClassification
from tests.genomes import fasta, write_bed, write_vcf


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    """Models, a genome, 30 variants of which four are of two bases, and 30 regions."""
    folder = tmp_path_factory.mktemp("inputs")
    config = CaduceusConfig(d_model=8, n_layer=1, initializer_range=1.0)
    CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)).save_pretrained(folder / "lm")
    classifier = CaduceusForSequenceClassification(config, rngs=nnx.Rngs(0))
    classifier.save_pretrained(folder / "classifier")
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 400))
    turned = bases.translate(str.maketrans("ACGT", "CATG"))
    records = [
        f"1\t{p + 1}\t.\t{bases[p : p + n]}\t{turned[p : p + n]}\t.\t.\t."
        for p, n in ((p, 2 if p % 100 == 0 else 1) for p in range(100, 400, 10))
    ]
    return {
        "LM": str(folder / "lm"),
        "CLASSIFIER": str(folder / "classifier"),
        "GENOME": str(fasta(folder / "genome.fa", **{"1": bases})),
        "VCF": str(write_vcf(folder / "in.vcf", *records)),
        "BED": str(write_bed(folder / "in.bed", *(("1", p, p + 9) for p in range(0, 300, 10)))),
    }
