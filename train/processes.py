"""Several processes, one run: how they meet, agree, and end together."""

import functools
import hashlib
import json
import os
import re
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax._src import clusters
from jax._src import distributed as _runtime  # JAX has no public name for its key-value store
from jax.experimental import multihost_utils

from caduceus_jax.errors import UserError
from caduceus_jax.train.cluster import rendezvous
from caduceus_jax.train.cluster.peers import Peers

P = ParamSpec("P")
T = TypeVar("T")

# A process that JAX does not hear of for this long is dead. `peers` notices earlier, and says who.
HEARTBEAT_SECONDS = 100
# Processes wait this long for each other: at the start, and while one of them reads data.
START_SECONDS = 100
AGREE_SECONDS = 600

_asked: dict[str, int] = {}  # how often each question has been put
_peers: Peers | None = None
_hosts: list[str] = []


class AgreedError(UserError):
    """An error that all processes raise, so that process 0 alone reports it."""


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Makes this process one of several, before any device is touched.

    Without arguments the environment decides: a TPU pod, SLURM, Open MPI, or whatever else JAX
    recognises. If it recognises nothing, or `processes` is 1, this process is alone.

    Args:
        coordinator: host:port of process 0.
        processes: number of processes.
        process: number of this process, from 0.

    Raises:
        UserError: only some of the three are given, or a cluster cannot be joined.
        NotMet: the processes did not come together in time.
    """
    global _peers
    given = coordinator, processes, process
    if _runtime.global_state.client is not None or processes == 1:
        return
    if any(value is not None for value in given) and None in given:
        raise UserError("--coordinator, --processes and --process go together: give all, or none")
    local_devices = None
    if coordinator is None:
        coordinator, processes, process, local_devices = _detect()
    if coordinator is None or processes == 1:
        return
    if processes is None or process is None:
        raise UserError(
            f"the environment names the coordinator {coordinator}, and not how many processes "
            "there are: pass --coordinator, --processes and --process"
        )
    if not 0 <= process < processes:
        raise UserError(f"process is {process}; it must be from 0 to {processes - 1}")
    about = {"host": socket.gethostname()}
    everyone = rendezvous.meet(coordinator, processes, process, about, START_SECONDS)
    _hosts[:] = [message["host"] for message in everyone]
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            local_device_ids=local_devices,
            cluster_detection_method="deactivate",
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except RuntimeError as error:
        if "must be called before" in str(error):  # a session that has used its devices
            raise UserError(
                "several processes cannot begin in a program that has used its devices: start "
                "each as a program of its own"
            ) from None
        reason = " ".join(str(error).split())
        raise UserError(f"{host_name(process)} could not join the others ({reason})") from None
    _peers = Peers(_runtime.global_state.client, process, _hosts, coordinator)


def _detect() -> tuple[Any, Any, Any, Any]:
    """Asks JAX's cluster detection for coordinator, processes, process and local devices."""
    try:
        return clusters.ClusterEnv.auto_detect_unset_distributed_params(
            os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, START_SECONDS
        )
    except Exception as error:  # what detects clusters raises anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"this process could not find out who the others are ({type(error).__name__}: "
            f"{reason}): pass --coordinator, --processes and --process, or --processes 1 for this "
            "process alone"
        ) from None


def count() -> int:
    """Returns the number of processes, without touching a device."""
    return _runtime.global_state.num_processes if _runtime.global_state.client else 1


def index() -> int:
    """Returns which process this is, from 0, without touching a device."""
    return _runtime.global_state.process_id if _runtime.global_state.client else 0


def host_name(process: int) -> str:
    """Names a process, with its host where that is known: "process 1 (node-b)"."""
    known = process < len(_hosts)
    return f"process {process} ({_hosts[process]})" if known else f"process {process}"


def all_gather(question: str, answer: Any) -> list[Any]:
    """Collects an answer from every process, and returns all of them to all.

    No device takes part, so that this works before anything is compiled, and a process that does
    not answer is named. Process 0 reads every answer and writes them as one, which the others
    read: requests grow with the number of processes, not with its square.

    Args:
        question: any text; the same one can be put again.
        answer: this process's answer, as JSON knows it.

    Returns:
        The answers, in the order of the processes.

    Raises:
        RuntimeError: a process did not answer in time.
    """
    if count() == 1:
        return [answer]
    client: Any = _runtime.global_state.client
    key = _next_key(client, question)
    if index() != 0:
        client.key_value_set(f"{key}/{index()}", json.dumps(answer))
        return json.loads(_wait_for(client, f"{key}/all", 0, question))
    texts = [
        json.dumps(answer)
        if process == 0
        else _wait_for(client, f"{key}/{process}", process, question)
        for process in range(count())
    ]
    together = f"[{','.join(texts)}]"
    client.key_value_set(f"{key}/all", together)
    return json.loads(together)


def broadcast_from_first(question: str, work: Callable[[], T], *, patient: bool = False) -> T:
    """Does something in process 0 only, and gives all processes its result, or its UserError.

    Args:
        question: a name for it.
        work: returns what JSON knows.
        patient: wait for process 0 as long as it lives, because it may copy large files.
    """
    if count() == 1:
        return work()
    client: Any = _runtime.global_state.client
    key = _next_key(client, question)
    if index() == 0:
        try:
            message: list[Any] = [work(), None]
        except UserError as caught:
            message = [None, [str(caught), caught.exit_status]]
        client.key_value_set(f"{key}/0", json.dumps(message))
    else:
        message = json.loads(_wait_for(client, f"{key}/0", 0, question, patient=patient))
    result, error = message
    if error:
        raised = AgreedError(error[0])
        raised.exit_status = error[1]
        raise raised
    return json.loads(json.dumps(result))


def _next_key(client: Any, question: str) -> str:
    """Returns the key of this turn of a question, and forgets what nobody reads any more."""
    _asked[question] = turn = _asked.get(question, 0) + 1
    # Steps of training keep the processes closer together than this.
    if turn > 16 and index() == 0:
        client.key_value_delete(f"caduceus_jax/{question}/{turn - 16}/")
    return f"caduceus_jax/{question}/{turn}"


def _wait_for(client: Any, key: str, process: int, question: str, *, patient: bool = False) -> str:
    while True:
        try:
            return client.blocking_key_value_get(key, AGREE_SECONDS * 1000)
        except Exception as error:  # of the runtime's own types
            if patient and "DEADLINE_EXCEEDED" in str(error):  # `peers` ends it if nobody lives
                continue
            raise RuntimeError(
                f"{host_name(process)} did not answer within {AGREE_SECONDS} s: {question}"
            ) from error


def check_same(settings: dict[str, Any]) -> None:
    """Checks that all processes were given the same settings, and run the same software.

    Args:
        settings: name -> value, as JSON knows it.

    Raises:
        AgreedError: settings differ; raised on all processes, it names the first setting and
            process that differ.
    """
    digests = {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for name, value in settings.items()
    }
    first, *others = all_gather("settings", digests)
    for process, other in enumerate(others, start=1):
        if different := [n for n in {**first, **other} if first.get(n) != other.get(n)]:
            more = f" and {len(different) - 1} more" if len(different) > 1 else ""
            shown = all_gather("what differs", settings.get(different[0]))
            raise AgreedError(
                f"{host_name(process)} has another {different[0]}{more} than {host_name(0)} "
                f"({_short(shown[process])} there, {_short(shown[0])} here): start all processes "
                "with the same settings, data and software"
            )
    if count() > 1:
        # Connections between devices are set up when they first exchange something. On CPUs that
        # waits 30 s at most: here all processes are at the same place, while each takes its own
        # time to compile.
        multihost_utils.sync_global_devices("settings")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def end_together(function: Callable[P, T]) -> Callable[P, T]:
    """Wraps a function so that where it fails in one of several processes, all of them end.

    The others may wait for the failed one inside a computation that nothing interrupts: they are
    ended by `peers`, with the sentence and the exit status of the one that failed.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the function, and tells the other processes how it ended."""
        try:
            result = function(*args, **kwargs)
            if _peers is not None:
                _peers.leave()
            return result
        except BaseException as error:
            if _peers is None:
                raise
            if isinstance(error, AgreedError | SystemExit):  # all leave, in the usual way
                _peers.leave()
                if isinstance(error, AgreedError) and index() != 0:
                    raise SystemExit(error.exit_status) from None
                raise
            if "--debug" in sys.argv:
                traceback.print_exc()
            sentence, status = _ending(error)
            if _lost_connection(error):
                lost = ", ".join(_peers.lost()) or "another process"
                sentence, status = (
                    f"{lost} ended or cannot be reached, while the processes computed together: "
                    "start the same command again on all hosts",
                    1,
                )
            _peers.fail(sentence, status)

    return called


# What libraries of collectives say where another process is gone.
_LOST = re.compile(
    r"gloo|nccl|connection (reset|closed|refused)|socket closed|coordination service", re.IGNORECASE
)


def _lost_connection(error: BaseException) -> bool:
    """Tells whether an error comes from another process that is gone."""
    seen: BaseException | None = error
    while seen is not None:
        if not isinstance(seen, UserError | OSError) and _LOST.search(str(seen)):
            return True
        seen = seen.__cause__
    return False


def _ending(error: BaseException) -> tuple[str, int]:
    """Returns the sentence and the exit status of a failure."""
    if isinstance(error, UserError):
        return str(error), error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    return f"{type(error).__name__}: {' '.join(str(error).split())[:600]}", 1
