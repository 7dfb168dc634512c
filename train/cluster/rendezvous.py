"""Lets processes find out that all of them have started, before JAX connects them.

JAX ends a process with a C++ stack when another one does not come, and names nobody. So every
process first meets the others at the coordinator's address, over a plain TCP connection that is
closed before JAX listens there: one line of JSON from each process, one from process 0 to each.
"""

import contextlib
import json
import os
import socket
import time
from typing import Any

from caduceus_jax.errors import UserError

_RETRY_SECONDS = 0.5
_LINE = 1 << 20  # bytes of the longest message
Message = dict[str, Any]


class NotMet(UserError):
    """The processes of a run did not come together."""

    exit_status = 1


def meet(address: str, count: int, index: int, about: Message, seconds: float) -> list[Message]:
    """Waits until all processes have come, and returns what each says about itself.

    Args:
        address: host:port of process 0, which must be free there.
        count: number of processes.
        index: number of this process, from 0.
        about: facts that the others are told, as JSON; it must have "host".
        seconds: time to wait.

    Returns:
        The messages of all processes, in their order.

    Raises:
        NotMet: a process did not come in time, two have the same number, or they were started
            with different numbers of processes; the message names them.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"coordinator is {address}; it is host:port, such as 10.0.0.1:1234")
    deadline = time.monotonic() + seconds
    hello = {**about, "process": index, "processes": count}
    if index == 0:
        bound = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", address).rpartition(":")[2]
        return _receive_all(int(bound), count, hello, deadline, seconds)
    return _report(host, int(port), hello, deadline, seconds)


def _receive_all(
    port: int, count: int, own: Message, deadline: float, seconds: float
) -> list[Message]:
    """Collects the messages of all processes and answers each with the whole list."""
    came: dict[int, tuple[Message, socket.socket]] = {}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(port))
        while len(came) < count - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection = stack.enter_context(listener.accept()[0])
                connection.settimeout(5)
                message = _read(connection)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise _refuse(came, _missing(count, own, came, seconds)) from None
                continue
            except (OSError, ValueError):  # not one of ours, or gone again
                continue
            number = message.get("process")
            if message.get("processes") != count:
                came[count] = message, connection
                raise _refuse(
                    came,
                    f"process {number} ({message.get('host')}) was started as one of "
                    f"{message.get('processes')} processes, and process 0 ({own['host']}) as one "
                    f"of {count}: pass the same --processes to all",
                )
            if number in came or number == 0:
                other = own if number == 0 else came[number][0]
                came[count] = message, connection
                raise _refuse(
                    came,
                    f"two processes have the number {number}, one on {other['host']} and one on "
                    f"{message.get('host')}: give each its own --process",
                )
            came[number] = message, connection
        everyone = [own, *(came[number][0] for number in range(1, count))]
        for _, connection in came.values():
            _write(connection, {"everyone": everyone})
    return everyone


def _report(host: str, port: int, hello: Message, deadline: float, seconds: float) -> list[Message]:
    """Sends this process's message to process 0 and waits for the whole list."""
    name = f"process {hello['process']} ({hello['host']})"
    reason = ""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5) as connection:
                _write(connection, hello)
                # Process 0 answers by its own deadline, which may be a little later.
                connection.settimeout(max(deadline - time.monotonic(), 1) + seconds)
                answer = _read(connection)
        except socket.gaierror:
            reason = f"the host {host} is unknown"
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "the connection was lost"
        else:
            if "everyone" in answer:
                return answer["everyone"]
            raise NotMet(str(answer.get("error", "process 0 gave no reason")))
        time.sleep(_RETRY_SECONDS)
    raise NotMet(
        f"{name} did not reach process 0 at {host}:{port} within {seconds:.0f} s ({reason}): start "
        "process 0, and see that --coordinator names its host and a port that is open to it; "
        "--processes 1 is for one process alone"
    )


def _missing(
    count: int, own: Message, came: dict[int, tuple[Message, socket.socket]], seconds: float
) -> str:
    """Describes who did not come."""
    missing = [str(number) for number in range(1, count) if number not in came]
    present = [
        f"{number} ({message['host']})"
        for number, message in sorted({0: own, **{n: m for n, (m, _) in came.items()}}.items())
    ]
    some = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
    there = ", ".join(present[:8]) + (" and others" if len(present) > 8 else "")
    return (
        f"process{'es' * (len(missing) > 1)} {some} of {count} did not come within {seconds:.0f} s "
        f"(there are process{'es' * (len(present) > 1)} {there}): see that all were started with "
        "the same --coordinator, or use --processes 1 for one alone"
    )


def _refuse(came: dict[int, tuple[Message, socket.socket]], sentence: str) -> NotMet:
    """Tells those that came why the run does not begin."""
    for _, connection in came.values():
        with contextlib.suppress(OSError):
            _write(connection, {"error": sentence})
    return NotMet(sentence)


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True
            )
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise NotMet(
            f"process 0 cannot listen on port {port} ({error.strerror}): another run may use it; "
            "choose another port with --coordinator"
        ) from None


def _write(connection: socket.socket, message: Message) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket) -> Message:
    with connection.makefile("rb") as file:
        line = file.readline(_LINE)
    if not line.endswith(b"\n"):
        raise ValueError("the connection was closed")
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not a message of this program")
    return message
