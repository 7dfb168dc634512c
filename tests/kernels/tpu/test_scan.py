"""What interpretation does not show: every kernel lowers for TPUs, and what is refused."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.pallas import tpu as pltpu

from caduceus_jax.kernels import MosaicTPU, selective_scan
from tests.kernels.scan_cases import (
    assert_close,
    cast,
    example,
    in_float64,
    shapes,
    value_and_gradients,
)
from tests.tolerances import SCAN_FP32, relative_error


@pytest.mark.parametrize(
    ("size", "without", "dtype"),
    [
        ((1, 4096, 512, 16), (), jnp.bfloat16),
        ((4, 1000, 200, 8, 2), (), jnp.float32),  # ragged length and channels, groups
        ((4, 1000, 200, 8, 2), (), jnp.bfloat16),
        ((2, 512, 384, 32), ("D", "z", "delta_bias"), jnp.float32),
    ],
    ids=["plain", "ragged-float32", "ragged-bfloat16", "bare"],
)
@pytest.mark.parametrize("segments", [False, True], ids=["whole", "packed"])
def test_every_kernel_lowers_for_tpu(size, without, dtype, segments):
    *size, groups = size if len(size) == 5 else (*size, None)
    arguments = shapes(*size, dtype, groups)
    arguments = {name: x for name, x in arguments.items() if name not in without}
    options = MosaicTPU(interpret=False)
    ids = jax.ShapeDtypeStruct(arguments["u"].shape[:2], jnp.int32) if segments else None

    def both(arguments, ids):
        how = {"reverse": True, "segment_ids": ids, "implementation": options}
        y, pull_back = jax.vjp(lambda a: selective_scan(**a, **how), arguments)
        return pull_back(y)

    text = jax.jit(both).trace(arguments, ids).lower(lowering_platforms=("tpu",)).as_text()
    for kernel in ("forward", "backward"):
        assert f"selective_scan_{kernel}" in text, kernel


@pytest.mark.slow
def test_no_program_reads_what_another_writes():
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    arguments = example(130, batch=1, channels=130, state=2)
    options = MosaicTPU(128, 128, interpret=pltpu.InterpretParams(detect_races=True))
    found = value_and_gradients(cast(arguments), options)
    assert_close(found, in_float64(arguments), SCAN_FP32)
    assert not interpret_pallas_call.races.races_found


def test_several_chunks_and_blocks_with_groups():
    arguments = example(130, batch=2, channels=256, state=9, groups=2)
    found = value_and_gradients(cast(arguments), MosaicTPU(128, 128), reverse=True)
    assert_close(found, in_float64(arguments, reverse=True), SCAN_FP32)


def test_second_derivatives_are_those_of_the_portable_scan():
    arguments = cast(example(8, batch=1, channels=3))

    def slope(u, implementation):
        scan = lambda u: selective_scan(**arguments | {"u": u}, implementation=implementation)  # noqa: E731
        return jnp.sum(jax.grad(lambda u: jnp.sum(scan(u) ** 2))(u))

    second = jax.jit(jax.grad(slope), static_argnums=1)
    found, expected = (second(arguments["u"], x) for x in ("mosaic_tpu", "reference"))
    assert relative_error(found, expected) < SCAN_FP32


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"state": 41}, MosaicTPU(), "^41 states; supported: up to 40, .*'chunked'"),
        ({"state": 256}, MosaicTPU(), "^256 states; supported: up to 40"),
    ],
)
def test_what_the_kernels_do_not_have_is_refused(changed, options, message):
    with pytest.raises(NotImplementedError, match=message):
        selective_scan(**cast(example(8, **changed)), implementation=options)


def test_a_block_that_does_not_divide_the_channels_is_refused():
    with pytest.raises(ValueError, match="block is 256; .* divide the channels, 128 when padded"):
        selective_scan(**cast(example(8)), implementation=MosaicTPU(block=256))


def test_float64_is_refused():
    with jax.enable_x64(True), pytest.raises(NotImplementedError, match="float64; .* float32 and"):
        selective_scan(**cast(example(8), jnp.float64), implementation="mosaic_tpu")
