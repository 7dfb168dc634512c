from caduceus_jax.train.evaluation.score_table import Column, Row, score_table


def cell(mean, spread):
    return {
        "metric": "auroc",
        "training": 1200,
        "testing": 30,
        "test": {"auroc": {"mean": mean, "range": spread}},
    }


def test_a_cell_for_every_model_baseline_and_published_score():
    columns = [Column("a", "runs/a"), Column("scratch", "")]
    rows = [
        Row(
            "one",
            {"a": cell(0.75, 0.5), "scratch": cell(None, None)},
            {"linear": {"auroc": 0.6}},
            {},
        ),
        Row("two", {"a": cell(1.0, 0.0), "scratch": cell(0.5, 0.1)}, {}, {"CNN": (0.8, None)}),
    ]
    assert score_table(columns, rows) == [
        ["task", "score", "train / test", "a", "scratch", "linear", "CNN (published)"],
        ["one", "auroc", "1,200 / 30", "0.750 ± 0.500", "undefined", "0.600", ""],
        ["two", "auroc", "1,200 / 30", "1.000 ± 0.000", "0.500 ± 0.100", "", "0.800"],
    ]
