"""Calls Triton kernels from JAX: compiled through jax-triton, or in Triton's interpreter.

Triton, jax-triton and torch are imported where a kernel runs, and nowhere before.
"""

import importlib
import inspect
import threading
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_rules

from caduceus_jax.kernels.gpu.target import compute_capability
from caduceus_jax.kernels.meshes import vary_over, varying_axes

# Triton's interpreter keeps the program it is at in a global variable.
_INTERPRETER = threading.Lock()
# PTX that the assemblers of every CUDA read for which JAX has a plugin: 12.6 and later, and 12.9
# and later for Blackwell. Left to itself Triton 3.9 writes 9.4, which takes CUDA 13.4.
_BLACKWELL = 100
_PTX_VERSION, _PTX_VERSION_OF_BLACKWELL = 85, 88


@runtime_checkable
class Program(Protocol):
    """Holds what a kernel is compiled for. Kernels read its fields, and others, as constants."""

    @property
    def programs(self) -> int:
        """Programs of the grid."""
        ...

    @property
    def warps(self) -> int:
        """Warps of a program."""
        ...

    @property
    def interpret(self) -> bool:
        """Tells whether kernels run in Triton's interpreter."""
        ...


def call(
    module: str,
    name: str,
    program: Program,
    reads: Mapping[str, jax.Array],
    writes: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, jax.Array]:
    """Runs a kernel and returns the arrays that it writes, by name.

    A kernel has a pointer for every array: those that are neither read nor written here point to
    a single number, which no program touches.

    Args:
        module: path of the kernel's module below `caduceus_jax.kernels`; its WRITES name, for each
            kernel, the arguments that it writes, which come last.
        name: the name of the kernel.
        program: the program to compile it for.
        reads: arrays by the names of the kernel's arguments.
        writes: shapes and dtypes by the names of the kernel's arguments.

    Raises:
        ValueError: Triton, or what it needs, is not installed, or is set up for the other way.
    """
    kernels = _load(module, name, program.interpret)
    kernel, every_write = getattr(kernels, name), kernels.WRITES[name]
    nothing = jax.ShapeDtypeStruct((1,), jnp.float32)
    shapes = [writes.get(n, nothing) for n in every_write]

    # So that compiled programs and profiles name it.
    with jax.named_scope(name):
        absent = jnp.zeros(nothing.shape, nothing.dtype)
        arguments = [reads.get(n, absent) for n in kernel.arg_names[: -1 - len(every_write)]]
        run = _interpreted if program.interpret else _compiled
        found = run(kernel, program, arguments, shapes)
    # jax-triton's results vary over no mesh axes by their types.
    axes = frozenset().union(*map(varying_axes, reads.values()))
    found = [vary_over(x, axes) for x in found]
    return {n: x for n, x in zip(every_write, found, strict=True) if n in writes}


def _load(module: str, name: str, interpret: bool) -> Any:
    """Loads the module of kernels, to be interpreted or compiled.

    Raises:
        ValueError: Triton, or what it needs, is not installed, or is set up for the other way.
    """
    try:
        import triton  # pyright: ignore[reportMissingImports]

        kernels = importlib.import_module(f"caduceus_jax.kernels.{module}")
        if interpret:
            import torch  # noqa: F401 # pyright: ignore[reportMissingImports]
        else:
            from jax_triton import triton_lib  # pyright: ignore[reportMissingImports]

            # jax-triton 0.4.1 keeps calls whose results nobody uses, by a rule that takes two
            # arguments where JAX 0.12.0.1 passes three. JAX's own rule suits kernels that write
            # nothing else.
            dce_rules.pop(triton_lib.triton_kernel_call_p, None)
    except ImportError as error:
        needs = (
            "interpreted, implementation='triton' needs triton and torch: pip install triton torch"
            if interpret
            else "implementation='triton' needs jax-triton and JAX's CUDA plugin: "
            "pip install caduceus-jax[gpu]"
        )
        raise ValueError(f"{needs} ({error})") from error
    interpreted = not isinstance(getattr(kernels, name), triton.JITFunction)
    if interpret and not interpreted:
        raise ValueError(
            "without a GPU implementation='triton' is interpreted: set TRITON_INTERPRET=1 in the "
            "environment before Python starts"
        )
    if interpreted and not interpret:
        raise ValueError(
            "TRITON_INTERPRET is set in the environment: unset it to compile Triton's kernels"
        )
    return kernels


def _compiled(kernel: Any, program: Program, arguments, shapes) -> Any:
    """Runs a kernel on the GPU."""
    import jax_triton  # pyright: ignore[reportMissingImports]

    from caduceus_jax.kernels.gpu.triton_math import Constants

    capability = compute_capability()
    # jax-triton 0.4 renamed what describes the results, and hands options on to the compiler.
    if "backend_options" in inspect.signature(jax_triton.triton_call).parameters:
        ptx = _PTX_VERSION if capability < _BLACKWELL else _PTX_VERSION_OF_BLACKWELL
        options = {"enable_fp_fusion": True, "ptx_version": ptx}
        how = {"out_type": shapes, "backend_options": options}
    else:
        how = {"out_shape": shapes, "enable_fp_fusion": True}
    return jax_triton.triton_call(
        *arguments,
        kernel=kernel,
        grid=(program.programs,),
        num_warps=program.warps,
        num_stages=1,
        compute_capability=capability,
        p=Constants(program),
        **how,
    )


def _interpreted(kernel: Any, program: Program, arguments, shapes) -> Any:
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
            kernel[(program.programs,)](*map(to_torch, arguments), *written, p=program)
        return [to_numpy(x, s.dtype) for x, s in zip(written, shapes, strict=True)]

    return jax.pure_callback(run, shapes, *arguments)
