"""The values are tested with every implementation's, in `tests/kernels/test_causal_conv.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from caduceus_jax.kernels import MosaicTPU, bidirectional_conv1d, causal_conv1d
from tests.tolerances import SCAN_FP32, relative_error


@pytest.mark.parametrize(
    ("length", "width", "reverse"),
    [
        pytest.param(700, 9, True, id="700-9-reverse"),
        pytest.param(512, 4, False, id="512-4-forward"),
        pytest.param(700, 9, False, id="700-9-forward", marks=pytest.mark.slow),
        pytest.param(512, 4, True, id="512-4-reverse", marks=pytest.mark.slow),
    ],
)
def test_the_widest_filter_and_several_chunks(length, width, reverse):
    rng = np.random.default_rng(width)
    shapes = ((2, length, 3), (2, width, 3), (2, 3), (2, length, 3))
    x, weight, bias, cotangent = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)

    def run(implementation):
        convolve = lambda *a: causal_conv1d(*a, reverse=reverse, implementation=implementation)  # noqa: E731
        y, pull_back = jax.vjp(convolve, x, weight, bias)
        return y, *pull_back(cotangent)

    for found, expected in zip(run("mosaic_tpu"), run("chunked"), strict=True):
        assert relative_error(found, expected) < SCAN_FP32


@pytest.mark.slow
def test_both_directions_across_chunks_with_the_widest_filter():
    """Ragged and packed: each chunk meets tokens of both of its neighbours."""
    rng = np.random.default_rng(1)
    shapes = (1, 300, 3), (2, 9, 3), (2, 3), (1, 300, 3), (1, 300, 3)
    x, weight, bias, *cotangents = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    ids = jnp.asarray(np.cumsum(rng.random((1, 300)) < 0.05, axis=1))

    def run(implementation):
        how = {"segment_ids": ids, "implementation": implementation}
        y, pull_back = jax.vjp(lambda *a: bidirectional_conv1d(*a, **how), x, weight, bias)
        return *y, *pull_back(tuple(cotangents))

    for found, expected in zip(run("mosaic_tpu"), run("chunked"), strict=True):
        assert relative_error(found, expected) < SCAN_FP32


def test_wider_filters_are_refused():
    with pytest.raises(NotImplementedError, match="a filter of width 10; supported: up to 9, or"):
        causal_conv1d(jnp.ones((1, 5, 2)), jnp.ones((10, 2)), implementation="mosaic_tpu")


@pytest.mark.parametrize("segments", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_both_kernels_lower_for_tpu(dtype, segments):
    x = jax.ShapeDtypeStruct((2, 1000, 200), dtype)
    weight = jax.ShapeDtypeStruct((2, 4, 200), jnp.float32)

    ids = jax.ShapeDtypeStruct((2, 1000), jnp.int32) if segments else None

    def both(x, weight, ids):
        how = {"segment_ids": ids, "implementation": MosaicTPU(interpret=False)}
        (y, one_way), pull_back = jax.vjp(
            lambda x, w: (bidirectional_conv1d(x, w, **how), causal_conv1d(x, w[0], **how)),
            *(x, weight),
        )
        return pull_back((y, one_way))

    text = jax.jit(both).trace(x, weight, ids).lower(lowering_platforms=("tpu",)).as_text()
    assert "causal_conv_forward" in text and "causal_conv_backward" in text


@pytest.mark.slow
def test_no_program_reads_what_another_writes():
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((1, 300, 130), (2, 4, 130)))

    def slopes(options):
        return jax.grad(
            lambda *a: sum(map(jnp.sum, bidirectional_conv1d(*a, implementation=options))), (0, 1)
        )(x, weight)

    found = slopes(MosaicTPU(interpret=pltpu.InterpretParams(detect_races=True)))
    for one, other in zip(found, slopes("chunked"), strict=True):
        assert relative_error(one, other) < SCAN_FP32
    assert not interpret_pallas_call.races.races_found
