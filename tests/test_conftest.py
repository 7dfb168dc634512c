"""The session's shape checker sees every module that is listed for it."""

import re

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

from caduceus_jax.inference import embeddings
from caduceus_jax.kernels import selective_scan
from caduceus_jax.model import losses, rcps
from tests.models import language_model

IDS = np.full((2, 3), 7)


def model():
    return language_model(d_model=8, n_layer=1)


# A call for each entry that passes an array of too few axes.
WRONG = {
    "caduceus_jax.inference": lambda: embeddings.pooled_spans(IDS, "mean", None),
    "caduceus_jax.kernels": lambda: selective_scan(*[jnp.ones((2, 3))] * 5),
    "caduceus_jax.model.backbone": lambda: model().caduceus.layers(jnp.ones((2, 3)), None),
    "caduceus_jax.model.heads": lambda: model().head(jnp.ones((2, 3))),
    "caduceus_jax.model.losses": lambda: losses.masked_lm_loss(jnp.ones((2, 3)), IDS),
    "caduceus_jax.model.mamba": lambda: mixer()(jnp.ones((2, 3))),
    "caduceus_jax.model.rcps": lambda: rcps.swap_strands(jnp.ones((2, 3))),
}


def mixer():
    from caduceus_jax.kernels import causal_conv1d
    from caduceus_jax.model.config import CaduceusConfig
    from caduceus_jax.model.mamba import UniMamba

    config = CaduceusConfig(d_model=8, n_layer=1, bidirectional=False)
    scan_and_conv = {"scan": selective_scan, "conv": causal_conv1d}
    return nnx.eval_shape(
        lambda: UniMamba(config, dtype=jnp.float32, rngs=nnx.Rngs(0), **scan_and_conv)
    )


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_shape_is_caught(entry):
    message = rf"checking the parameters of {re.escape(entry)}\b"
    with pytest.raises(jaxtyping.TypeCheckError, match=message):
        WRONG[entry]()


def test_every_listed_module_is_tried(checked_modules):
    assert set(WRONG) == set(checked_modules)


@pytest.mark.usefixtures("shapes_unchecked")
def test_the_checker_can_be_switched_off():
    with pytest.raises(ValueError, match=r"u has shape \(2, 3\); it is \(batch, length, channels"):
        selective_scan(*[jnp.ones((2, 3))] * 5)
