"""A small model, a genome, a store of its scores, and variants of it."""

import pathlib

import pytest

from caduceus_jax import CaduceusForMaskedLM
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.reference.genome import Genome
from tests.genomes import drawn, fasta
from tests.models import language_model

CONTEXT = ["--context-length", "31"]


@pytest.fixture(scope="package")
def model() -> CaduceusForMaskedLM:
    return language_model(d_model=16, n_layer=1, initializer_range=1.0)


@pytest.fixture(scope="package")
def desk(tmp_path_factory, model) -> pathlib.Path:
    """A folder with the model `lm`, the genome `a.fa` and the store `a.zarr` of one mask a pass."""
    folder = tmp_path_factory.mktemp("desk")
    model.save_pretrained(str(folder / "lm"))
    genome = fasta(folder / "a.fa", **drawn({"chr1": 600, "b": 200}, unknown=120))
    words = [str(folder / "lm"), "all", "--genome", str(genome), "--out", str(folder / "a.zarr")]
    assert main(["likelihood", *words, *CONTEXT]) == 0
    return folder


@pytest.fixture
def genome(desk) -> Genome:
    return Genome(desk / "a.fa")
