import json

import pytest

from caduceus_jax.bench.model import model


def test_a_model(capsys):
    model(length=32, d_model=8, n_layer=1, repeats=2, forward_only=True)
    report = json.loads(capsys.readouterr().out)
    assert report["suite"] == "model"
    assert report["shape"] == {"batch": 1, "length": 32, "d_model": 8, "n_layer": 1}
    row = report["forward"]
    assert row["tokens_per_s"] == pytest.approx(32e3 / row["median_ms"])
    assert "forward_backward" not in report
    assert 0.05 < report["peak_memory_gib"] < 100
