"""Writes the parts of the pages that are made from the package: the models and the recipes.

    python docs/tools/generated.py

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`; a test compares it with what this makes.
"""

import pathlib
import re
from collections.abc import Callable

from caduceus_jax import configs
from caduceus_jax.markdown import table
from caduceus_jax.models import RELEASED, ReleasedModel, facts

DOCS = pathlib.Path(__file__).parents[1]


def models() -> str:
    """Returns a table with one row per released model."""
    header = ("name", "pretrained on", "kind", "window", "parameters", "MB", "licence")
    return "\n".join(table(header, [_row(model) for model in RELEASED]))


def details() -> str:
    """Returns a section per released model."""
    return "\n".join(line for model in RELEASED for line in _section(model)).rstrip()


def recipes() -> str:
    """Returns a table with one row per shipped recipe: its name and the first line of its head."""
    folder, rows = pathlib.Path(configs.__file__).parent, []
    for name in configs.recipes():
        head = (folder / f"{name}.yaml").read_text().splitlines()[0]
        command = "finetune" if name.startswith("finetune/") else "pretrain"
        title = head.removeprefix("# ").split(". ")[0].rstrip(".")
        rows.append((f"`{name}`", f"`{command}`", title))
    return "\n".join(table(("recipe", "command", "what it trains"), rows))


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("models.md", "models"): models,
    ("models.md", "details"): details,
    ("training.md", "recipes"): recipes,
}


def page(name: str) -> str:
    """Returns a page of docs/ with its generated parts as they should be."""
    text = (DOCS / name).read_text()
    for (file, part), make in PARTS.items():
        if file == name:
            pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", re.DOTALL)
            text, found = pattern.subn(rf"\g<1>\n{_literal(make())}\n\n\g<2>", text)
            if not found:
                raise ValueError(f"{name} has no part {part}")
    return text


def _literal(text: str) -> str:
    return text.replace("\\", r"\\")


def _row(model: ReleasedModel) -> tuple[str, ...]:
    computed = "°" if model.size_from == "parameters" else ""
    return (
        f"[`{model.name}`](#{model.name})",
        model.species.partition(" (")[0],
        "PS" if model.equivariant else "Ph",
        f"{model.window:,}",
        f"{model.parameters:,}",
        f"{model.megabytes:g}{computed}",
        "Apache-2.0" if model.licence == "Apache-2.0" else "not stated",
    )


def _section(model: ReleasedModel) -> list[str]:
    lines = [f"### {model.name}", ""]
    for title, text in facts(model):
        if title == "hub id":
            text = f"[{text}](https://huggingface.co/{text})"
        if title == "cite":
            text = f"{model.citation}, <{model.url}>"
        if title != "short name":
            lines.append(f"- **{title}:** {text}")
    return [*lines, ""]


if __name__ == "__main__":
    for name in sorted({file for file, _ in PARTS}):
        (DOCS / name).write_text(page(name))
