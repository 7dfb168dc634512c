"""Several processes, one run: how they meet, agree, and end together."""

import functools
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax._src import distributed as _runtime  # JAX has no public name for its key-value store
from jax.experimental import multihost_utils

from caduceus_jax.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

# A process that is not heard of for this long is taken for dead, and all others end.
HEARTBEAT_SECONDS = 60
# Processes wait for each other this long: while a pod starts, and while one of them reads data.
START_SECONDS = 300
AGREE_SECONDS = 600

_asked: dict[str, int] = {}  # how often each question has been put


class AgreedError(UserError):
    """What all processes complain of, so that one of them says it."""


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Makes this process one of several, before any device is touched.

    Without arguments the environment decides: a TPU pod, SLURM, Open MPI, or whatever else JAX
    recognises; where it finds nothing, this process is alone, as it is with `processes` 1.

    Args:
        coordinator: host:port of process 0; the others are told by it who there is.
        processes: how many there are.
        process: which one this is, from 0.

    Raises:
        UserError: only some of the three are given, a cluster cannot be joined, or the others did
            not come in time.
    """
    given = coordinator, processes, process
    if _runtime.global_state.client is not None or processes == 1:
        return
    if any(value is not None for value in given) and None in given:
        raise UserError("--coordinator, --processes and --process go together: give all, or none")
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            # Named processes are not looked up: a SLURM job may start several runs.
            cluster_detection_method="deactivate" if coordinator else None,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception as error:  # what detects clusters raises anything
        reason = " ".join(str(error).split())
        # There is no cluster, or this is a session that has used its devices.
        alone = ("coordinator_address should be defined", "must be called before")
        if coordinator is None and any(text in reason for text in alone):
            return
        name = "this process" if process is None else f"process {process}"
        raise UserError(
            f"{name} did not meet the others ({reason}): see that all were started, or use "
            "--processes 1 for one alone"
        ) from None


def count() -> int:
    """Number of processes; asking does not touch a device."""
    return _runtime.global_state.num_processes if _runtime.global_state.client else 1


def index() -> int:
    """Which process this is, from 0; asking does not touch a device."""
    return _runtime.global_state.process_id if _runtime.global_state.client else 0


def gather(question: str, answer: Any) -> list[Any]:
    """What every process says to a question, in their order; all must put it.

    No device takes part, so that this works before anything is compiled, and a process that does
    not answer is named.

    Args:
        question: any text; the same one can be put again.
        answer: as JSON knows it.

    Raises:
        RuntimeError: a process did not answer in time.
    """
    if count() == 1:
        return [answer]
    client: Any = _runtime.global_state.client
    _asked[question] = turn = _asked.get(question, 0) + 1
    key = f"caduceus_jax/{question}/{turn}"
    client.key_value_set(f"{key}/{index()}", json.dumps(answer))
    answers = []
    for process in range(count()):
        try:
            text = client.blocking_key_value_get(f"{key}/{process}", AGREE_SECONDS * 1000)
        except Exception as error:  # of the runtime's own types
            raise RuntimeError(
                f"process {process} did not answer within {AGREE_SECONDS} s: {question}"
            ) from error
        answers.append(json.loads(text))
    # Who puts a question again has all answers of the turn before, so that nobody still reads
    # those of the turn before that.
    if turn > 2:
        client.key_value_delete(f"caduceus_jax/{question}/{turn - 2}/{index()}")
    return answers


def first_does(question: str, work: Callable[[], T]) -> T:
    """Process 0 does something, and all get its result, or its UserError.

    Args:
        question: a name for it.
        work: returns what JSON knows.
    """
    result, error = None, None
    if index() == 0:
        try:
            result = work()
        except UserError as caught:
            if count() == 1:
                raise
            error = [str(caught), caught.exit_status]
    result, error = gather(question, [result, error])[0]
    if error:
        raised = AgreedError(error[0])
        raised.exit_status = error[1]
        raise raised
    return result


def check_same(settings: dict[str, Any]) -> None:
    """Makes sure that all processes were told the same.

    Args:
        settings: name -> value, as JSON knows it.

    Raises:
        AgreedError: on all processes; names the first setting and process that differ.
    """
    digests = {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for name, value in settings.items()
    }
    first, *others = gather("settings", digests)
    for process, other in enumerate(others, start=1):
        if different := [n for n in {**first, **other} if first.get(n) != other.get(n)]:
            more = f" and {len(different) - 1} more" if len(different) > 1 else ""
            raise AgreedError(
                f"process {process} was told another {different[0]}{more} than process 0: start "
                "all processes with the same settings and the same data"
            )
    if count() > 1:
        # Connections between devices are set up when they first exchange something. On CPUs that
        # waits 30 s at most: here all processes are at the same place, while compiling takes
        # each its own time.
        multihost_utils.sync_global_devices("settings")


def end_together(function: Callable[P, T]) -> Callable[P, T]:
    """A function that, where it fails in one of several processes, ends that process at once.

    Others may wait for it inside a computation that nothing interrupts; JAX ends them when they
    do not hear of it any more.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if count() == 1 or (isinstance(error, AgreedError) and index() == 0):
                raise
            if isinstance(error, AgreedError):  # all leave, in the usual way
                raise SystemExit(error.exit_status) from None
            if "--debug" in sys.argv:
                traceback.print_exc()
            status, text = 1, f"{type(error).__name__}: {error}"
            if isinstance(error, UserError):
                status, text = error.exit_status, str(error)
            print(f"process {index()} of {count()} ends: {text}", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    return called
