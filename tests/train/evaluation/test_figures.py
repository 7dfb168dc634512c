import json

import numpy as np
import pytest

from caduceus_jax.train.evaluation.figures import draw_task
from caduceus_jax.train.evaluation.score_table import Column, Row

METRIC = {"classification": "accuracy", "multi_label": "auroc", "regression": "pearson"}
PANELS = {
    "classification": ["ROC, test", "confusion, test"],
    "multi_label": ["ROC, test"],
    "regression": ["test"],
}


def summary(folder, kind):
    """What a fine-tuning of this kind leaves: two outputs, one seed, two epochs."""
    seed = folder / "seed-1"
    seed.mkdir()
    metric = METRIC[kind]
    rows = [{"epoch": epoch, metric: 0.4 + 0.1 * epoch} for epoch in (1, 2)]
    (seed / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng = np.random.default_rng(0)
    lines = ["header"]
    for i in range(20):
        outputs = rng.normal(size=2)
        known = ["ab"[i % 2]] if kind == "classification" else [str(i % 2), str((i + 1) % 2)]
        lines.append("\t".join([f"s{i}", *known, *map(str, outputs)]))
    (seed / "predictions.tsv").write_text("\n".join(lines) + "\n")
    return {
        "kind": kind,
        "metric": metric,
        "classes": ["a", "b"],
        "seeds": [1],
        "test": {metric: {"mean": 0.6}},
        "folder": str(folder),
    }


@pytest.mark.parametrize("kind", METRIC)
def test_each_kind_of_task_has_its_panels(tmp_path, kind):
    found = draw_task([Column("m", "")], Row("t", {"m": summary(tmp_path, kind)}, {}, {}))
    titles = [axes.get_title() for axes in found.axes]
    assert titles == [f"m: validation {METRIC[kind]}", *PANELS[kind]]
    curve = found.axes[0].lines[0]
    np.testing.assert_allclose(curve.get_xydata(), [[1, 0.5], [2, 0.6]])


def test_a_score_that_is_undefined_has_no_line(tmp_path):
    made = summary(tmp_path, "classification")
    made["test"]["accuracy"]["mean"] = None
    found = draw_task([Column("m", "")], Row("t", {"m": made}, {}, {}))
    assert len(found.axes[0].lines) == 1
