"""Small models of every kind, and sequences."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM
from tests.models import randomised

KINDS = {
    "ps": {"rcps": True},
    "ps released": {"rcps": True, "fused_add_norm": True},
    "ph": {},
    "one direction": {"bidirectional": False},
}


@functools.cache
def _build(**fields) -> CaduceusForMaskedLM:
    config = CaduceusConfig(**{"d_model": 16, "n_layer": 2} | fields)
    return randomised(lambda: CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="session")
def kinds():
    return KINDS


@pytest.fixture(scope="session")
def build():
    """Makes a model of 16 x 2 with other fields of its config."""
    return _build


@pytest.fixture(params=KINDS)
def model(request):
    return _build(**KINDS[request.param])


@pytest.fixture
def ps():
    return _build(rcps=True)


@pytest.fixture(scope="session")
def run():
    """The model itself, compiled."""
    return jax.jit(lambda model, ids: model(ids))


@pytest.fixture(scope="session")
def draw():
    """Draws sequences of these lengths."""

    def draw(*lengths: int, seed: int = 0) -> list[str]:
        rng = np.random.default_rng(seed)
        return ["".join(rng.choice(list("ACGT"), length)) for length in lengths]

    return draw
