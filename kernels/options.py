"""The implementations of the two operations, by name, and the options of each.

This is the one place that maps a name to an implementation. It imports none of them: an options
object names its module, which is imported when it is used.
"""

import dataclasses
import importlib
import numbers
from types import ModuleType
from typing import Any, ClassVar, Literal, TypeAlias

import jax
import jax.core

Inner = Literal["sequential", "associative"]
Name = Literal["reference", "chunked", "pallas_triton", "triton", "mosaic_tpu"]


@dataclasses.dataclass(frozen=True)
class Reference:
    """Options of `implementation="reference"`, of which there are none."""

    module: ClassVar[str] = "reference"
    convolution: ClassVar[str | None] = None
    platforms: ClassVar[tuple[str, ...]] = ("cpu", "gpu", "tpu")

    def for_platform(self, platform: str) -> "Reference":
        """Returns the options with every default that depends on the platform filled in."""
        return self


@dataclasses.dataclass(frozen=True)
class Chunked:
    """Options of `implementation="chunked"`.

    Args:
        chunk_length: tokens per chunk; None takes what measured fastest for the platform.
        inner: form of the recurrence inside a chunk; None is "sequential" on CPU and
            "associative" elsewhere.

    Raises:
        ValueError: `chunk_length` is not a positive integer, or `inner` is neither form.
    """

    module: ClassVar[str] = "chunked"
    convolution: ClassVar[str | None] = None
    platforms: ClassVar[tuple[str, ...]] = ("cpu", "gpu", "tpu")

    chunk_length: int | None = None
    inner: Inner | None = None

    def __post_init__(self) -> None:
        _check_multiple("chunk_length", self.chunk_length, 1)
        if self.inner not in (None, "sequential", "associative"):
            raise ValueError(f"inner is {self.inner!r}; it is 'sequential', 'associative' or None")

    def for_platform(self, platform: str) -> "Chunked":
        """Returns the options with every default that depends on the platform filled in."""
        inner = self.inner or ("sequential" if platform == "cpu" else "associative")
        # On TPUs by what the compiler estimates (python -m caduceus_jax.kernels.ahead_of_time.tpu).
        chunk = 32 if inner == "sequential" else 256 if platform == "tpu" else 128
        return Chunked(self.chunk_length or chunk, inner)


@dataclasses.dataclass(frozen=True)
class PallasTriton:
    """Options of `implementation="pallas_triton"`: NVIDIA GPUs, and interpreted anywhere for tests.

    The scan only: the convolution beside it is XLA's.

    Args:
        chunk_length: tokens per chunk, a multiple of 4; None chooses so that the device is busy.
        interpret: run on the backend at hand instead of compiling for a GPU; None does so on CPU.

    Raises:
        ValueError: `chunk_length` is not a multiple of 4.
    """

    module: ClassVar[str] = "gpu.pallas_scan"
    convolution: ClassVar[str | None] = None
    platforms: ClassVar[tuple[str, ...]] = ("gpu",)

    chunk_length: int | None = None
    interpret: bool | None = None

    def __post_init__(self) -> None:
        _check_multiple("chunk_length", self.chunk_length, 4)

    def for_platform(self, platform: str) -> "PallasTriton":
        """Returns the options with every default that depends on the platform filled in."""
        return dataclasses.replace(self, interpret=_interpret(self.interpret, platform))


@dataclasses.dataclass(frozen=True)
class Triton:
    """Options of `implementation="triton"`: NVIDIA GPUs, through jax-triton.

    Args:
        chunk_length: tokens per chunk, a multiple of 4; None chooses so that the device is busy.
        interpret: run in Triton's interpreter, which is for tests, instead of compiling for a GPU;
            None does so on CPU. It needs torch, and TRITON_INTERPRET=1 in the environment.

    Raises:
        ValueError: `chunk_length` is not a multiple of 4.
    """

    module: ClassVar[str] = "gpu.triton_scan"
    convolution: ClassVar[str | None] = "gpu.triton_conv"
    platforms: ClassVar[tuple[str, ...]] = ("gpu",)

    chunk_length: int | None = None
    interpret: bool | None = None

    def __post_init__(self) -> None:
        _check_multiple("chunk_length", self.chunk_length, 4)

    def for_platform(self, platform: str) -> "Triton":
        """Returns the options with every default that depends on the platform filled in."""
        return dataclasses.replace(self, interpret=_interpret(self.interpret, platform))


@dataclasses.dataclass(frozen=True)
class MosaicTPU:
    """Options of `implementation="mosaic_tpu"`: TPUs, and interpreted anywhere for tests.

    Args:
        block: channels per program, a multiple of 128; None takes the largest of 512,
            384, 256 and 128 that divides the channels.
        chunk_length: tokens per chunk, a multiple of 128; None takes 256, or 128 for sequences
            of up to 128 tokens.
        interpret: True runs on the backend at hand instead of compiling for a TPU, None does so on
            CPU; or `pltpu.InterpretParams`, which acts out a TPU memory by memory.

    Raises:
        ValueError: `block` or `chunk_length` is not a multiple of 128.
    """

    module: ClassVar[str] = "tpu.scan"
    convolution: ClassVar[str | None] = "tpu.conv"
    platforms: ClassVar[tuple[str, ...]] = ("tpu",)

    block: int | None = None
    chunk_length: int | None = None
    interpret: Any = None

    def __post_init__(self) -> None:
        _check_multiple("block", self.block, 128)
        _check_multiple("chunk_length", self.chunk_length, 128)

    def for_platform(self, platform: str) -> "MosaicTPU":
        """Returns the options with every default that depends on the platform filled in."""
        return dataclasses.replace(self, interpret=_interpret(self.interpret, platform))


Options: TypeAlias = Reference | Chunked | PallasTriton | Triton | MosaicTPU
Implementation: TypeAlias = Name | Options | None

BY_NAME: dict[str, type[Options]] = {
    "reference": Reference,
    "chunked": Chunked,
    "pallas_triton": PallasTriton,
    "triton": Triton,
    "mosaic_tpu": MosaicTPU,
}


def resolve(implementation: object, array: object = None) -> Options:
    """Returns the options object that `implementation=` stands for, as the caller gave it.

    Args:
        implementation: a name, an options object, or None for the fastest implementation that is
            known to be right here (`default`).
        array: an input of the call. Where it has a value already, its device decides what None
            stands for.

    Raises:
        ValueError: the argument is neither a known name, nor an options object, nor None.
    """
    if implementation is None:
        return load("default").options_for(_platform_of(array))
    if isinstance(implementation, str):
        if implementation not in BY_NAME:
            raise ValueError(
                f"implementation {implementation!r} is not one of: {', '.join(BY_NAME)}"
            )
        return BY_NAME[implementation]()
    if not isinstance(implementation, Options):
        raise ValueError(
            f"implementation is {implementation!r}; it is a name, an options object or None"
        )
    return implementation


def for_platform(implementation: object, platform: str) -> Options:
    """Returns the options for a program that is compiled for `platform`, whatever is at hand.

    Args:
        implementation: a name, an options object, or None for the platform's default.
        platform: "cpu", "gpu" or "tpu".

    Raises:
        ValueError: the implementation is unknown.
        NotImplementedError: its kernels are for other platforms.
    """
    if implementation is None:
        return load("default").options_for(platform).for_platform(platform)
    options = resolve(implementation)
    # On a CPU every kernel is interpreted.
    if platform not in (*options.platforms, "cpu"):
        raise NotImplementedError(
            f"{name_of(options)} on {platform}; supported: {', '.join(options.platforms)}"
        )
    return options.for_platform(platform)


def load(module: str) -> ModuleType:
    """Imports a module of this package when it is used: the kernels bring Pallas and Triton."""
    return importlib.import_module(f"{__package__}.{module}")


def name_of(options: Options) -> str:
    """Returns the name of an implementation, by its options."""
    return next(name for name, kind in BY_NAME.items() if type(options) is kind)


def default_platform() -> str:
    """Returns the platform that a call is compiled for: "cpu", "gpu" or "tpu".

    That is the platform of `jax.default_device` where one is set, and JAX's first otherwise.
    """
    device: Any = getattr(jax.config, "jax_default_device")  # noqa: B009
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def _platform_of(array: object) -> str:
    if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer):
        return next(iter(array.devices())).platform
    return default_platform()


def _interpret(interpret: Any, platform: str) -> Any:
    return platform == "cpu" if interpret is None else interpret


def _check_multiple(name: str, value: Any, unit: int) -> None:
    """Refuses a size that is neither None nor a positive multiple of `unit`."""
    if value is None:
        return
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1 or value % unit:
        kind = "a positive integer" if unit == 1 else f"a positive multiple of {unit}"
        raise ValueError(f"{name} is {value!r}; it must be {kind}")
