"""Work in shards: each process computes some of the blocks, and one writes what all computed.

A shard of a command is kept in the form of its journal, OUT.shard-2-of-4, together with the command
that it is part of. Shards put end to end are the journal of the whole command, which then writes
the very bytes of one run, in whatever format.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import STANDARD_INPUT
from caduceus_jax.genomics.files.output import replacing
from caduceus_jax.genomics.scoring.journal import FORMAT, Journal, open_journal

# Where a cluster tells a process which one it is: its number, the first number, how many there are.
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
_PROCESSES = (("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"), ("SLURM_PROCID", "SLURM_NTASKS"))


class Shard(NamedTuple):
    """One of several parts of a command's work.

    Attributes:
        index: its number, from 1 to `count`.
        count: number of shards.
        command: the command and its arguments, as JSON can hold them.
    """

    index: int
    count: int
    command: Mapping[str, Any]

    @property
    def numbers(self) -> tuple[int, int]:
        """Returns its number, from 1, and how many there are."""
        return self.index, self.count

    def path(self, out: pathlib.Path) -> pathlib.Path:
        """Returns the file that keeps the shard of an output."""
        return out.with_name(f"{out.name}.shard-{self.index}-of-{self.count}")


def shard_of(
    text: str | None, verb: str, arguments: Mapping[str, Any], inputs: Sequence[str | None]
) -> Shard | None:
    """Reads which shard a command computes; None for all of its work.

    Args:
        text: "2/4"; "auto", which asks SLURM's array or tasks, or JAX's process variables; None.
        verb: the command.
        arguments: arguments that it was called with, by name.
        inputs: the files that it reads.

    Raises:
        UserError: text that does not name a shard, or an input that only one process can read.
    """
    if text is None:
        return None
    if text == "auto":
        index, count = _of_environment(os.environ)
    elif match := re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text):
        index, count = int(match[1]), int(match[2])
    else:
        index, count = 0, 0
    if not 1 <= index <= count:
        raise UserError(f"shard is {text!r}; it is I/N, from 1/N to N/N, or auto")
    for name in inputs:
        if name in STANDARD_INPUT or (name and pathlib.Path(name).is_fifo()):
            raise UserError(f"shard needs inputs that every process can read: {name} is a pipe")
    given = {name: _plain(value) for name, value in arguments.items() if name != "shard"}
    return Shard(index, count, {"verb": verb, "arguments": given})


def _of_environment(variables: Mapping[str, str]) -> tuple[int, int]:
    if all(name in variables for name in _ARRAY):
        number, first, count = (int(variables[name]) for name in _ARRAY)
        return number - first + 1, count
    for names in _PROCESSES:
        if all(name in variables for name in names):
            number, count = (int(variables[name]) for name in names)
            return number + 1, count
    raise UserError(
        "shard is auto, and neither SLURM nor JAX_PROCESS_ID with JAX_NUM_PROCESSES tells which "
        "process this is: pass I/N"
    )


def _plain(value: Any) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, pathlib.Path) else value


@contextlib.contextmanager
def open_shard(
    shard: Shard, out: pathlib.Path, run: Mapping[str, Any], *, restart: bool, dtype: str = "<f4"
) -> Iterator[Journal]:
    """Opens what keeps a shard; it gets its name when the block is done.

    Args:
        shard: the shard.
        out: the output that it is part of.
        run: record of the run, from `run_record`.
        restart: start over instead of continuing an interrupted run.
        dtype: type of the numbers that it keeps.

    Raises:
        UserError: the file is another run's.
    """
    done = shard.path(out)
    journal = done.with_name(f"{done.name}.journal")
    if done.exists() and not journal.exists():
        done.replace(journal)
    mine = {**run, "shard": list(shard.numbers), "command": dict(shard.command)}
    with open_journal(journal, mine, restart=restart, keep=done, dtype=dtype) as opened:
        yield opened


def finish(parts: Iterable[Any]) -> None:
    """Computes what the journal is to keep, and nothing else."""
    for _ in parts:
        pass


def joined(shards: Sequence[pathlib.Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads which run some shards are of.

    Args:
        shards: the files, in any order.

    Returns:
        The run's record without its shard; and the command with its arguments.

    Raises:
        UserError: a file is not a shard or not of this run, or one is missing or named twice.
    """
    records = {path: _record(path) for path in shards}
    first, *others = records.values()
    for path, record in records.items():
        differing = [k for k in first if k != "shard" and record.get(k) != first[k]]
        if differing:
            raise UserError(
                f"{path} is of another run than {shards[0]}: it differs in {', '.join(differing)}"
            )
    count = first["shard"][1]
    numbers = sorted(record["shard"][0] for record in records.values())
    if any(record["shard"][1] != count for record in others) or len(set(numbers)) < len(numbers):
        raise UserError("these shards are not of one division: name each of 1/N to N/N once")
    if missing := sorted(set(range(1, count + 1)) - set(numbers)):
        raise UserError(f"shard {missing[0]} of {count} is missing: name it, or compute it first")
    command = first.pop("command")
    del first["shard"]
    return first, command


def write_joined(
    shards: Sequence[pathlib.Path], run: Mapping[str, Any], journal: pathlib.Path
) -> None:
    """Writes the journal of the whole run, from which nothing may be missing.

    Args:
        shards: all of them, in any order.
        run: record of the whole run, from `joined`.
        journal: the file to write.

    Raises:
        OutputError: the file cannot be written.
    """
    ordered = sorted(shards, key=lambda path: _record(path)["shard"][0])
    with replacing(journal) as partial, partial.open("wb") as file:
        header = {"format": FORMAT, "run": dict(run), "whole": True}
        file.write(json.dumps(header).encode() + b"\n")
        for path in ordered:
            with path.open("rb") as shard:
                shard.readline()
                shutil.copyfileobj(shard, file, 1 << 20)


def _record(path: pathlib.Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise UserError(
            f"{path} is not a file, and shards are read several times: name OUT.shard-I-of-N"
        )
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 24)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = json.loads(line)
        if found["format"] == FORMAT and {"shard", "command"} <= found["run"].keys():
            return found["run"]
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} is not a shard, which --shard writes as OUT.shard-I-of-N")
