import json
import re

import matplotlib.figure
import pytest

from caduceus_jax.train.evaluation.report import Picture, Report, markdown, write_report


@pytest.fixture
def report():
    figure = matplotlib.figure.Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2], [3, 4])
    table = [["task", "score"], ["a<b", "0.5"], ["c|d", "undefined"]]
    return Report("Scores", "All & more.", table, 1, [Picture("a<b", "a picture", figure)])


def test_the_three_files_say_the_same(report, tmp_path):
    paths = write_report(tmp_path / "new", report, {"a": float("nan"), "b": [0.5]})
    assert [path.name for path in paths] == ["report.html", "report.md", "results.json"]
    page, text, results = (path.read_text() for path in paths)
    assert "All &amp; more." in page and "<td class=text>a&lt;b</td><td>0.5</td>" in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert re.search(r"caduceus-jax \d\S*, \d{4}-\d\d-\d\d \d\d:\d\d UTC", page)
    assert text.splitlines() == markdown(report)
    assert markdown(report)[4:] == [
        "| task | score |",
        "| --- | ---: |",
        "| a<b | 0.5 |",
        r"| c\|d | undefined |",
    ]
    assert json.loads(results) == {"a": None, "b": [0.5]}
