"""The examples in docstrings; those of genomics find a small model and a genome by name."""

import doctest
import importlib

import pytest

from caduceus_jax.cli.main import main
from tests.genomes import fasta
from tests.models import classifier, language_model

MODULES = [
    "tokenizer",
    "model.config",
    "model.convert",
    "model.losses",
    "model.files.hf_config",
    "kernels.selective_scan",
    "genomics.interval",
    "genomics.variant",
    "genomics.reference.genome",
    "genomics.genome_wide.store",
    "genomics.embed",
    "genomics.predict",
    "genomics.score_variants",
    "genomics.likelihood",
    "genomics.mutagenesis",
]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctests")
    language_model(d_model=16, n_layer=1).save_pretrained(str(folder / "model"))
    classifier(num_labels=2).save_pretrained(str(folder / "classifier"))
    chr1 = "TGCATTGACCATTGACAGCA" + "ACGTTCAGGACTGATCCATG" * 2
    paths = {"model": folder / "model", "classifier": folder / "classifier"}
    paths["genome"] = paths["fasta"] = fasta(folder / "genome.fa", chr1=chr1)
    names = {name: str(path) for name, path in paths.items()}
    names["scores"] = str(folder / "scores.zarr")
    words = [names["model"], "all", "--genome", names["genome"], "--out", names["scores"]]
    assert main(["likelihood", *words, "--context-length", "15"]) == 0
    return names


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name, names):
    module = importlib.import_module(f"caduceus_jax.{name}")
    found = doctest.testmod(module, extraglobs=names)
    assert found.attempted > 0 and not found.failed
