"""Runs the commands of the pages and writes what they print below them.

    python docs/tools/outputs.py [PAGE ...] --model runs/quickstart

A block of the language `console` is a transcript: each line that starts with `$ ` is run, in a
temporary folder that looks like a clone of the repository, and the lines below it are replaced by
what it prints. Blocks of other languages stay as they are.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import tempfile

DOCS = pathlib.Path(__file__).parents[1]
_BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def commands(block: str) -> list[str]:
    """Returns the commands of a transcript; a line that ends in a backslash goes on in the next."""
    found: list[str] = []
    open_ = False
    for line in block.splitlines():
        if open_:
            found[-1] += "\n" + line
        elif line.startswith("$ "):
            found.append(line[2:])
        else:
            continue
        open_ = line.endswith("\\")
    return found


def transcripts(text: str) -> list[str]:
    """Returns the content of every transcript of a page."""
    return [_dedent(match[2], match[1]) for match in _BLOCK.finditer(text)]


def rewritten(text: str, folder: pathlib.Path) -> str:
    """Runs the transcripts of a page in `folder`; returns the page with what they print."""

    def again(match: re.Match[str]) -> str:
        indent, lines = match[1], []
        for command in commands(_dedent(match[2], indent)):
            lines += f"$ {command}".splitlines()
            lines += _run(command, folder)
        body = "".join(f"{indent}{line}".rstrip() + "\n" for line in lines)
        return f"{indent}```console\n{body}{indent}```"

    return _BLOCK.sub(again, text)


def _dedent(body: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))


def _run(command: str, folder: pathlib.Path) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    text = _COLOUR.sub("", done.stdout).replace(f"{folder}/", "")
    print(f"[{done.returncode}] {command.splitlines()[0]}")
    return text.rstrip().splitlines()


def _clone(folder: pathlib.Path, model: pathlib.Path) -> None:
    """Lays out what a command of the pages may name: recipes, their data, and the model."""
    shutil.copytree(DOCS.parent / "configs", folder / "configs")
    shutil.copytree(model, folder / "runs/quickstart")


def main() -> None:
    """Rewrites the pages that are named, or all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("runs/quickstart"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _clone(folder, arguments.model)
        for page in arguments.pages or sorted(DOCS.rglob("*.md")):
            text = page.read_text()
            new = rewritten(text, folder)
            if new != text:
                page.write_text(new)
                print(f"rewrote {page}")


if __name__ == "__main__":
    main()
