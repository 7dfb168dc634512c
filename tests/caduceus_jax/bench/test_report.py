import json

import pytest

from caduceus_jax.bench import report


@pytest.mark.parametrize(
    ("x", "text"),
    [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123")],
)
def test_numbers_have_three_digits(x, text):
    assert report.number(x) == text


def test_shapes_and_spreads():
    assert report.size({"batch": 1, "length": 131_072}) == "1 x 131,072"
    row = {"median_ms": 1.25, "min_ms": 1.24, "max_ms": 1.31}
    assert report.spread(row) == "1.25 (1.24 - 1.31)"


def test_every_addition_is_on_disk_at_once(tmp_path, capsys):
    page = lambda results: f"{len(results['cases'])} cases\n"  # noqa: E731
    found = report.Report(tmp_path / "new" / "scan", {"seed": 3}, page)
    for i in (1, 2):
        found.add("cases", {"n": i}, f"case {i}")
        stored = json.loads((tmp_path / "new" / "scan.json").read_text())
        assert len(stored["cases"]) == i and stored["seed"] == 3 and not stored["finished"]
        assert (tmp_path / "new" / "scan.md").read_text() == f"{i} cases\n"
    assert capsys.readouterr().out == "case 1\ncase 2\n"


def test_a_page_says_whether_it_is_finished():
    head = dict.fromkeys(("device", "driver", "jax", "python", "caduceus_jax", "began"), "x")
    results = {**head, "title": "T", "command": "caduceus-jax bench", "finished": False}
    assert report.title(results)[0] == "# T"
    assert any("Not finished" in line for line in report.title(results))
    assert not any("Not finished" in line for line in report.title(results | {"finished": True}))
