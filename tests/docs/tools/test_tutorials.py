"""Tutorials are executed in a folder of their own, and stored without what differs between runs."""

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install -e '.[docs]'")
pytest.importorskip("nbclient", reason="needs nbclient: pip install -e '.[docs]'")
from docs.tools import tutorials  # noqa: E402


def _stored(path, *sources):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def model(tmp_path):
    """A folder that stands for a model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    return tmp_path / "model"


def test_a_notebook_is_executed_with_the_model_in_runs(tmp_path, model):
    pytest.importorskip("ipykernel")
    first = "import sys, pathlib; print(pathlib.Path('runs/quickstart/config.json').resolve())"
    path = _stored(tmp_path / "a.ipynb", first, "print('noise', file=sys.stderr); 6 * 7")
    done = tutorials.executed(path, model)
    shown, result = done.cells[0].outputs, done.cells[1].outputs
    assert shown[0].text == "runs/quickstart/config.json\n"  # not where this run was
    assert len(result) == 1 and result[0].data["text/plain"] == "42"
    assert all(cell.metadata == {} for cell in done.cells)
    assert not nbformat.read(path, as_version=4).cells[0].outputs  # the file is as it was


def test_every_tutorial_is_stored_with_output_and_explains_itself():
    paths = sorted(tutorials.FOLDER.glob("*.ipynb"))
    assert len(paths) == 4
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        kinds = [cell.cell_type for cell in notebook.cells]
        assert kinds[0] == "markdown" and kinds.count("markdown") >= 0.8 * kinds.count("code")
        last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
        assert last.outputs, f"{path.name}: run python docs/tools/tutorials.py --write"
