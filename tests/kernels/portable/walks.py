"""A chunk, and the recurrence over it token by token in NumPy."""

import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels.portable.chunk import Chunk


def chunk(time=5, rows=2, state=3, channels=4):
    """Returns a chunk in float32, A, a state, the gradient of what is read out and an adjoint."""
    rng = np.random.default_rng(3)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    u, z = draw(time, rows, channels), draw(time, rows, channels)
    delta = jnp.exp(draw(time, rows, channels) - 1)
    b, c = draw(time, rows, state), draw(time, rows, state)
    a, h = -jnp.exp(draw(1, state, channels)), draw(rows, state, channels)
    x = Chunk(u, delta, delta, b, c, z, None, None)
    return x, a, h, draw(time, rows, channels), draw(rows, state, channels)


def expected(x, a, h, *, reverse):
    """Returns the last state and C_t h_t, in float64."""
    u, delta, b, c, a, h = (np.asarray(x, np.float64) for x in (x.u, x.delta, x.b, x.c, a, h))
    y = np.zeros(u.shape)
    for t in range(len(u))[:: -1 if reverse else 1]:
        drive = b[t][..., None] * (delta[t] * u[t])[:, None]
        h = np.exp(delta[t][:, None] * a) * h + drive
        y[t] = np.einsum("rn,rnd->rd", c[t], h)
    return h, y


def check(module, reverse):
    """Holds both walks of a module against NumPy, and against finite differences of it."""
    x, a, h, grad, adjoint = chunk()
    last, y = module.walk(x, a, h, reverse=reverse)
    for found, value in zip((last, y), expected(x, a, h, reverse=reverse), strict=True):
        assert np.abs(found - value).max() < 1e-5
    back = module.walk_back(x, a, h, grad, adjoint, reverse=reverse)
    assert np.abs(back.y - y).max() < 1e-5

    def loss(**changed):
        h_, a_ = changed.pop("h", h), changed.pop("a", a)
        last, y = expected(x._replace(**changed), a_, h_, reverse=reverse)
        return (last * np.asarray(adjoint)).sum() + (y * np.asarray(grad)).sum()

    rng = np.random.default_rng(5)
    drive_times = {"u": back.drive * x.delta, "delta": back.drive * x.u + back.delta}
    found = drive_times | {"b": back.b, "c": back.c, "a": back.a, "h": back.adjoint}
    for name, gradient in found.items():
        value = np.asarray({"h": h, "a": a}.get(name, getattr(x, name, None)), np.float64)
        step = rng.normal(size=value.shape)
        change = loss(**{name: value + 1e-5 * step}) - loss(**{name: value - 1e-5 * step})
        assert np.abs(change / 2e-5 - (np.asarray(gradient) * step).sum()) < 1e-4, name
