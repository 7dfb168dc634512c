import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from tests.models import randomised


@jax.jit
def values(model, ids):
    return model(ids).logits


def tracks(rc_mode=None, **options):
    config = cj.CaduceusConfig(**{"d_model": 8, "n_layer": 1, "d_state": 4, "rcps": True} | options)
    return randomised(
        lambda: cj.CaduceusForTracks(
            config, num_tracks=3, bin_size=4, rc_mode=rc_mode, rngs=nnx.Rngs(0)
        )
    )


@pytest.mark.parametrize(
    "settings", [{}, {"rcps": False, "rc_mode": "posthoc"}], ids=["equivariant", "posthoc"]
)
def test_tracks_of_the_reverse_complement_are_turned_around(settings):
    model, tokenizer = tracks(**settings), cj.Tokenizer()
    ids = np.random.default_rng(0).integers(7, 11, (2, 24))
    there = values(model, jnp.asarray(ids))
    back = values(model, jnp.asarray(tokenizer.reverse_complement(ids)))
    assert there.shape == (2, 6, 3)
    np.testing.assert_allclose(back[:, ::-1], there, atol=1e-5)
    assert float(jnp.abs(there - there[:, ::-1]).max()) > 0.01


def test_each_bin_is_the_head_of_its_mean_state():
    model = tracks(rcps=False)
    ids = jnp.asarray(np.random.default_rng(1).integers(7, 11, (1, 8)))
    hidden, _ = jax.jit(lambda model: model.caduceus(ids))(model)
    expected = hidden[0, 0, 4:8].mean(axis=0) @ model.score[...].T
    np.testing.assert_allclose(values(model, ids)[0, 1], expected, atol=1e-5)
    with pytest.raises(cj.UserError, match="6 tokens, which is not a multiple of bin_size"):
        model(ids[:, :6])


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = tracks()
    model.save_pretrained(str(tmp_path / "m"))
    again = cj.CaduceusForTracks.from_pretrained(str(tmp_path / "m"), bin_size=4)
    ids = jnp.full((1, 8), 7)
    np.testing.assert_array_equal(values(again, ids), values(model, ids))


def test_a_bin_of_two_packed_sequences_is_refused():
    model, ids = tracks(rcps=False), jnp.full((1, 12), 7)
    whole, across = jnp.asarray([[1] * 4 + [2] * 8]), jnp.asarray([[1] * 6 + [2] * 6])
    found = model(ids, segment_ids=whole).logits
    alone = jnp.concatenate([values(model, ids[:, :4]), values(model, ids[:, 4:])], axis=1)
    np.testing.assert_allclose(found, alone, atol=1e-5)
    with pytest.raises(cj.UserError, match="segment_ids changes within a bin of 4 tokens: begin"):
        model(ids, segment_ids=across)
