"""The forward kernel of the selective scan for TPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from caduceus_jax.kernels.scan_inputs import ScanInputs
from caduceus_jax.kernels.tpu.program import Call, Walk, prepared
from caduceus_jax.kernels.tpu.scan import Plan
from caduceus_jax.kernels.tpu.sums import Sums, sums_of


def forward(plan: Plan, inputs: ScanInputs, keep: bool):
    """(y, final state), and the states that enter the chunks where they are to be kept."""
    writes = ("y", "final_state", "entering")[: 3 if keep else 2]
    found = Call(plan, inputs, backwards=False)(
        _forward,
        ("u", "delta", "a", "b", "c", "d_skip", "z", "delta_bias", "initial_state"),
        writes,
        prepared(plan, inputs.a.shape[1]) | sums_of(plan, "sums"),
    )
    return (found["y"], found["final_state"]), found.get("entering")


def _forward(plan: Plan, refs: dict[str, Any]) -> None:
    """y of a chunk. The final state's block is the state from one chunk to the next."""
    walk = Walk(plan, refs, backwards=False)

    @pl.when(pl.program_id(2) == 0)
    def _():
        first = refs["initial_state"][...] if "initial_state" in refs else 0.0
        refs["final_state"][...] = jnp.broadcast_to(first, refs["final_state"].shape)

    if "entering" in refs:
        refs["entering"][...] = refs["final_state"][...]

    def body(i, h):
        sums = Sums(walk, "sums", i)

        def token(j, h):
            h, _ = walk.advance(i, j, h)
            sums.put(j, h * walk.column("c", i, j))
            return h

        h = walk.tokens(token, h)
        walk.store("y", i, _gated(walk, i, sums.take()))
        return h

    refs["final_state"][...] = walk.prepared_rounds(body, refs["final_state"][...])


def _gated(walk: Walk, i, y: jax.Array) -> jax.Array:
    """y with skip and gate."""
    if "d_skip" in walk.refs:
        y = y + walk.refs["d_skip"][...] * walk.load("u", i)
    if "z" in walk.refs:
        z = walk.load("z", i)
        y = y * (z * walk.sigmoid(z))
    return y
