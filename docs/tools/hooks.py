"""What MkDocs runs while it builds the site (`hooks` in mkdocs.yml)."""

import inspect
import pathlib
import re
import shutil
from typing import Any

import caduceus_jax

ROOT = pathlib.Path(__file__).parents[2]
_NAME = re.compile(r"^::: cj\.([\w.]+)$(?:\n    options: \{(.*)\}$)?", re.MULTILINE)
# Defaults of settings, as `advanced(True)`: where the manual page shows them is not their value.
_PLACED = re.compile(r"= (?:advanced|recipe_only)\((.+)\)$", re.MULTILINE)
# Folders at the top that are parts of the package: see [tool.setuptools.package-dir].
_PARTS = ("kernels", "train", "configs")


def on_config(config: Any) -> Any:
    """Copies the package as it is installed, so that its sources can be read in one place.

    In the copy, defaults of settings are plain values.
    """
    package = ROOT / "build/site/caduceus_jax"
    shutil.rmtree(package, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.gz")
    shutil.copytree(ROOT / "caduceus_jax", package, ignore=ignored)
    for part in _PARTS:
        if not (package / part).exists():
            shutil.copytree(ROOT / part, package / part, ignore=ignored)
    for module in package.rglob("*.py"):
        text = module.read_text()
        if (plain := _PLACED.sub(r"= \1", text)) != text:
            module.write_text(plain)
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces `::: cj.NAME` by the place where the public name is defined."""

    def located(match: re.Match[str]) -> str:
        name, more = match[1], f", {match[2]}" if match[2] else ""
        options = f"{{heading: cj.{name}, toc_label: cj.{name}{more}}}"
        return f'<a id="cj.{name}"></a>\n\n::: {path(name)}\n    options: {options}'

    return _NAME.sub(located, markdown)


def path(name: str) -> str:
    """Returns where a public name of `caduceus_jax` is defined, as a dotted path."""
    found: Any = caduceus_jax
    for part in name.split("."):
        found = getattr(found, part)
    if inspect.ismodule(found):
        return found.__name__
    return f"{found.__module__}.{found.__qualname__}"
