"""Arithmetic written as XLA's CPU backend computes it fastest.

Sums are matrix products: the backend loses an order of magnitude on reductions of some shapes, and
never on products; accelerators like either. The gradient of a weight is computed as it lies in
memory. Exponentials and softplus in float32 are polynomials on a CPU, where XLA's own are slower:
docs/kernels.md.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from caduceus_jax.kernels.derivatives import differentiable, with_tangents
from caduceus_jax.kernels.gpu import polynomials
from caduceus_jax.kernels.meshes import vary_alike
from caduceus_jax.kernels.options import default_platform

_LOG2_E = math.log2(math.e)
# Adding it leaves a whole number n, |n| <= 128, in the low bits as n + 127: the exponent of 2^n.
_EXPONENT = 1.5 * 2**23 + 127


def sum_leading(x: jax.Array, keep: int) -> jax.Array:
    """Sums over all axes but the last `keep`."""
    rest = x.shape[x.ndim - keep :]
    flat = x.reshape(-1, math.prod(rest))
    return jnp.dot(jnp.ones(flat.shape[0], x.dtype), flat, precision="highest").reshape(rest)


def sum_length(x: jax.Array) -> jax.Array:
    """Sums over the length: (rows, length, channels) -> (rows, channels)."""
    ones = jnp.ones(x.shape[:2], x.dtype)
    return jnp.einsum("rlc,rl->rc", x, ones, precision="highest")


def sum_states(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Sums over states: (t, rows, state, channels), (t, rows, state) -> (t, rows, channels)."""
    return jnp.einsum("trnd,trn->trd", x, weight, precision="highest")


def sum_channels(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Sums over channels: (t, rows, state, channels), (t, rows, channels) -> (t, rows, state)."""
    return jnp.einsum("trnd,trd->trn", x, weight, precision="highest")


def linear(
    x: Float[Array, "*tokens inputs"],
    weight: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"] | None = None,
) -> Float[Array, "*tokens outputs"]:
    """Computes x @ weight + bias in the dtype of x.

    JAX computes the gradient of a weight as (outputs, inputs) and transposes it. XLA's CPU backend
    then transposes the gradient of the result instead, which is larger by the number of tokens and
    takes as long as the product. Here it is (inputs, outputs) from the beginning.
    """
    y = _product(None, vary_alike(_Factors(x, weight.astype(x.dtype))))
    return y if bias is None else y + jnp.broadcast_to(bias.astype(x.dtype), y.shape)


class _Factors(NamedTuple):
    x: jax.Array
    weight: jax.Array


def _multiplied(plan: None, factors: _Factors, keep: bool) -> tuple[jax.Array, None]:
    return factors.x @ factors.weight, None


def _gradients_of_factors(
    plan: None, factors: _Factors, residuals: None, grad: jax.Array
) -> _Factors:
    x, weight = factors
    tokens = tuple(range(x.ndim - 1))
    return _Factors(grad @ weight.T, lax.dot_general(x, grad, ((tokens, tokens), ((), ()))))


_product = differentiable(_multiplied, _gradients_of_factors)


def exp(x: jax.Array) -> jax.Array:
    """Computes e^x, on a CPU in float32 as 2^n times a polynomial in the rest of x log2(e).

    The relative error is at most 1e-7 + 7e-8 |x|: of decays, which are at most 1, the absolute
    error is that of `jnp.exp`. What is smaller than 2^-126 is 0, and e^x is inf from x = 88.4.
    JAX differentiates it as it stands.
    """
    return _exp2(x * jnp.float32(_LOG2_E)) if _is_for_cpu(x) else jnp.exp(x)


def exp_of_product(x: jax.Array, weight: jax.Array, plus: jax.Array | None = None) -> jax.Array:
    """Computes e^(x weight + plus) as `exp` does, with one product fewer where weight is constant.

    Args:
        x: any shape.
        weight: broadcasts with x; in a loop that does not change it, it is scaled once.
        plus: broadcasts with both; by default 0.
    """
    power, scale = (_exp2, jnp.float32(_LOG2_E)) if _is_for_cpu(x) else (jnp.exp, 1)
    exponent = x * (weight * scale)
    return power(exponent if plus is None else exponent + plus * scale)


def _exp2(x: jax.Array) -> jax.Array:
    # As `jnp.clip`, which spends instructions on NaN: that passes here by itself.
    x = jnp.where(x < -127, -127, x)
    x = jnp.where(x > 128, 128, x)
    whole = lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)
    bits = lax.bitcast_convert_type(whole + jnp.float32(_EXPONENT), jnp.int32)
    scale = lax.shift_left(bits, jnp.int32(23))
    power = _polynomial(x - whole, (1.0, *polynomials.exp2_on_cpu()))
    return power * lax.bitcast_convert_type(scale, jnp.float32)


def softplus(x: jax.Array) -> jax.Array:
    """Computes log(1 + e^x).

    On a CPU in float32 the absolute error is at most 1.5e-7, and relative where the result is
    above 1.
    """
    if not _is_for_cpu(x):
        return jax.nn.softplus(x)
    return with_tangents(_softplus, _softplus_tangents, x)


def _softplus(x: jax.Array) -> jax.Array:
    small = exp(-jnp.abs(x))
    return jnp.maximum(x, 0) + small * _polynomial(small, polynomials.log1p(32))


def _softplus_tangents(primals, tangents) -> tuple[jax.Array, jax.Array]:
    (x,), (moved,) = primals, tangents
    return softplus(x), jax.nn.sigmoid(x) * moved


def _polynomial(x: jax.Array, coefficients: tuple[float, ...]) -> jax.Array:
    """Evaluates a polynomial, coefficients of the lowest power first (Horner)."""
    *rest, value = coefficients
    total = jnp.full_like(x, value)
    for coefficient in reversed(rest):
        total = total * x + jnp.float32(coefficient)
    return total


def _is_for_cpu(x: jax.Array) -> bool:
    return x.dtype == jnp.float32 and default_platform() == "cpu"
