"""The work of `embed` in blocks, and the tables that the blocks become."""

import numpy as np
import polars
import pytest

from caduceus_jax.genomics.options import Embedding
from caduceus_jax.genomics.reference.sequences import of_bases
from caduceus_jax.genomics.scoring.embeddings import EmbeddingWork, checked_overlap
from caduceus_jax.inference.blocks import run_work
from caduceus_jax.inference.embeddings import embed, reading
from tests.models import pretrained

BASES = [b"ACGTACGTAC", b"GG", b"TTTTTTT"]
CHANNELS = 16


@pytest.fixture(scope="module")
def m():
    return pretrained()


def work(m, **options):
    how = reading(m.model, m.tokenizer)
    return EmbeddingWork(of_bases(["a", "b", "c"], BASES), Embedding(**options), how)


def test_neighbouring_tiles_share_a_quarter_by_default():
    assert checked_overlap(Embedding()) is None
    assert checked_overlap(Embedding(tile=32)) == 8
    assert checked_overlap(Embedding(tile=32, overlap=0)) == 0


def test_parts_and_weights_are_those_of_the_bases(m):
    made = work(m)
    assert [row for part in made.parts for row in part] == [0, 1, 2]
    assert sum(made.weights) == sum(map(len, BASES))


def test_a_table_without_rows_has_all_columns(m):
    empty = work(m).empty()
    assert empty.schema["embedding"] == polars.Array(polars.Float32, CHANNELS)
    assert empty.columns == ["name", "length", "status", "embedding"] and not len(empty)


def test_vectors_of_all_bases_are_in_their_rows(m):
    made = work(m, pooling="none")
    parts = run_work(m.model, made, what="embedding", unit="sequences")
    frame = polars.concat([part.frame for part in parts])
    assert frame["embedding"].list.len().to_list() == [10, 2, 7]
    mean = np.stack([np.mean(vectors.to_list(), axis=0) for vectors in frame["embedding"]])
    expected = embed(m.model, [text.decode() for text in BASES])
    np.testing.assert_allclose(mean, expected, atol=1e-5)
