"""Results of a benchmark on disk: JSON with everything, Markdown for people."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from caduceus_jax.files import write_text


class Report:
    """Collects the results of a benchmark and writes every addition to disk at once.

    Args:
        path: path of the files, without the ending.
        head: facts known before the first result: machine, command, seed.
        page: formats the results as a page of Markdown.
    """

    def __init__(
        self, path: pathlib.Path, head: dict[str, Any], page: Callable[[dict[str, Any]], str]
    ):
        self.path, self.page = path, page
        self.results: dict[str, Any] = {**head, "finished": False, "cases": []}
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, row: dict[str, Any], line: str) -> None:
        """Adds a row of a kind such as "cases", prints a line about it, and writes the files."""
        self.results.setdefault(kind, []).append(row)
        print(line, flush=True)
        self.write()

    def write(self) -> None:
        """Writes JSON and Markdown, each whole or not at all."""
        write_text(self.path.with_suffix(".json"), json.dumps(self.results, indent=1) + "\n")
        write_text(self.path.with_suffix(".md"), self.page(self.results))


def title(results: dict[str, Any]) -> list[str]:
    """Returns the first lines of a page: machine, versions, command."""
    lines = [
        f"# {results['title']}",
        "",
        f"{results['device']}, {results['driver']}; jax {results['jax']}, Python "
        f"{results['python']}, caduceus-jax {results['caduceus_jax']}; {results['began']}. "
        f"`{results['command']}`",
        "",
    ]
    if not results["finished"]:
        lines += ["Not finished: what follows is what there is so far.", ""]
    return lines


def size(shape: dict[str, int]) -> str:
    """Formats a shape: `1 x 131,072 x 512 x 16`."""
    return " x ".join(f"{extent:,}" for extent in shape.values())


def number(x: float) -> str:
    """Formats a number with three significant digits and no exponent."""
    digits = 0 if x >= 100 else 1 if x >= 10 else 2 if x >= 1 else 3 if x >= 0.1 else 4
    return f"{x:,.{digits}f}"


def spread(case: dict[str, Any]) -> str:
    """Formats median, minimum and maximum: `1.25 (1.24 - 1.31)`."""
    return f"{number(case['median_ms'])} ({number(case['min_ms'])} - {number(case['max_ms'])})"
