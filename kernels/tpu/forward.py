"""The forward kernel of the selective scan for TPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from caduceus_jax.kernels.scan_inputs import ScanInputs
from caduceus_jax.kernels.tpu.plan import Plan
from caduceus_jax.kernels.tpu.program import KernelCall, TokenLoop, prepared, sigmoid
from caduceus_jax.kernels.tpu.sums import Sums, sums_of


def forward(
    plan: Plan, inputs: ScanInputs, keep: bool
) -> tuple[tuple[jax.Array, jax.Array], jax.Array | None]:
    """Returns (y, final state), and the states that enter the chunks if they are to be kept."""
    writes = ("y", "final_state", "initial_states")[: 3 if keep else 2]
    found = KernelCall(plan, inputs, backwards=False)(
        _forward,
        ("u", "delta", "a", "b", "c", "d_skip", "z", "delta_bias", "initial_state", "keeps"),
        writes,
        prepared(plan, inputs.a.shape[1]) | sums_of(plan, "sums"),
    )
    return (found["y"], found["final_state"]), found.get("initial_states")


def _forward(plan: Plan, refs: dict[str, Any]) -> None:
    """Computes y of a chunk. The final state's block is the state from one chunk to the next."""
    loop = TokenLoop(plan, refs, backwards=False)

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        first = refs["initial_state"][...] if "initial_state" in refs else 0.0
        refs["final_state"][...] = jnp.broadcast_to(first, refs["final_state"].shape)

    if "initial_states" in refs:
        refs["initial_states"][...] = refs["final_state"][...]

    def body(i, h) -> jax.Array:
        """Walks over one round of tokens and writes its outputs."""
        sums = Sums(loop, "sums", i)

        def token(j, h) -> jax.Array:
            h, _ = loop.advance(i, j, h)
            sums.put(j, h * loop.column("c", i, j))
            return h

        h = loop.tokens(token, h)
        loop.store("y", i, _gated(loop, i, sums.take()))
        return h

    refs["final_state"][...] = loop.prepared_rounds(body, refs["final_state"][...])


def _gated(loop: TokenLoop, i, y: jax.Array) -> jax.Array:
    """Applies skip and gate to y."""
    if "d_skip" in loop.refs:
        y = y + loop.refs["d_skip"][...] * loop.load("u", i)
    if "z" in loop.refs:
        z = loop.load("z", i)
        y = y * (z * sigmoid(z, loop.plan.interpret))
    return y
