"""`caduceus-jax models`: which released checkpoints there are, and what each is for."""

import pathlib
import sys

from rich.console import Console
from rich.table import Table

from caduceus_jax.errors import UserError
from caduceus_jax.files import write_text
from caduceus_jax.models import RELEASED, closest, facts, find

_COLUMNS = ("name", "pretrained on", "kind", "window", "parameters", "MB", "licence", "hub id")


def models(name: str | None = None, *, out: pathlib.Path | None = None) -> None:
    """Lists the released models, or describes one of them.

    The short name or the hub id can be given to every command that takes a model, and to `cj.load`
    and `from_pretrained`; the weights are downloaded once and kept by huggingface_hub.

    The table comes with this version of the package, so that no network is needed to read it. It
    was compiled from the models' pages on the hub and the authors' repositories. Parameters are
    counted from the architecture.

    examples:
      caduceus-jax models
      caduceus-jax models caduceus-ps-131k
      caduceus-jax models --out models.tsv

    Args:
        name: the model to describe, by its short name or hub id; all are listed without it.
        out: write the list as tab-separated text to this file.
    """
    if name is None:
        _list(out)
        return
    if out is not None:
        raise UserError("--out writes the whole list: leave out the name of a model")
    model = find(name)
    if model is None:
        near = closest(name)
        hint = f"did you mean {near}?" if near else "caduceus-jax models lists them"
        raise UserError(f"{name} is not a released model; {hint}")
    rows = list(facts(model))
    width = max(len(title) for title, _ in rows)
    for title, text in rows:
        print(f"{title:{width}}  {text}")
    print(f"{'in Python':{width}}  cj.load({model.name!r})")


def rows() -> list[tuple[str, ...]]:
    """Returns the cells of the list, one row per model, as text."""
    return [
        (
            model.name,
            model.species.partition(" (")[0],
            "PS, equivariant" if model.equivariant else "Ph",
            str(model.window),
            str(model.parameters),
            f"{model.megabytes:g}",
            model.licence,
            model.hub_id,
        )
        for model in RELEASED
    ]


def _list(out: pathlib.Path | None) -> None:
    text = "\n".join("\t".join(row) for row in (_COLUMNS, *rows())) + "\n"
    if out is not None:
        write_text(out, text)
        return
    if not sys.stdout.isatty():
        print(text, end="")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in _COLUMNS[:-2]:
        numeric = column in ("window", "parameters", "MB")
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows():
        cells = [f"{int(c):,}" if i in (3, 4) else c for i, c in enumerate(row[:-2])]
        table.add_row(*cells)
    console = Console()
    console.print(table)
    console.print(
        "Details: caduceus-jax models NAME. The name works wherever a model is asked for."
    )
