import jax.numpy as jnp
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.cli.info import equivariance_error, info
from caduceus_jax.kernels import PallasTriton, default
from tests.models import classifier, language_model, randomised


def described(capsys, path):
    info(str(path))
    rows = (line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    return {key.strip(): value.strip() for key, value in rows}


def test_a_classifier_is_described(capsys, tmp_path):
    model = classifier("max", "posthoc", num_labels=2)
    model.task = model.task.used_as(pooling="max", rc_mode="posthoc", labels=("no", "yes"))
    model.save_pretrained(tmp_path)
    rows = described(capsys, tmp_path)
    assert rows["head"] == "classification: 2 labels (no, yes), max pooling, rc_mode posthoc"
    assert float(rows["|f(rc(x)) - f(x)|"].split()[0]) < 1e-5
    assert rows["tokenizer"] == "A 7, C 8, G 9, T 10; [MASK] 3, [PAD] 4"


def test_a_track_model_is_described(capsys, tmp_path):
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
    model = randomised(
        lambda: cj.CaduceusForTracks(config, num_tracks=3, bin_size=50, rngs=nnx.Rngs(0))
    )
    model.save_pretrained(tmp_path)
    rows = described(capsys, tmp_path)
    assert rows["head"] == "tracks: 3 tracks, 50 bases per bin, rc_mode none"
    assert rows["|f(rc(x)) - f(x)|"].endswith("at most, 150 random tokens")


@pytest.mark.parametrize("rcps", [True, False])
def test_the_error_of_equivariance_is_that_of_the_logits(rcps):
    model = language_model(n_layer=1, rcps=rcps)
    assert (equivariance_error(model, 32) < 1e-5) == rcps
    assert jnp.isfinite(equivariance_error(model, 32))


def test_info(run, golden):
    status, out, _ = run("info")
    assert status == 0 and f"caduceus-jax {cj.__version__}" in out and "4 cpu device(s)" in out
    assert "selective scan: chunked (fused kernels are for GPUs and TPUs)" in out
    _, out, _ = run("info", str(golden / "ps"))
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    rows = {key.strip(): value.strip() for key, value in rows.items()}
    assert rows["parameters"] == "41,728"
    assert rows["d_model x n_layer"] == "32 x 3"
    assert rows["strand swap"] == "yes, as in released checkpoints"
    assert float(rows["|f(rc(x)) - rc(f(x))|"].split()[0]) < 1e-5


def test_the_scan_of_an_accelerator_and_why(run, monkeypatch):
    why, failures = "its results and gradients were checked here in 12 s", ("triton: no driver",)
    choice = default.Choice(PallasTriton(), why, failures)
    monkeypatch.setattr(default, "choose", lambda: choice)
    _, out, _ = run("info")
    assert out.splitlines()[-2:] == [
        f"selective scan: pallas_triton ({why})",
        "  not triton: no driver",
    ]
