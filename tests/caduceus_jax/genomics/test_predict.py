"""Predictions of a classifier, in order and beside the table they belong to."""

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from tests.genomes import genome
from tests.models import classifier, pretrained

SEQUENCES = ["ACGTTGCAACGT", "GGCATTA", "TTTTTTTTTTTTTTTTTTTT"]


@pytest.fixture(scope="module")
def m():
    return cj.Pretrained(classifier(rcps=True), cj.Tokenizer())


def test_probabilities_are_those_of_the_model(m):
    found = cj.predict(m, SEQUENCES)
    assert found.columns[3:] == ["predicted", "p_LABEL_0", "p_LABEL_1", "p_LABEL_2"]
    given = found.select(cj_columns := found.columns[4:]).to_numpy()
    np.testing.assert_allclose(given.sum(1), 1, rtol=1e-5)
    for row, text in zip(given, SEQUENCES, strict=True):
        logits = np.asarray(m.model(m.tokenizer.encode(text)[None]).logits[0], np.float64)
        np.testing.assert_allclose(row, np.exp(logits) / np.exp(logits).sum(), atol=1e-4)
    best = [cj_columns[i].removeprefix("p_") for i in given.argmax(1)]
    assert found["predicted"].to_list() == best


def test_a_table_keeps_its_columns_and_its_order(m):
    table = polars.DataFrame({"id": [3, 1, 2], "dna": SEQUENCES})
    found = cj.predict(m, table, sequence="dna")
    assert found["id"].to_list() == [3, 1, 2]
    assert found["status"].to_list() == ["ok"] * 3
    expected = cj.predict(m, SEQUENCES)["p_LABEL_1"]
    np.testing.assert_allclose(found["p_LABEL_1"], expected, atol=1e-6)
    with pytest.raises(UserError, match="has a column predicted already: rename it"):
        cj.predict(m, table.with_columns(predicted=1), sequence="dna")


def test_regions_outside_the_genome_are_null(m, tmp_path):
    chr1 = genome(tmp_path / "a.fa", {"chr1": "ACGTTGCA" * 4})
    found = cj.predict(m, ["chr1:1-12", ("chr9", 0, 8)], genome=chr1)
    assert found["status"].to_list() == ["ok", "unknown_chrom"]
    assert found["predicted"].is_null().to_list() == [False, True]


def test_a_language_model_does_not_predict():
    with pytest.raises(UserError, match="was not fine-tuned"):
        cj.predict(pretrained(), SEQUENCES)
