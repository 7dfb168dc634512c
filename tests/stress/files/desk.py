"""Models and a genome, commands within this process, and inputs through every kind of stream."""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from caduceus_jax.cli.main import main
from tests.genomes import fasta
from tests.models import classifier, language_model

MOST_SECONDS = 90
SHORT = ["--context-length", "21", "--batch-size", "64"]
STREAMS = ("path", "cat FILE | -", "cat FILE | /dev/stdin", "< FILE -", "< FILE /dev/stdin", "FIFO",
           "<(cat FILE)")  # fmt: skip


class Ended(NamedTuple):
    """How a command ended."""

    status: int | str  # or "hangs", "crashes"
    text: str  # standard output and error

    @property
    def sentences(self) -> list[str]:
        """Returns the lines in which the command says why it ended."""
        lines = self.text.replace("\r", "\n").splitlines()
        return [line for line in lines if line.startswith("caduceus-jax ")]

    @property
    def refused(self) -> bool:
        """Returns whether it ended with one sentence, and of its own accord."""
        return self.status in (1, 2) and len(self.sentences) == 1 and "--debug" not in self.text


class Hangs(BaseException):
    """A command takes too long."""


def make(folder: pathlib.Path, length: int) -> str:
    """Makes a new folder with models and a genome of one contig, 1; returns its bases."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sizes: dict[str, Any] = {"d_model": 8, "n_layer": 1, "d_state": 4}
    language_model(**sizes).save_pretrained(str(folder / "lm"))
    classifier(**sizes, num_labels=2).save_pretrained(str(folder / "classifier"))
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), length))
    fasta(folder / "genome.fa", **{"1": bases})
    return bases


def run(words: Sequence[object], stdin: int | None = None) -> Ended:
    """Runs a command; `stdin` is what its standard input shall be."""
    reading, writing = os.pipe()
    told: list[bytes] = []
    listener = threading.Thread(target=lambda: told.append(os.fdopen(reading, "rb").read()))
    listener.start()
    nothing = os.open(os.devnull, os.O_RDONLY)
    saved, streams = [os.dup(i) for i in range(3)], (sys.stdin, sys.stdout, sys.stderr)
    for new, old in ((nothing if stdin is None else stdin, 0), (writing, 1), (writing, 2)):
        os.dup2(new, old)
    os.close(writing)
    os.close(nothing)
    sys.stdin = open(0, closefd=False)
    sys.stdout, sys.stderr = (open(i, "w", closefd=False) for i in (1, 2))

    def too_long(*_: object) -> None:
        raise Hangs

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(MOST_SECONDS)
    status: int | str
    try:
        status = main([str(word) for word in words])
    except Hangs:
        status = "hangs"
    except SystemExit as error:
        status = int(error.code or 0)
    except Exception:
        status = "crashes"
        traceback.print_exc()
    finally:
        signal.alarm(0)
        for file in (sys.stdout, sys.stderr):
            file.flush()
        for i, before in enumerate(saved):
            os.dup2(before, i)
            os.close(before)
        sys.stdin, sys.stdout, sys.stderr = streams
    listener.join()
    return Ended(status, told[0].decode(errors="replace"))


@contextlib.contextmanager
def delivered(stream: str, data: bytes, path: pathlib.Path) -> Iterator[tuple[str, int | None]]:
    """Yields the word that names an input, and the standard input it may come through."""
    word, opened = stream.split()[-1], None
    if stream == "FIFO":
        os.mkfifo(path)
        _writer(path, data)
        yield str(path), None
        return
    if stream in ("path", "< FILE -", "< FILE /dev/stdin"):
        path.write_bytes(data)
        opened = os.open(path, os.O_RDONLY)
    else:
        opened, writing = os.pipe()
        _writer(writing, data)
    if stream == "<(cat FILE)":
        word = f"/dev/fd/{opened}"
    yield str(path) if stream == "path" else word, opened
    os.close(opened)


def _writer(to: int | pathlib.Path, data: bytes) -> None:
    def write() -> None:
        with contextlib.suppress(OSError), open(to, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()


def new_folder(within: pathlib.Path) -> pathlib.Path:
    """Makes an empty folder."""
    return pathlib.Path(tempfile.mkdtemp(dir=within))


def row(*cells: object) -> None:
    """Prints a row of a table of Markdown."""
    print(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in cells)} |", flush=True)


def head(*cells: str) -> None:
    """Prints the head of a table of Markdown."""
    row(*cells)
    row(*("---" for _ in cells))
