"""Resolves `implementation=None`: to the fastest implementation known to be right here.

On a CPU that is "chunked". On a GPU or a TPU it is the first of the fused implementations that
passes `self_check`, once per process; the verdict is kept on disk for the same device and the same
software. Where none passes it is "chunked", and a warning is logged.

The check compiles and runs programs of its own, in a thread of its own, where nothing is being
traced: so it makes no difference whether the first call is inside `jax.jit`, `jax.grad`,
`jax.vmap`, `jax.shard_map`, `jax.checkpoint` or `jax.eval_shape`.
"""

import concurrent.futures
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from caduceus_jax.kernels import self_check
from caduceus_jax.kernels.options import (
    Chunked,
    MosaicTPU,
    Options,
    PallasTriton,
    Triton,
    default_platform,
    name_of,
)

# By platform, the fastest first.
CANDIDATES: dict[str, tuple[Options, ...]] = {
    "gpu": (Triton(), PallasTriton()),
    "tpu": (MosaicTPU(),),
}
_SOFTWARE = ("jax", "jaxlib", "jax-triton", "triton", "jax-cuda12-plugin", "jax-cuda13-plugin")
_ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "TRITON_INTERPRET")

log = logging.getLogger(__name__)
_lock = threading.Lock()
_choices: dict[str, "Choice"] = {}
_agreed = threading.Event()


class Choice(NamedTuple):
    """An implementation, and why it is the default."""

    options: Options
    why: str
    failures: tuple[str, ...] = ()  # of those that come before it, a sentence each

    @property
    def name(self) -> str:
        """The name of the implementation."""
        return name_of(self.options)


def choose(platform: str | None = None) -> Choice:
    """Returns the default implementation; the first call on a GPU or a TPU may take a minute.

    Args:
        platform: "cpu", "gpu" or "tpu"; by default that of `jax.default_device` or, where none is
            set, JAX's first.
    """
    platform = platform or default_platform()
    if platform not in CANDIDATES:
        return Choice(Chunked(), "fused kernels are for GPUs and TPUs")
    with _lock:
        if platform not in _choices:
            _choices[platform] = _remembered(platform) or _checked(platform)
    return _choices[platform]


def name(platform: str | None = None) -> str:
    """Returns the name of the default implementation.

    Several processes that share a computation compare it when they start, and then call `agree`:
    programs of different implementations do not fit together.

    Args:
        platform: "cpu", "gpu" or "tpu"; by default the one that a call is compiled for.
    """
    return choose(platform).name


def agree() -> None:
    """Lets the default be used where it is not the first choice and there are several processes.

    They have compared `name()` beforehand.
    """
    _agreed.set()


def options_for(platform: str) -> Options:
    """Returns the options of the default implementation of a platform.

    Where the platform is not at hand nothing can be checked: it is what a run there would take if
    it passed.

    Args:
        platform: "cpu", "gpu" or "tpu".

    Raises:
        RuntimeError: there are several processes, and this one may not choose as the others do.
    """
    if platform != default_platform():
        there = [x for x in CANDIDATES.get(platform, ()) if all(map(_installed, _needs(x)))]
        return there[0] if there else Chunked()
    choice = choose(platform)
    if choice.failures and jax.process_count() > 1 and not _agreed.is_set():
        raise RuntimeError(
            f"process {jax.process_index()} of {jax.process_count()} would compute the scan as "
            f"{choice.name!r}, and the others perhaps otherwise ({'; '.join(choice.failures)}): "
            "pass implementation=, the same in every process"
        )
    return choice.options


def _checked(platform: str) -> Choice:
    """Returns the first candidate that passes the check, or "chunked"."""
    failures = []
    for options in CANDIDATES[platform]:
        begun = time.monotonic()
        try:
            _outside_of_traces(functools.partial(_check, options, platform))
        except Exception as error:  # it is not installed, or does not compile, or is wrong
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            failures.append(f"{name_of(options)}: {reason}")
            continue
        why = f"its results and gradients were checked here in {time.monotonic() - begun:.0f} s"
        choice = Choice(options, why, tuple(failures))
        for failure in failures:
            log.info("not the default: %s", failure)
        _remember(platform, choice)
        return choice
    log.warning(
        "the selective scan runs without fused kernels, a model 10 to 30 times slower than with "
        "them: %s",
        "; ".join(failures),
    )
    return Choice(Chunked(), "no fused implementation passed its check", tuple(failures))


def _check(options: Options, platform: str) -> None:
    with jax.default_device(jax.local_devices(backend=platform)[0]):
        self_check.check(options)


def _outside_of_traces(function: Callable[[], None]) -> None:
    """Calls a function in a new thread: what JAX traces, it traces for each thread by itself."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(function).result()


def _remembered(platform: str) -> Choice | None:
    """Returns an earlier process's choice with the same device and software, or None."""
    try:
        found = json.loads(_verdict_file(platform).read_text())
        options = next(x for x in CANDIDATES[platform] if name_of(x) == found["implementation"])
        return Choice(options, f"{found['why']} on {found['day']}", tuple(found["failures"]))
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def _remember(platform: str, choice: Choice) -> None:
    verdict = {
        "implementation": choice.name,
        "why": choice.why,
        "day": time.strftime("%Y-%m-%d"),
        "failures": choice.failures,
        "machine": _machine(platform),
    }
    path = _verdict_file(platform)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(verdict, indent=1))
        part.replace(path)
    except OSError as error:  # the next process checks again
        log.debug("the choice of the scan is not kept: %s", error)


def _verdict_file(platform: str) -> pathlib.Path:
    """Returns where the choice is kept: one file for each device and software."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    digest = hashlib.sha256(json.dumps(_machine(platform), sort_keys=True).encode()).hexdigest()
    return pathlib.Path(cache, "caduceus-jax/default-scan", f"{digest[:16]}.json")


def _needs(options: Options) -> tuple[str, ...]:
    """Returns the packages without which an implementation cannot be compiled."""
    return ("triton", "jax_triton") if isinstance(options, Triton) else ()


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _machine(platform: str) -> dict[str, str]:
    """Returns everything that a verdict depends on."""
    device = jax.local_devices(backend=platform)[0]
    known = {"device": device.device_kind, "runtime": str(device.client.platform_version)}
    known |= {name: os.environ.get(name, "") for name in _ENVIRONMENT}
    for package in _SOFTWARE:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            known[package] = ""
    driver = pathlib.Path("/proc/driver/nvidia/version")
    known["driver"] = driver.read_text() if driver.is_file() else ""
    sources = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    return known | {"kernels": sources.hexdigest()}
