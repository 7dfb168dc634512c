"""Results on disk: JSON with everything, and Markdown of what people read."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any


class Report:
    """What a benchmark has found so far; every addition is written to disk at once.

    Args:
        path: of the files, without the ending.
        head: what there is to say before the first result: machine, command, seed.
        page: makes a page of Markdown of the results.
    """

    def __init__(
        self, path: pathlib.Path, head: dict[str, Any], page: Callable[[dict[str, Any]], str]
    ):
        self.path, self.page = path, page
        self.results: dict[str, Any] = {**head, "finished": False, "cases": []}
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, row: dict[str, Any], line: str) -> None:
        """Keeps a row of a kind such as "cases", says it in a line, and writes everything."""
        self.results.setdefault(kind, []).append(row)
        print(line, flush=True)
        self.write()

    def write(self) -> None:
        """Writes JSON and Markdown, each whole or not at all."""
        _replace(self.path.with_suffix(".json"), json.dumps(self.results, indent=1) + "\n")
        _replace(self.path.with_suffix(".md"), self.page(self.results))


def title(results: dict[str, Any]) -> list[str]:
    """The first lines of a page: machine, versions, command."""
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def size(shape: dict[str, int]) -> str:
    """`1 x 131,072 x 512 x 16`."""
    return " x ".join(f"{extent:,}" for extent in shape.values())


def number(x: float) -> str:
    """Three digits that count, without an exponent."""
    digits = 0 if x >= 100 else 1 if x >= 10 else 2 if x >= 1 else 3 if x >= 0.1 else 4
    return f"{x:,.{digits}f}"


def spread(case: dict[str, Any]) -> str:
    """`1.25 (1.24 - 1.31)`."""
    return f"{number(case['median_ms'])} ({number(case['min_ms'])} - {number(case['max_ms'])})"


def _replace(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    partial.replace(path)
