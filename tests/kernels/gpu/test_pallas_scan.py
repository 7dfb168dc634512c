"""What interpretation does not show: every kernel lowers for CUDA, and what is refused."""

import jax
import jax.numpy as jnp
import pytest

from caduceus_jax.kernels import PallasTriton, selective_scan
from caduceus_jax.kernels.gpu.chunk_parallel import chunk_length
from tests.kernels.scan_cases import (
    KERNELS,
    abstract_gpu,
    assert_close,
    cast,
    example,
    in_float64,
    shapes,
    value_and_gradients,
)
from tests.tolerances import SCAN_FP32, relative_error


@pytest.mark.filterwarnings("ignore:.*Triton.*:DeprecationWarning")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "without"),
    [
        ((1, 4096, 256, 16), ()),
        ((4, 1000, 96, 8, 2), ()),  # ragged length and channels, groups
        ((2, 512, 64, 32), ("D", "z", "delta_bias")),
    ],
    ids=["plain", "ragged", "bare"],
)
def test_every_kernel_lowers_for_cuda(size, without, dtype):
    *size, groups = size if len(size) == 5 else (*size, None)
    arguments = shapes(*size, dtype, groups)
    arguments = {name: x for name, x in arguments.items() if name not in without}
    options = PallasTriton(chunk_length=256, interpret=False)

    def both(arguments):
        scan = lambda a: selective_scan(**a, reverse=True, implementation=options)  # noqa: E731
        y, pull_back = jax.vjp(scan, arguments)
        return pull_back(y)

    with abstract_gpu():
        lowered = jax.jit(both).trace(arguments).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    for kernel in KERNELS:
        assert f"selective_scan_{kernel}" in text, kernel


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_single_chunk(reverse):
    arguments = example(37, channels=5)
    found = value_and_gradients(cast(arguments), PallasTriton(40), reverse=reverse)
    assert_close(found, in_float64(arguments, reverse=reverse), SCAN_FP32)


@pytest.mark.parametrize("chunk", [4, 12, 64])
def test_the_chunk_length_changes_nothing(chunk):
    arguments = cast(example(37, batch=1, channels=5))
    found, expected = (
        selective_scan(**arguments, reverse=True, implementation=PallasTriton(length))
        for length in (chunk, 40)
    )
    assert jnp.abs(found - expected).max() < 1e-5 * jnp.abs(expected).max()


def test_chunks_are_short_where_programs_are_few():
    # Four blocks of 128 channels: 2,048 programs are 512 chunks of the one sequence.
    assert chunk_length(1, 131_072, 512) == 256
    assert chunk_length(4, 131_072, 512) == 1024
    assert chunk_length(64, 131_072, 512) == 2048
    assert chunk_length(256, 1024, 256) == 256
    assert chunk_length(1, 1024, 256) == 128
    assert chunk_length(1, 6, 256) == 8


def test_second_derivatives_are_those_of_the_portable_scan():
    arguments = cast(example(8, batch=1, channels=3))

    def slope(u, implementation):
        scan = lambda u: selective_scan(**arguments | {"u": u}, implementation=implementation)  # noqa: E731
        return jnp.sum(jax.grad(lambda u: jnp.sum(scan(u) ** 2))(u))

    second = jax.jit(jax.grad(slope), static_argnums=1)
    found, expected = (second(arguments["u"], x) for x in ("pallas_triton", "reference"))
    assert relative_error(found, expected) < SCAN_FP32


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        (
            {"state": 3},
            PallasTriton(),
            "^3 states; supported: powers of two up to 128, .*chunked",
        ),
        ({"state": 256}, PallasTriton(), "^256 states; supported: powers of two up to 128"),
    ],
)
def test_what_the_kernels_do_not_have_is_refused(changed, options, message):
    with pytest.raises(NotImplementedError, match=message):
        selective_scan(**cast(example(8, **changed)), implementation=options)


def test_float64_is_refused():
    with jax.enable_x64(True), pytest.raises(NotImplementedError, match="float64; .* float32 and"):
        selective_scan(**cast(example(8), jnp.float64), implementation="pallas_triton")
