import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.kernels import bidirectional_conv1d, causal_conv1d, selective_scan
from caduceus_jax.model import mamba
from caduceus_jax.model.mamba import BiMamba, Convolution, MambaCore, selective_ssm
from tests import original
from tests.models import randomised
from tests.tolerances import SCAN_FP32, relative_error

CONFIG = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, d_conv=3)


def core(seed):
    return randomised(lambda: MambaCore(CONFIG, rngs=nnx.Rngs(0)), seed)


def random_input(*shape):
    return jnp.asarray(np.random.default_rng(3).normal(size=shape), jnp.float32)


@jax.jit
def both(cores, x, mask=None):
    """Walks both ways over every strand."""
    kernels = {"scan": selective_scan, "conv": causal_conv1d}
    return [selective_ssm(cores, x, None, mask, reverse=r, **kernels) for r in (False, True)]


def test_each_strand_is_read_with_its_own_parameters():
    cores, x = [core(1), core(2)], random_input(2, 2, 9, 16)
    for s in (0, 1):
        alone = both([cores[s]], x[:, s : s + 1])
        for out, expected in zip(both(cores, x), alone, strict=True):
            assert relative_error(out[:, s], expected[:, 0]) < SCAN_FP32


def test_the_other_direction_is_a_walk_over_the_flipped_sequence():
    cores, x = [core(1)], random_input(1, 1, 9, 16)
    forward, backward = both(cores, x)
    flipped, _ = both(cores, x[:, :, ::-1])
    assert relative_error(backward, flipped[:, :, ::-1]) < SCAN_FP32
    assert relative_error(forward, backward) > 0.1


def test_it_is_the_equation():
    """With the projections of a whole mixer around it, as the original computes it."""
    model = randomised(
        lambda: cj.CaduceusForMaskedLM(
            cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, bidirectional=False),
            rngs=nnx.Rngs(0),
        )
    )
    tensors = cj.convert.to_torch(model.config, model)
    prefix = "caduceus.backbone.layers.0.mixer."
    layer = {"mixer." + k.removeprefix(prefix): v for k, v in tensors.items() if prefix in k}
    x = random_input(1, 9, 8)
    expected = original._mixer(model.config, layer, np.asarray(x, np.float64))
    mixer = jax.tree.map(lambda leaf: leaf[0], model.caduceus.layers.mixer)
    found = jax.jit(lambda mixer, x: mixer(x[:, None])[:, 0])(mixer, x)
    assert relative_error(found, expected) < SCAN_FP32


def test_padding_leaves_no_trace():
    cores, x = [core(1)], random_input(1, 1, 9, 16)
    padded = jnp.pad(x, ((0, 0), (0, 0), (3, 2), (0, 0)), constant_values=5.0)
    mask = jnp.pad(jnp.ones((1, 9), bool), ((0, 0), (3, 2)))
    for out, expected in zip(both(cores, padded, mask), both(cores, x), strict=True):
        assert relative_error(out[:, :, 3:-2], expected) < SCAN_FP32


@pytest.mark.parametrize("reverse", [False, True])
def test_the_directions_exchange_roles_on_the_second_strand(reverse):
    found = mamba._cores_by_strand("fwd", "rev", 2, reverse)
    assert found == (["rev", "fwd"] if reverse else ["fwd", "rev"])


def test_a_mixer_convolves_both_ways_at_once_and_any_function_once_for_each():
    x, mask = random_input(2, 2, 9, 8), jnp.arange(9)[None] < jnp.asarray([[9], [5]])
    called = []

    def counted(function):
        def call(*arrays, **options):
            called.append((function.__name__, options.get("reverse")))
            return function(*arrays, **options)

        return call

    def run(conv):
        model = randomised(
            lambda: BiMamba(
                CONFIG, dtype=jnp.float32, scan=selective_scan, conv=conv, rngs=nnx.Rngs(0)
            )
        )
        called.clear()
        ids = jnp.zeros((2, 9), jnp.int32).at[:, 3:].set(1)
        out = jax.jit(lambda model, x: model(x, mask, ids))(model, x)
        return out, list(called)

    ours = Convolution(counted(causal_conv1d), counted(bidirectional_conv1d)).bind(silu=True)
    together, calls = run(ours)
    assert calls == [("bidirectional_conv1d", None)]
    apart, calls = run(counted(causal_conv1d))
    assert calls == [("causal_conv1d", False), ("causal_conv1d", True)]
    np.testing.assert_array_equal(together, apart)


def test_metadata_on_a_submodule_does_no_harm():
    def make():
        return BiMamba(
            CONFIG,
            dtype=jnp.float32,
            scan=selective_scan,
            conv=causal_conv1d,
            rngs=nnx.Rngs(0),
        )

    plain, named = randomised(make), randomised(make)
    named.fwd.name, named.rev.note = "forward", ("any", "thing")
    call = jax.jit(lambda mixer, x: mixer(x))
    x = random_input(1, 2, 6, 8)
    np.testing.assert_array_equal(call(named, x), call(plain, x))
