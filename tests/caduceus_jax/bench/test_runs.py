import jax
import jax.numpy as jnp
import pytest

from caduceus_jax.bench import runs
from caduceus_jax.costs import Shape
from caduceus_jax.kernels import selective_scan
from tests.tolerances import SCAN_FP32, relative_error

SHAPE = Shape(2, 6, 8, 4)


def test_arguments_have_the_shape_of_the_scan():
    inputs = jax.eval_shape(lambda: runs.draw(SHAPE, "bfloat16"))
    assert {name: x.shape for name, x in inputs.items()} == {
        **dict.fromkeys(("u", "delta", "z"), (2, 6, 8)),
        **dict.fromkeys(("B", "C"), (2, 6, 4)),
        **dict.fromkeys(("D", "delta_bias"), (8,)),
        "A": (8, 4),
    }
    assert inputs["u"].dtype == jnp.bfloat16 and inputs["A"].dtype == jnp.float32


def test_the_cotangent_is_y():
    inputs = runs.draw(SHAPE, "float32")
    assert (inputs["A"] < 0).all()
    y, (gradients,) = jax.jit(runs.scan_gradient("reference"))(inputs)

    def half_square(u):
        return (selective_scan(**inputs | {"u": u}, implementation="reference") ** 2).sum() / 2

    value, expected = jax.jit(jax.value_and_grad(half_square))(inputs["u"])
    assert value == pytest.approx(float((y**2).sum()) / 2, rel=1e-5)
    assert relative_error(gradients["u"], expected) < SCAN_FP32


def test_the_mixer_scans_as_many_channels_and_states():
    mixer, hidden = jax.eval_shape(lambda: runs.draw_mixer(SHAPE, "float32"))
    assert hidden.shape == (2, 1, 6, 4)
    scanned = []

    def scan(u, delta, A, *arrays, **options):
        scanned.append((u.shape[-1], A.shape[-2:]))
        return u

    mixer.scan = scan
    jax.eval_shape(lambda mixer, hidden: mixer(hidden), mixer, hidden)
    assert scanned == [(8, (8, 4))] * 2  # one in each direction
