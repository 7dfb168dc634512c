import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.kernels import MosaicTPU, PallasTriton, selective_scan
from tests.models import language_model, random_ids
from tests.tolerances import SCAN_FP32, relative_error
from tests.traced_kernels import kernels_of


@pytest.fixture(scope="module")
def model():
    return language_model(n_layer=3, d_state=4)


def test_states_of_every_layer_have_names(model):
    ids = jnp.asarray(random_ids(12))
    states = jax.jit(lambda m, i: m.caduceus.layer_states(i))(model, ids)
    assert list(states) == ["embedding", "layers.0", "layers.1", "layers.2", "norm_f"]
    out = jax.jit(lambda m, i: m(i, output_hidden_states=True))(model, ids)
    assert relative_error(states["embedding"], out.hidden_states[0]) < SCAN_FP32
    assert relative_error(states["norm_f"], out.last_hidden_state) < SCAN_FP32
    # The residual stream after a block is the embedding and what every block so far has added.
    added = out.hidden_states[1] + out.hidden_states[2]
    assert relative_error(states["layers.1"], states["embedding"] + added) < SCAN_FP32


def test_the_first_blocks_alone(model):
    ids = jnp.asarray(random_ids(12))

    @jax.jit
    def run(backbone, ids):
        states = backbone.layer_states(ids)
        one, other = jnp.split(states["layers.0"], 2, axis=-1)
        return backbone(ids, n_blocks=1).state, backbone.norm_f(one), other

    short, expected, _ = run(model.caduceus, ids)
    assert relative_error(short[:, 0], expected) < SCAN_FP32


@pytest.mark.parametrize(
    ("both_strands", "options"),
    [
        (False, {}),
        (False, {"fused_add_norm": True, "bidirectional_strategy": "ew_multiply"}),
        (True, {"rcps": False}),
        (False, {"bidirectional_weight_tie": False}),
    ],
)
def test_the_state_at_a_few_positions(both_strands, options):
    """As if all were computed, and independent of what is left out."""
    backbone = language_model(**{"n_layer": 2, "d_state": 4} | options).caduceus
    ids, places = jnp.asarray(random_ids(45)), jnp.array([[20, 23], [22, 20]])

    @jax.jit
    def run(backbone, ids, places):
        state = backbone(ids, both_strands=both_strands).state
        chosen = jnp.stack([x[:, at] for x, at in zip(state, places, strict=True)])
        few = backbone.states_at(ids, places, within=(19, 24), both_strands=both_strands)
        return chosen, few

    chosen, few = run(backbone, ids, places)
    assert few.shape == chosen.shape == (2, chosen.shape[1], 2, 24)
    assert relative_error(few, chosen) < SCAN_FP32


def test_the_final_state_is_laid_out_as_in_the_original(model):
    ids = jnp.asarray(random_ids(12))
    out = jax.jit(lambda m, i: m.caduceus(i))(model, ids)
    hidden, (state, inputs) = out.last_hidden_state, out
    assert inputs is None and hidden.shape == (2, 12, 48)
    np.testing.assert_array_equal(hidden[..., :24], state[:, 0])
    np.testing.assert_array_equal(hidden[..., 24:], state[:, 1, :, ::-1])


@pytest.mark.parametrize(
    ("remat", "implementation", "forward"),
    [
        # The states that enter chunks are kept, which spares a GPU the first of two passes.
        (True, PallasTriton(16, False), {"summaries": 1, "outputs": 2}),
        ("scans", PallasTriton(16, False), {"summaries": 1, "outputs": 1}),
        (True, MosaicTPU(interpret=False), {"forward": 2}),
        ("scans", MosaicTPU(interpret=False), {"forward": 1}),
    ],
)
def test_what_remat_runs_again(remat, implementation, forward):
    scan = functools.partial(selective_scan, implementation=implementation)
    config = cj.CaduceusConfig(d_model=24, n_layer=2, rcps=True)
    shell = nnx.eval_shape(
        lambda: cj.CaduceusForMaskedLM(config, remat=remat, scan=scan, rngs=nnx.Rngs(0))
    )
    graph, parameters = nnx.split(shell)

    def loss(parameters):
        return nnx.merge(graph, parameters)(jnp.zeros((1, 50), jnp.int32)).logits.sum()

    found = kernels_of(jax.make_jaxpr(jax.grad(loss))(parameters).jaxpr)
    directions = 2
    for name, times in forward.items():
        assert found[f"selective_scan_{name}"] == directions * times
