import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.cli.convert import convert
from caduceus_jax.model import run_checkpoint
from caduceus_jax.model.run_checkpoint import (
    DamagedCheckpoint,
    find,
    load_model,
    verify,
    write_manifest,
)
from caduceus_jax.train.config import PretrainConfig, plain
from caduceus_jax.train.run.checkpoint import Checkpoints
from caduceus_jax.train.sharding import make_mesh
from caduceus_jax.train.step import make_program


@pytest.fixture
def complete(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "array").write_bytes(bytes(1000))
    (tmp_path / "run.json").write_text("{}")
    write_manifest(tmp_path)
    assert verify(tmp_path) is None
    return tmp_path


def test_the_manifest_names_every_file(complete):
    files = json.loads((complete / "manifest.json").read_text())["files"]
    assert set(files) == {"run.json", "state/array"}
    # SHA-256 of a thousand zeros.
    digest = "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53"
    assert files["state/array"] == {"size": 1000, "sha256": digest}


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("state/array", None, "state/array is missing"),
        ("state/array", bytes(999), "state/array has 999 bytes instead of 1,000"),
        ("state/array", bytes(999) + b"\1", "state/array has other bytes than were written"),
        ("manifest.json", None, "manifest.json is missing, so it was not finished"),
        ("manifest.json", b"", "manifest.json is not as it was written"),
        ("manifest.json", b"[]", "manifest.json is not as it was written"),
        ("manifest.json", b"\xff", "manifest.json is not as it was written"),
    ],
)
def test_damage_is_named(complete, name, content, wrong):
    if content is None:
        (complete / name).unlink()
    else:
        (complete / name).write_bytes(content)
    assert verify(complete) == wrong


def test_the_manifest_itself_is_checked(complete):
    path = complete / "manifest.json"
    path.write_text(path.read_text().replace('"size": 2', '"size": 3'))
    assert verify(complete) == "manifest.json is not as it was written"


def test_a_model_is_read_from_a_runs_checkpoints(tmp_path, capsys):
    config = PretrainConfig(model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True))
    state = jax.jit(make_program(config, make_mesh(), cj.Tokenizer()).init)()
    run = tmp_path / "run"
    with Checkpoints(run / "checkpoints", keep=2) as checkpoints:
        checkpoints.save(state, {}, plain(config))
        checkpoints.save(dataclasses.replace(state, step=state.step + 5), {}, plain(config))
    assert find(run) == run / "checkpoints" / "5"
    older = run / "checkpoints" / "0"
    assert find(older) == older and find(tmp_path) is None

    found, params = load_model(older)
    assert found == config.model
    expected = dict(nnx.to_flat_state(state.params))
    assert expected.keys() == dict(nnx.to_flat_state(params)).keys()
    for name, leaf in nnx.to_flat_state(params):
        np.testing.assert_array_equal(leaf[...], expected[name][...])

    convert(str(run), out=tmp_path / "out")
    assert capsys.readouterr().out.startswith(f"from {run / 'checkpoints' / '5'}\n")
    model = cj.CaduceusForMaskedLM.from_pretrained(str(tmp_path / "out"))
    np.testing.assert_array_equal(
        model.caduceus.embedding[...], state.params["caduceus"]["embedding"][...]
    )
    for unfinished in (run, run / "checkpoints" / "5"):
        again = cj.CaduceusForMaskedLM.from_pretrained(unfinished)
        assert again.config == config.model and again.tokenizer == cj.Tokenizer()
        np.testing.assert_array_equal(again.caduceus.embedding[...], model.caduceus.embedding[...])
    for step in (0, 5):
        (run / "checkpoints" / str(step) / run_checkpoint.MANIFEST).unlink()
    with pytest.raises(DamagedCheckpoint, match="no checkpoint in .* is intact: 5 .*, 0 "):
        find(run)
    with pytest.raises(DamagedCheckpoint, match="name another checkpoint"):
        find(older)
