"""A suite of one tiny shape: what it says, writes and draws."""

import dataclasses
import json

import matplotlib.image
import pytest

from caduceus_jax.bench import check, jobs, measure, scan_page, suites
from caduceus_jax.cli.main import main
from caduceus_jax.costs import Shape
from caduceus_jax.kernels import selective_scan_with_state

RATES = {"bytes": 1e9, "exponentials": 2e9, "float32": 1e10}
TINY = suites.Suite(
    shapes=(Shape(1, 12, 8, 3),),
    checks=((Shape(2, 7, 6, 3), "float32", True),),
    implementations=("chunked", "pallas_triton"),  # which has no three states
    dtypes=("float32",),
    seconds=0.0,
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Status, folder and results of a suite, one of whose implementations always raises."""
    out = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(suites.SUITES, "smoke", TINY)
        patch.setattr(measure, "rates", lambda dtypes: RATES)
        status = main(["bench", "scan", "--suite", "smoke", "--out", str(out), "--seed", "3"])
    return status, out, json.loads((out / "scan_smoke.json").read_text())


def rows(page):
    """Cells of the rows of every table of a page of Markdown, its heads included."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_case_is_there_and_failures_harm_no_other(ran):
    status, _, results = ran
    assert status == 1  # pallas_triton has failed its check
    assert results["finished"] and results["seed"] == 3 and results["rates"] == RATES
    assert results["jax"] and results["device"] and results["command"]
    good, bad = results["checks"]
    assert good["passed"] and max(good["errors"].values()) <= 1e-5
    # y, the final state, nine gradients; of the convolution the result and three gradients
    assert len(good["errors"]) == 2 + 9 + 1 + 3
    message = "NotImplementedError: 3 states; supported: powers of two up to 128"
    assert bad["error"].startswith(message) and "passed" not in bad
    found = {(case["what"], case["implementation"], case["pass"]) for case in results["cases"]}
    assert len(found) == len(results["cases"]) == 2 * 2 * 2
    for case in results["cases"]:
        if case["implementation"] == "pallas_triton":
            assert case["error"].startswith(message) and "median_ms" not in case
            continue
        assert 0 < case["min_ms"] <= case["median_ms"] <= case["max_ms"]
        assert case["compile_ms"] > 0 and case["temporary_bytes"] >= 0
        assert case["repeats"] == 2 and 1 <= case["calls_in_flight"] <= 64
        assert (
            case["floor_ms"] == case["floors_ms"][case["bound"]] == max(case["floors_ms"].values())
        )
        assert case["floor_percent"] == pytest.approx(100 * case["floor_ms"] / case["median_ms"])


def test_floors_are_those_of_the_shape(ran):
    _, _, results = ran
    case = next(case for case in results["cases"] if case["pass"] == "forward")
    # 96 numbers in u, delta, z, y and 36 in B, C; 288 state elements.
    assert case["counts"]["bytes"] == 4 * (4 * 96 + 2 * 36)
    assert case["floors_ms"]["bytes"] == pytest.approx(1e3 * 1824 / 1e9)
    assert case["floors_ms"]["exponentials"] == pytest.approx(1e3 * (288 + 3 * 96) / 2e9)


def test_the_table_says_what_the_json_says(ran):
    _, out, results = ran
    page = (out / "scan_smoke.md").read_text()
    assert "Seed of the inputs: 3." in page and "Not finished" not in page
    assert "Measured here: 1 GB/s copied; 2.0 billion exponentials per second;" in page
    table = {tuple(row[:4]): row[4:] for row in rows(page)}
    for case in results["cases"]:
        what = f"{case['what']}, {scan_page.PASSES[case['pass']]}"
        cells = table["1 x 12 x 8 x 3", "float32", what, case["implementation"]]
        if "error" in case:
            assert cells[0] == case["error"]
            continue
        times = cells[0].replace("(", "").replace("- ", "").replace(")", "").split()
        expected = [case["median_ms"], case["min_ms"], case["max_ms"]]
        assert list(map(float, times)) == pytest.approx(expected, rel=0.01, abs=1e-4)
        assert float(cells[2].removesuffix(" %")) == pytest.approx(case["floor_percent"], abs=0.051)
    check = table["2 x 7 x 6 x 3", "float32", "right to left", "chunked"]
    assert check[1:] == ["1e-05", "passed"]
    assert table["2 x 7 x 6 x 3", "float32", "right to left", "pallas_triton"][2].startswith(
        "FAILED: NotImplemented"
    )


def test_the_picture_shows_what_was_reached_and_the_roofs(ran):
    _, out, _ = ran
    picture = matplotlib.image.imread(out / "scan_smoke.png")
    assert picture.shape[1] == 1800
    # chunked is orange, the roofs are dark grey: both in each of the four panels.
    orange = (picture[..., 0] > 0.9) & (abs(picture[..., 1] - 0.5) < 0.1) & (picture[..., 2] < 0.2)
    grey = (abs(picture[..., :3] - 0.25) < 0.02).all(axis=-1)
    height, width = orange.shape
    for colour in (orange, grey):
        for rows in (slice(0, height // 2), slice(height // 2, int(0.8 * height))):
            for columns in (slice(0, width // 2), slice(width // 2, width)):
                assert colour[rows, columns].sum() > 20


def test_wrong_results_are_caught(tmp_path, monkeypatch, capsys):
    def wrong(*, implementation, **arguments):
        y, final = selective_scan_with_state(**arguments, implementation="reference")
        return y, final * (1 if implementation == "reference" else 1 + 1e-4)

    monkeypatch.setattr(check, "selective_scan_with_state", wrong)
    monkeypatch.setattr(measure, "rates", lambda dtypes: RATES)
    monkeypatch.setattr(jobs, "cases", lambda *_: iter(()))
    only = dataclasses.replace(
        TINY,
        implementations=("chunked", "unheard_of"),
        # Of a shape of its own: JAX remembers what it has traced.
        checks=((Shape(1, 5, 3, 2), "float32", False),),
    )
    monkeypatch.setitem(suites.SUITES, "smoke", only)
    words = ["bench", "scan", "--suite", "smoke", "--out", str(tmp_path)]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert ", FAILED" in said
    assert said.splitlines()[-1] == "FAILED: an implementation does not compute what it should"
    (row,) = json.loads((tmp_path / "scan_smoke.json").read_text())["checks"]
    assert row["errors"]["final_state"] == pytest.approx(1e-4, rel=0.1)
    assert row["errors"]["y"] < 1e-5 and row["errors"]["d_z"] < 1e-5 and not row["passed"]
    assert "FAILED" in (tmp_path / "scan_smoke.md").read_text()


def test_an_interrupted_suite_keeps_what_it_has(tmp_path, monkeypatch):
    def interrupted(*_):
        yield jobs.Job("cases", about, lambda: {"error": "first"})
        yield jobs.Job("cases", about, interrupt)

    def interrupt():
        raise KeyboardInterrupt

    about = jobs._about(Shape(1, 2, 3, 4), "float32", "chunked") | {
        "what": "scan",
        "pass": "forward",
    }
    monkeypatch.setattr(measure, "rates", lambda dtypes: RATES)
    monkeypatch.setattr(jobs, "checks", lambda *_: iter(()))
    monkeypatch.setattr(jobs, "cases", interrupted)
    assert main(["bench", "scan", "--suite", "smoke", "--out", str(tmp_path)]) == 130
    results = json.loads((tmp_path / "scan_smoke.json").read_text())
    assert not results["finished"] and len(results["cases"]) == 1
    assert "Not finished" in (tmp_path / "scan_smoke.md").read_text()
    assert (tmp_path / "scan_smoke.png").is_file()
