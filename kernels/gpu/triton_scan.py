"""`chunk_parallel` lowered through jax-triton: compiled for NVIDIA GPUs, or interpreted on a CPU.

Imported only where `implementation="triton"` is asked for; Triton itself, where a kernel runs.
"""

import dataclasses
import sys
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels.gpu import chunk_parallel, layout, polynomials, ptx
from caduceus_jax.kernels.gpu.chunk_parallel import Gradients, Plan
from caduceus_jax.kernels.gpu.layout import KEPT_EVERY, STATES_A_WARP, ChunkLayout
from caduceus_jax.kernels.options import Triton
from caduceus_jax.kernels.scan_inputs import ScanInputs

# Hopper: what is compiled for where there is no GPU to ask.
_COMPUTE_CAPABILITY = 90
# Triton's interpreter keeps the program it is at in a global variable.
_INTERPRETER = threading.Lock()


class Tile(NamedTuple):
    """What fits in the registers of a warp; with 16 states nothing is spilled."""

    elements: int  # states of all channels that a warp has
    unroll: int  # tokens of a round of its loop
    exp2_share: int = 0  # of so many decays one is computed by a polynomial; 0: none


TILES = {
    "summaries": Tile(2048, 4, 4),
    "outputs": Tile(2048, 4, 8),
    "adjoints": Tile(1024, KEPT_EVERY),
    "gradients": Tile(512, KEPT_EVERY),
}


@dataclasses.dataclass(frozen=True)
class Program(ChunkLayout):
    """What a kernel is compiled for."""

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

    @property
    def mixed_exp2(self) -> str:
        """PTX of a few powers of two."""
        return ptx.mixed_exp2(self.exp2_share, self.exp2)[0]

    @property
    def mixed_exp2_constraints(self) -> str:
        """Of that PTX."""
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
    """See `chunk_parallel.Lowering`."""
    found = _run("summaries", plan, inputs, ("states", "steps"))
    return found["states"], found["steps"]


def outputs(
    plan: Plan, inputs: ScanInputs, initial_states: jax.Array, keep_ungated: bool
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """See `chunk_parallel.Lowering`."""
    keep = keep_ungated and inputs.z is not None
    writes = ("y", "states", "ungated") if keep else ("y", "states")
    found = _run("outputs", plan, inputs, writes, initial_states=initial_states)
    return found["y"], found["states"], found.get("ungated")


def adjoints(
    plan: Plan, inputs: ScanInputs, initial_states: jax.Array, grad_y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """See `chunk_parallel.Lowering`."""
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
    """See `chunk_parallel.Lowering`."""
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
    """What a kernel writes, by name.

    A kernel has a pointer for every array: those that this scan does not have point to one number,
    which no program touches.
    """
    kernels = _kernels(plan.interpret)
    kernel, every_write = getattr(kernels, f"selective_scan_{name}"), kernels.WRITES[name]
    reads = [n for n in kernel.arg_names[:-1] if n not in every_write]
    program = program_of(name, plan, inputs, "ungated" in writes)
    shapes = [
        jax.ShapeDtypeStruct(program.shape(n), layout.dtype(n, inputs))
        if n in writes
        else jax.ShapeDtypeStruct((1,), jnp.float32)
        for n in every_write
    ]
    # What the gate's gradient is made of is read where that gradient is written, and no more.
    shared = {}
    if "grad_z" in writes and inputs.z.dtype == inputs.u.dtype:
        shared = {reads.index("ungated"): every_write.index("grad_z")}

    @jax.custom_batching.sequential_vmap
    def launch(*arguments):
        if plan.interpret:
            return _interpret(kernel, program, arguments, shapes)
        return _compiled(kernel, program, arguments, shapes, shared)

    arrays, nothing = layout.arrays(inputs, **extra), jnp.zeros((1,), jnp.float32)
    # So that compiled programs and profiles name it.
    with jax.named_scope(f"selective_scan_{name}"):
        found = launch(*(arrays.get(n, nothing) for n in reads))
    return {n: x for n, x in zip(every_write, found, strict=True) if n in writes}


def program_of(name: str, plan: Plan, inputs: ScanInputs, keep_ungated: bool) -> Program:
    """What a kernel is compiled for."""
    tile, bits = TILES[name], 8 * inputs.u.dtype.itemsize
    warps = max(1, inputs.a.shape[-1] // STATES_A_WARP)
    return Program(
        **vars(layout.layout(inputs, plan.chunk, warps * tile.elements)),
        warps=warps,
        unroll=tile.unroll,
        exp2_share=tile.exp2_share,
        exp2=polynomials.exp2(bits),
        log1p=polynomials.log1p(bits),
        delta_softplus=plan.delta_softplus,
        reverse=plan.reverse,
        interpret=plan.interpret,
        has_d_skip=inputs.d_skip is not None,
        has_z=inputs.z is not None,
        has_delta_bias=inputs.delta_bias is not None,
        has_ungated=keep_ungated,
    )


def _kernels(interpret: bool) -> Any:
    """The module of kernels, interpreted or to be compiled as is asked for.

    Raises:
        ValueError: Triton, or what it needs, is not there, or is set up for the other way.
    """
    try:
        import triton  # pyright: ignore[reportMissingImports]

        from caduceus_jax.kernels.gpu import triton_kernels

        if interpret:
            import torch  # noqa: F401 # pyright: ignore[reportMissingImports]
        else:
            import jax_triton  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError as error:
        needs = (
            "interpreted, implementation='triton' needs triton and torch: pip install triton torch"
            if interpret
            else "implementation='triton' needs jax-triton and JAX's CUDA plugin: "
            "pip install caduceus-jax[gpu]"
        )
        raise ValueError(f"{needs} ({error})") from error
    interpreted = not isinstance(triton_kernels.selective_scan_outputs, triton.JITFunction)
    if interpret and not interpreted:
        raise ValueError(
            "without a GPU implementation='triton' is interpreted: set TRITON_INTERPRET=1 in the "
            "environment before Python starts"
        )
    if interpreted and not interpret:
        raise ValueError(
            "TRITON_INTERPRET is set in the environment: unset it to compile Triton's kernels"
        )
    return triton_kernels


def _grid(program: Program) -> tuple[int]:
    return (program.batch * program.chunks * program.blocks,)


def _compiled(kernel, program: Program, arguments, shapes, shared: dict[int, int]):
    """Runs a kernel on the GPU; `shared` has inputs in whose place an output is written."""
    import jax_triton  # pyright: ignore[reportMissingImports]

    from caduceus_jax.kernels.gpu import triton_kernels

    return jax_triton.triton_call(
        *arguments,
        kernel=kernel,
        out_shape=shapes,
        grid=_grid(program),
        num_warps=program.warps,
        num_stages=1,
        enable_fp_fusion=True,
        input_output_aliases=shared,
        compute_capability=None if jax.default_backend() == "gpu" else _COMPUTE_CAPABILITY,
        p=triton_kernels.Constants(program),
    )


def _interpret(kernel, program: Program, arguments, shapes):
    """Runs a kernel in Triton's interpreter, on the host."""
    import torch  # pyright: ignore[reportMissingImports]

    def to_torch(x) -> torch.Tensor:
        x = np.array(x)
        if x.dtype == jnp.bfloat16:
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(x)

    def to_numpy(x: torch.Tensor, dtype) -> np.ndarray:
        return x.view(torch.int16).numpy().view(dtype) if dtype == jnp.bfloat16 else x.numpy()

    def run(*arguments):
        # What a kernel fails to write shows.
        written = [to_torch(np.full(s.shape, np.nan, s.dtype)) for s in shapes]
        with _INTERPRETER:
            kernel[_grid(program)](*map(to_torch, arguments), *written, p=program)
        return [to_numpy(x, s.dtype) for x, s in zip(written, shapes, strict=True)]

    return jax.pure_callback(run, shapes, *arguments)
