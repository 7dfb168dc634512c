"""Executes the tutorials.

    python docs/tools/tutorials.py [NOTEBOOK ...] --model runs/quickstart [--write]

Each notebook runs in a temporary folder with the model in `runs/quickstart`, and fails with its
first cell that fails. With --write the notebooks are stored with their new output, without what
changes from run to run: times of execution and what went to standard error.
"""

import argparse
import os
import pathlib
import shutil
import tempfile
import time

import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parents[1] / "tutorials"
_SECONDS = 1200


def executed(path: pathlib.Path, model: pathlib.Path) -> nbformat.NotebookNode:
    """Returns a notebook with its output; raises what its first failing cell raises."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(model, pathlib.Path(folder) / "runs/quickstart")
        client = NotebookClient(
            notebook,
            timeout=_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
        )
        client.execute(
            env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        )
    return cleaned(notebook, folder)


def cleaned(notebook: nbformat.NotebookNode, folder: str) -> nbformat.NotebookNode:
    """Removes from a notebook what differs between two runs of it."""
    notebook.metadata = nbformat.from_dict({"kernelspec": _KERNEL, "language_info": _LANGUAGE})
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type != "code":
            continue
        kept = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in kept:
            if output.get("output_type") == "stream":
                output.text = output.text.replace(f"{folder}/", "")
        cell.outputs = kept
    return notebook


_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {"name": "python"}


def main() -> None:
    """Executes the notebooks that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("runs/quickstart"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for path in arguments.notebooks or sorted(FOLDER.glob("*.ipynb")):
        start = time.monotonic()
        notebook = executed(path, arguments.model)
        print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)
        if arguments.write:
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
