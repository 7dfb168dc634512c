"""Attributions in blocks, and what is made of them."""

import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax import UserError
from caduceus_jax.genomics.options import Attribution
from caduceus_jax.genomics.reference.sequences import of_bases
from caduceus_jax.genomics.scoring.attributions import (
    Attributed,
    AttributionWork,
    attribution_of_bases,
    completeness_gap,
)
from caduceus_jax.inference.loading import as_pretrained
from tests.models import SMALL, language_model

FOUR = np.array([[1.0, 2.0, 3.0, -6.0], [0.0, 3.0, -4.0, 1.0]], np.float32)


def test_one_value_per_base():
    base = np.array([2, 0])
    assert attribution_of_bases(FOUR, base, "gradient_x_input").tolist() == [3.0, 0.0]
    expected = [np.sqrt(50), np.sqrt(26)]
    np.testing.assert_allclose(attribution_of_bases(FOUR, base, "gradient"), expected, rtol=1e-6)


def test_the_gap_is_a_share_of_what_is_explained():
    assert completeness_gap(Attributed(0, np.array([2, 1]), FOUR, 7.0, 2.0)) == pytest.approx(0.2)
    # N contributes nothing.
    assert completeness_gap(Attributed(0, np.array([-1, 1]), FOUR, 5.0, 2.0)) == 0


def test_all_rows_are_divided_among_blocks():
    sequences = of_bases([str(i) for i in range(200)], [b"ACGTACGTACGTACGTACGTACGTACGT"] * 200)
    m = as_pretrained(language_model(d_model=16, n_layer=1))
    work = AttributionWork(m, sequences, Attribution(batch_size=2))
    assert [row for part in work.parts for row in part] == list(range(200))
    assert work.weights == [28 * len(part) for part in work.parts] and len(work.parts) > 1


def test_a_window_fits_into_every_sequence():
    m = as_pretrained(language_model(d_model=16, n_layer=1))
    with pytest.raises(UserError, match="a has 3 bases, fewer than window, 5"):
        AttributionWork(m, of_bases(["a"], [b"ACG"]), Attribution(window=5))


def test_sequences_of_many_lengths_run_in_whole_bins():
    config = cj.CaduceusConfig(**SMALL)
    model = cj.CaduceusForTracks(config, num_tracks=1, bin_size=10, rngs=nnx.Rngs(0))
    bases = [b"ACGTA" * 6] * 300 + [b"ACGTA" * 40]
    sequences = of_bases([str(i) for i in range(301)], bases)
    work = AttributionWork(as_pretrained(model), sequences, Attribution())
    widths = set()
    for block in work.blocks(range(len(work.parts))):
        for batch in block.batches:
            ids, (mask, _) = block.inputs(batch)
            widths.add(ids.shape[1])
            assert mask.shape == ids.shape and set(mask.sum(axis=1)) <= {30, 200}
            assert block.item(batch) == (ids.shape[1] + 1, 4)
    assert widths == {40, 200}
