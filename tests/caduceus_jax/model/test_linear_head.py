import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import caduceus_jax as cj
from tests.models import classifier, randomised
from tests.tolerances import SCAN_FP32, relative_error


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Folder of a classifier with settings that are not the defaults."""
    model = classifier("max", "posthoc", num_labels=2)
    model.task = model.task.used_as(pooling="max", rc_mode="posthoc", labels=("no", "yes"))
    folder = tmp_path_factory.mktemp("tuned")
    model.save_pretrained(folder)
    return folder


def test_what_is_recorded_is_used(tuned):
    model = cj.CaduceusForSequenceClassification.from_pretrained(tuned)
    assert (model.pooling, model.rc_mode, model.labels) == ("max", "posthoc", ("no", "yes"))
    again = cj.CaduceusForSequenceClassification.from_pretrained(
        tuned, pooling="max", rc_mode="posthoc", num_labels=2, labels=["no", "yes"]
    )
    assert again.task == model.task


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pooling": "mean"}, "pooling is 'mean', but .* was trained with 'max': leave pooling"),
        ({"rc_mode": "none"}, "rc_mode is 'none', but .* was trained with 'posthoc'"),
        ({"labels": ["yes", "no"]}, r"labels is \('yes', 'no'\), but .* trained with \('no', 'yes"),
        ({"num_labels": 3}, "holds a head of 2 labels, not 3: leave num_labels out"),
    ],
    ids=str,
)
def test_another_setting_is_refused(tuned, option, message):
    with pytest.raises(cj.UserError, match=message):
        cj.CaduceusForSequenceClassification.from_pretrained(tuned, **option)


def test_a_new_head_forgets_what_was_recorded(tuned):
    model = cj.CaduceusForSequenceClassification.from_pretrained(tuned, num_labels=3, new_head=True)
    assert model.score.shape == (3, 24) and model.labels == ()
    assert (model.pooling, model.rc_mode) == ("mean", None)
    stored = cj.CaduceusForSequenceClassification.from_pretrained(tuned)
    np.testing.assert_array_equal(model.caduceus.embedding[...], stored.caduceus.embedding[...])


def test_a_kind_of_head_is_not_taken_for_the_other(tuned, tmp_path):
    with pytest.raises(cj.UserError, match="was trained for classification: load it with .*Seq"):
        cj.CaduceusForTracks.from_pretrained(tuned, bin_size=4)
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4)
    tracks = cj.CaduceusForTracks(config, num_tracks=2, bin_size=4, rngs=nnx.Rngs(0))
    tracks.save_pretrained(tmp_path)
    with pytest.raises(cj.UserError, match="was trained for tracks: load it with .*ForTracks"):
        cj.CaduceusForSequenceClassification.from_pretrained(tmp_path)
    cj.CaduceusForTracks.from_pretrained(tuned, bin_size=4, new_head=True)


def test_the_originals_own_fine_tunes_have_a_bias(golden, tmp_path):
    """Names of its SequenceLightningModule, and the head of src/tasks/decoders.py."""
    stored = load_file(golden / "ps" / "model.safetensors")
    tensors = {f"model.{k}": v for k, v in stored.items() if not k.startswith("lm_head")}
    weight = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    tensors["decoder.0.output_transform.weight"] = weight
    tensors["decoder.0.output_transform.bias"] = np.asarray([1.0, -2.0], np.float32)
    save_file(tensors, tmp_path / "last.safetensors")
    (tmp_path / "config.json").write_text((golden / "ps" / "config.json").read_text())
    model = cj.CaduceusForSequenceClassification.from_pretrained(tmp_path / "last.safetensors")
    ids = jnp.asarray(load_file(golden / "ps" / "golden.safetensors")["input_ids"], jnp.int32)
    backbone = cj.Caduceus.from_pretrained(golden / "ps")
    hidden, found = jax.jit(lambda b, m, i: (b(i).last_hidden_state, m(i).logits))(
        backbone, model, ids
    )
    one, other = np.split(np.asarray(hidden).mean(axis=1), 2, axis=-1)
    expected = (one @ weight.T + other[:, ::-1] @ weight.T) / 2 + np.asarray([1.0, -2.0])
    assert relative_error(found, expected) < SCAN_FP32
    model.save_pretrained(tmp_path / "again")
    again = cj.CaduceusForSequenceClassification.from_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(again.score_bias[...], [1.0, -2.0])


def test_signals_are_added_to_tracks_too():
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
    model = randomised(
        lambda: cj.CaduceusForTracks(
            config, num_tracks=2, bin_size=2, num_signals=3, head_bias=True, rngs=nnx.Rngs(0)
        )
    )
    ids, signals = jnp.full((1, 8), 7), jnp.ones((1, 8, 3))
    call = jax.jit(lambda m, i, s: m(i, None, s).logits)
    assert float(jnp.abs(call(model, ids, signals) - call(model, ids, 2 * signals)).max()) > 1e-3
    with pytest.raises(cj.UserError, match="signals: the model needs them"):
        model(ids)


def test_hugging_face_labels_are_kept(golden, tmp_path):
    hf = json.loads((golden / "ps_classifier" / "config.json").read_text())
    hf["id2label"] = {"0": "a", "1": "b", "2": "c"}
    (tmp_path / "config.json").write_text(json.dumps(hf))
    (tmp_path / "model.safetensors").write_bytes(
        (golden / "ps_classifier" / "model.safetensors").read_bytes()
    )
    model = cj.CaduceusForSequenceClassification.from_pretrained(tmp_path, pooling="max")
    assert model.labels == ("a", "b", "c") and model.pooling == "max"


def test_names_are_as_many_as_outputs():
    config = cj.CaduceusConfig(d_model=8, n_layer=1)
    with pytest.raises(cj.UserError, match="labels has 1 names for 2 outputs"):
        cj.CaduceusForSequenceClassification(config, labels=["a"], rngs=nnx.Rngs(0))
