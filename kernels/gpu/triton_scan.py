"""The kernels of `chunk_parallel` in Triton: compiled for NVIDIA GPUs, or interpreted on a CPU."""

import dataclasses
import sys
from typing import Any, NamedTuple

import jax

from caduceus_jax.kernels.gpu import chunk_parallel, layout, polynomials, ptx, triton_call
from caduceus_jax.kernels.gpu.chunk_parallel import Gradients, Plan
from caduceus_jax.kernels.gpu.layout import KEPT_EVERY, STATES_A_WARP, ChunkLayout
from caduceus_jax.kernels.options import Triton
from caduceus_jax.kernels.scan_inputs import ScanInputs


class Tile(NamedTuple):
    """What fits in the registers of a warp; with 16 states nothing is spilled."""

    elements: int  # states of all channels that a warp has
    unroll: int  # tokens of a round of its loop
    exp2_share: int = 0  # one of so many decays is computed by a polynomial; 0: none


TILES = {
    "summaries": Tile(2048, 4, 4),
    "outputs": Tile(2048, 4, 8),
    "adjoints": Tile(1024, KEPT_EVERY),
    "gradients": Tile(512, KEPT_EVERY),
}


@dataclasses.dataclass(frozen=True)
class Program(ChunkLayout):
    """Holds what a kernel is compiled for."""

    warps: int
    unroll: int
    exp2_share: int
    exp2: tuple[float, ...]  # coefficients
    log1p: tuple[float, ...]
    delta_softplus: bool
    reverse: bool
    interpret: bool
    has_d_skip: bool
    has_z: bool
    has_delta_bias: bool
    has_ungated: bool
    has_restart: bool

    @property
    def programs(self) -> int:
        """Programs of the grid."""
        return self.batch * self.chunks * self.blocks

    @property
    def mixed_exp2(self) -> str:
        """Returns the PTX of a few powers of two."""
        return ptx.mixed_exp2(self.exp2_share, self.exp2)[0]

    @property
    def mixed_exp2_constraints(self) -> str:
        """Returns the constraints of that PTX."""
        return ptx.mixed_exp2(self.exp2_share, self.exp2)[1]


def scan(
    inputs: ScanInputs, options: Triton, *, delta_softplus: bool, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs `chunk_parallel.scan` with the kernels of this module."""
    lowering: Any = sys.modules[__name__]
    return chunk_parallel.scan(
        inputs, options, lowering, delta_softplus=delta_softplus, reverse=reverse
    )


def summaries(plan: Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
    """Implements `chunk_parallel.Lowering.summaries`."""
    found = _run("summaries", plan, inputs, ("states", "steps"))
    return found["states"], found["steps"]


def outputs(
    plan: Plan, inputs: ScanInputs, initial_states: jax.Array, keep_ungated: bool
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Implements `chunk_parallel.Lowering.outputs`."""
    keep = keep_ungated and inputs.z is not None
    writes = ("y", "states", "ungated") if keep else ("y", "states")
    found = _run("outputs", plan, inputs, writes, initial_states=initial_states)
    return found["y"], found["states"], found.get("ungated")


def adjoints(
    plan: Plan, inputs: ScanInputs, initial_states: jax.Array, grad_y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Implements `chunk_parallel.Lowering.adjoints`."""
    extra = {"initial_states": initial_states, "grad_y": grad_y}
    found = _run("adjoints", plan, inputs, ("checkpointed_states", "states"), **extra)
    return found["checkpointed_states"], found["states"]


def gradients(
    plan: Plan,
    inputs: ScanInputs,
    checkpointed_states: jax.Array,
    ungated: jax.Array | None,
    grad_y: jax.Array,
    adjoint: jax.Array,
) -> Gradients:
    """Implements `chunk_parallel.Lowering.gradients`."""
    absent = {name for name in ("z", "d_skip", "delta_bias") if getattr(inputs, name) is None}
    names = [name for name in Gradients._fields if name not in absent]
    extra = {
        "checkpointed_states": checkpointed_states,
        "ungated": ungated,
        "grad_y": grad_y,
        "adjoint": adjoint,
    }
    found = _run("gradients", plan, inputs, tuple(f"grad_{name}" for name in names), **extra)
    every: dict[str, Any] = {name: found.get(f"grad_{name}") for name in Gradients._fields}
    return Gradients(**every)


def _run(
    name: str, plan: Plan, inputs: ScanInputs, writes: tuple[str, ...], **extra: jax.Array | None
) -> dict[str, jax.Array]:
    """Runs a kernel and returns what it writes, by name."""
    program = program_of(name, plan, inputs, "ungated" in writes)
    return triton_call.call(
        "gpu.triton_kernels",
        f"selective_scan_{name}",
        program,
        layout.arrays(inputs, **extra),
        {n: jax.ShapeDtypeStruct(program.shape(n), layout.dtype(n, inputs)) for n in writes},
    )


def program_of(name: str, plan: Plan, inputs: ScanInputs, keep_ungated: bool) -> Program:
    """Returns what a kernel is compiled for."""
    tile, bits = TILES[name], 8 * inputs.u.dtype.itemsize
    warps = max(1, inputs.a.shape[-1] // STATES_A_WARP)
    return Program(
        **vars(layout.layout(inputs, plan.chunk, warps * tile.elements)),
        warps=warps,
        unroll=tile.unroll,
        exp2_share=tile.exp2_share if ptx.mixing_pays() else 0,
        exp2=polynomials.exp2(bits),
        log1p=polynomials.log1p(bits),
        delta_softplus=plan.delta_softplus,
        reverse=plan.reverse,
        interpret=plan.interpret,
        has_d_skip=inputs.d_skip is not None,
        has_z=inputs.z is not None,
        has_delta_bias=inputs.delta_bias is not None,
        has_ungated=keep_ungated,
        has_restart=inputs.restart is not None,
    )
