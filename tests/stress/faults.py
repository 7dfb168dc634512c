"""Faults of a run over two machines: how long until all processes end, with what, and what is lost.

    python -m tests.stress.faults FOLDER [CASE ...]

Prints a table of Markdown, one line a case, as each case ends; exit status 1 if one fails. Each
process sees a boot id of its own (mount namespaces); two cases need network namespaces, and root.
"""

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import yaml

from tests.stress.machines import Machine, free_port, launch, unshare

MOST_SECONDS = 120  # from a fault to the end of all processes
PATIENCE = 600  # for a start, on a busy machine
EVENTS = ("caduceus-jax pretrain:", " ends: ", "died", ": saved step")


class Row(NamedTuple):
    """One line of the table."""

    case: str
    processes: int
    seconds: float | None  # from the fault to the end of the last process
    statuses: list[int]
    sentence: str
    continued: str
    equal: bool | None  # whether what continued ended with the bytes of an undisturbed run

    def __str__(self) -> str:
        seconds = "" if self.seconds is None else f"{self.seconds:.0f}"
        equal = "" if self.equal is None else "yes" if self.equal else "NO"
        statuses = ", ".join(map(str, self.statuses))
        cells = (self.case, self.processes, seconds, statuses, self.sentence, self.continued, equal)
        return f"| {' | '.join(map(str, cells))} |"


class Bench:
    """A genome, a recipe, and an undisturbed run of it."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.words = folder, unshare()
        folder.mkdir(parents=True, exist_ok=True)
        genome = folder / "genome.fa"
        genome.write_text(f">one\n{''.join(random.Random(0).choices('ACGT', k=4000))}\n")
        recipe = {
            "model": {"d_model": 8, "n_layer": 1, "d_state": 4, "rcps": True},
            "data": {"fasta": str(genome), "validation_windows": 4},
            "steps": 300,
            "batch_size": 4,
            "max_length": 32,
            "log_every": 10,
            "eval_every": 300,
            "checkpoint_every": 20,
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        self._bytes: dict[int, str] = {}

    def command(self, out: pathlib.Path, *more: str) -> list[str]:
        """Returns the words of a run."""
        return ["pretrain", "--config", str(self.folder / "recipe.yaml"), "--out", str(out), *more]

    def start(
        self,
        name: str,
        *,
        count: int = 2,
        options: Sequence[Sequence[str]] = ((), ()),
        which: Sequence[int] | None = None,
        words: Sequence[Sequence[str]] | None = None,
        host: str = "localhost",
        **start: Any,
    ) -> tuple[list[Machine], pathlib.Path]:
        """Starts a run of several processes, or only those that `which` names."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        out, port, machines = place / "run", free_port(), []
        for i in range(count) if which is None else which:
            namespace = (self.words or []) if words is None else words[i]
            own = [word.replace("localhost", host) for word in launch(port, count, i)]
            machine = Machine(place, i, namespace)
            more = options[i] if i < len(options) else ()
            machine.start(self.command(out, *own, *more), **start)
            machines.append(machine)
        return machines, out

    def undisturbed(self, count: int = 2) -> str:
        """Returns the digest of a run that nothing happens to."""
        if count not in self._bytes:
            machines, out = self.start(f"undisturbed-{count}", count=count)
            statuses = [machine.wait(PATIENCE) for machine in machines]
            assert not any(statuses), "".join(machine.said() for machine in machines)
            self._bytes[count] = digest(out)
        return self._bytes[count]

    def continues(self, name: str, count: int = 2) -> tuple[str, bool]:
        """Starts a run again; says at which step it goes on, and compares its end."""
        machines, out = self.start(name, count=count)
        statuses = [machine.wait(PATIENCE) for machine in machines]
        said = machines[0].said()
        assert not any(statuses), said[-3000:]
        lines = [line for line in said.splitlines() if line.startswith("continues at step")]
        return lines[-1] if lines else "began anew", digest(out) == self.undisturbed(count)


def digest(out: pathlib.Path) -> str:
    """Returns the SHA-256 of the trained model."""
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


def until_step(out: pathlib.Path, step: int, machines: Sequence[Machine]) -> None:
    """Waits until a run has logged a step."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        try:
            lines = (out / "metrics.jsonl").read_text().splitlines()
            if lines and json.loads(lines[-1])["step"] >= step:
                return
        except (OSError, ValueError):
            pass
        for machine in machines:
            assert machine.process is not None and machine.process.poll() is None, machine.said()
        time.sleep(0.1)
    raise AssertionError(f"no step {step} in {out}")


def sentence(machines: Sequence[Machine]) -> str:
    """Returns the last line in which a process says why it ended."""
    for machine in machines:
        found = [x for x in machine.said().splitlines() if any(word in x for word in EVENTS)]
        if found:
            return found[-1].replace("|", "/")[:230]
    return "NONE"


def ends(case: str, machines: Sequence[Machine], begun: float) -> tuple[float, list[int]]:
    """Waits for all processes; those that hang are a failure."""
    statuses = [machine.wait(MOST_SECONDS + 120) for machine in machines]
    return time.monotonic() - begun, statuses


def struck(bench: Bench, case: str, strike: Callable[[list[Machine]], None]) -> Row:
    """Runs two processes, does something to them at step 60, and continues."""
    name = case.replace(" ", "-")
    machines, out = bench.start(name)
    until_step(out, 60, machines)
    begun = time.monotonic()
    strike(machines)
    seconds, statuses = ends(case, machines, begun)
    said = sentence(machines)
    return Row(case, 2, seconds, statuses, said, *bench.continues(name))


def _send(number: int, which: int) -> Callable[[list[Machine]], None]:
    def strike(machines: list[Machine]) -> None:
        process = machines[which].process
        assert process is not None
        os.kill(process.pid, number)

    return strike


def _pause(machines: list[Machine]) -> None:
    """Stops a process for 30 s."""
    _send(signal.SIGSTOP, 1)(machines)
    time.sleep(30)
    _send(signal.SIGCONT, 1)(machines)


_OTHER = ((), ("--optimizer.lr=1e-3",))


def refused(bench: Bench, case: str, **how: Any) -> Row:
    """Starts two processes that must not begin."""
    begun = time.monotonic()
    machines, _ = bench.start(case.replace(" ", "-"), **how)
    seconds, statuses = ends(case, machines, begun)
    return Row(case, len(machines), seconds, statuses, sentence(machines), "", None)


def not_shared(bench: Bench) -> Row:
    """`out` is each machine's own disk."""
    place = bench.folder / "not-shared"
    (place / "run").mkdir(parents=True)
    return refused(bench, "not-shared", own=place / "run")


def full_disk(bench: Bench) -> Row:
    """No file may grow beyond 24 KiB; then the disk has room again."""
    begun = time.monotonic()
    machines, _ = bench.start("full-disk", limit=24)
    seconds, statuses = ends("full disk", machines, begun)
    row = sentence(machines)
    return Row("full disk", 2, seconds, statuses, row, *bench.continues("full-disk"))


def second_run(bench: Bench) -> Row:
    """Another run of the same folder starts while the first trains."""
    machines, out = bench.start("second-run")
    until_step(out, 60, machines)
    begun = time.monotonic()
    other = Machine(bench.folder / "second-run", 9, []).start(bench.command(out))
    seconds, statuses = ends("second run", [other], begun)
    first = [machine.wait(PATIENCE) for machine in machines]
    steps = [json.loads(x)["step"] for x in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)), "metrics mix"
    equal = first == [0, 0] and digest(out) == bench.undisturbed()
    return Row("a second run in the folder", 2, seconds, statuses, sentence([other]),
               "the first run was not disturbed", equal)  # fmt: skip


def _hosts(count: int) -> list[list[str]]:
    """Makes hosts of their own networks on one bridge."""
    _no_hosts()
    lines = ["link add cjbr type bridge", "addr add 10.77.0.254/24 dev cjbr", "link set cjbr up"]
    known = "".join(f"10.77.0.{i + 1} cj{i}\n" for i in range(count))
    for i in range(count):
        lines += [
            f"netns add cj{i}",
            f"link add cjv{i} type veth peer name eth0 netns cj{i}",
            f"link set cjv{i} master cjbr up",
            f"-n cj{i} link set lo up",
            f"-n cj{i} addr add 10.77.0.{i + 1}/24 dev eth0",
            f"-n cj{i} link set eth0 up",
        ]
        etc = pathlib.Path(f"/etc/netns/cj{i}")
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)
    # Each has its own name too, by which the processes find each other.
    own = ["sh", "-c", 'hostname "$0" && exec "$@"']
    return [
        ["ip", "netns", "exec", f"cj{i}", "unshare", "-mu", *own, f"cj{i}"] for i in range(count)
    ]


def _no_hosts() -> None:
    hosts = sorted(path.name for path in pathlib.Path("/run/netns").glob("cj[0-9]"))
    for line in (*(f"netns del {host}" for host in hosts), "link del cjbr"):
        subprocess.run(["ip", *line.split()], capture_output=True)


def parted(bench: Bench, case: str, count: int, how: str, which: Sequence[int]) -> Row:
    """Hosts do not reach each other any more; their carriers stay.

    Args:
        bench: where to run.
        case: name of the case.
        count: hosts, each with a process; the first is the coordinator.
        how: what becomes of a host's port on the bridge, as `bridge link set` has it.
        which: the hosts of these ports.
    """
    name, words = case.replace(" ", "-"), _hosts(count)
    try:
        machines, out = bench.start(name, count=count, words=words, host="10.77.0.1")
        until_step(out, 60, machines)
        begun = time.monotonic()
        for i in which:
            subprocess.run(f"bridge link set dev cjv{i} {how}".split(), check=True)
        seconds, statuses = ends(case, machines, begun)
        said = sentence(machines)
    finally:
        _no_hosts()
    return Row(case, count, seconds, statuses, said, *bench.continues(name, count))


CASES: dict[str, Callable[[Bench], Row]] = {
    "worker-killed": lambda b: struck(b, "worker killed", _send(signal.SIGKILL, 1)),
    "coordinator-killed": lambda b: struck(b, "coordinator killed", _send(signal.SIGKILL, 0)),
    "sigterm": lambda b: struck(b, "SIGTERM to one", _send(signal.SIGTERM, 1)),
    "paused": lambda b: struck(b, "stopped for 30 s", _pause),
    "other-settings": lambda b: refused(b, "other settings", options=_OTHER),
    "never-comes": lambda b: refused(b, "a host never comes", which=(0,)),
    "wrong-address": lambda b: refused(b, "no coordinator", which=(1,)),
    "not-shared": not_shared,
    "full-disk": full_disk,
    "second-run": second_run,
    "cut-off": lambda b: parted(b, "a host is cut off", 2, "state 0", (1,)),
    # Isolated ports of a bridge reach the others, here the coordinator's, but not one another.
    "workers-parted": lambda b: parted(b, "workers lose each other", 4, "isolated on", (1, 2, 3)),
}


def main(folder: pathlib.Path, *names: str) -> None:
    """Runs the cases, and prints their table."""
    bench, failed = Bench(folder), False
    print("| case | processes | seconds to the end | status | sentence | continued | same bytes |")
    print("| --- | ---: | ---: | --- | --- | --- | --- |", flush=True)
    for name in names or CASES:
        try:
            row = CASES[name](bench)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print(f"| {name} | FAILED: {' '.join(str(error).split())[-600:]} |", flush=True)
            failed = True
            continue
        print(row, flush=True)
        late = row.seconds is not None and row.seconds > MOST_SECONDS + 60
        mute = row.sentence == "NONE" and any(row.statuses)
        failed |= late or row.equal is False or mute or 134 in row.statuses
    sys.exit(failed)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
