"""Small models with random parameters, made without compiling anything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import caduceus_jax as cj

_AROUND = {"scale": 1.0, "d_skip": 1.0, "delta_bias": -3.0, "a_log": 1.0}

SMALL = {"d_model": 8, "n_layer": 1, "d_state": 4}
KINDS = ("ps", "ph", "classifier", "tracks")  # of `kinds`

COMPLEMENT = np.asarray(cj.CaduceusConfig().complement_map)


def random_ids(length=50, batch=2):
    return np.random.default_rng(1).integers(0, 12, (batch, length)).astype(np.int32)


def reverse_complement(ids):
    return COMPLEMENT[ids][:, ::-1].astype(np.int32)


@jax.jit
def forward(model, ids):
    return model(ids)


def randomised(make, seed=0):
    """A model of `make()` whose parameters are all random: none is 0, 1 or symmetric."""
    rng = np.random.default_rng(seed)
    skeleton = nnx.eval_shape(make)
    leaves = [
        (
            path,
            nnx.Param(
                jnp.asarray(
                    _AROUND.get(path[-1], 0.0) + 0.2 * rng.normal(size=p.shape), jnp.float32
                )
            ),
        )
        for path, p in nnx.to_flat_state(nnx.state(skeleton, nnx.Param))
    ]
    nnx.update(skeleton, nnx.from_flat_state(leaves))
    return skeleton


def language_model(dtype=jnp.float32, remat=False, **options):
    """A Caduceus-PS of 24 x 3 unless `options` say otherwise."""
    config = cj.CaduceusConfig(**{"d_model": 24, "n_layer": 3, "rcps": True} | options)
    return randomised(
        lambda: cj.CaduceusForMaskedLM(config, dtype=dtype, remat=remat, rngs=nnx.Rngs(0))
    )


def classifier(pooling="mean", rc_mode=None, num_labels=3, **options):
    """A classifier of 24 x 2."""
    config = cj.CaduceusConfig(**{"d_model": 24, "n_layer": 2} | options)
    return randomised(
        lambda: cj.CaduceusForSequenceClassification(
            config, num_labels=num_labels, pooling=pooling, rc_mode=rc_mode, rngs=nnx.Rngs(0)
        )
    )


def pretrained(**options):
    """A Caduceus-PS of 16 x 2 with its tokenizer, as `cj.load` returns one."""
    options = {"d_model": 16, "n_layer": 2, "initializer_range": 1.0} | options
    model = language_model(**options)
    return cj.Pretrained(model, cj.Tokenizer())


@functools.cache
def kinds():
    """One small model of each kind."""
    tracks = cj.CaduceusConfig(**SMALL, rcps=True)
    return {
        "ps": language_model(**SMALL),
        "ph": language_model(**SMALL, rcps=False),
        "classifier": classifier(rc_mode="posthoc", **SMALL),
        "tracks": randomised(
            lambda: cj.CaduceusForTracks(tracks, num_tracks=2, bin_size=4, rngs=nnx.Rngs(0))
        ),
    }
