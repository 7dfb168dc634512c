import json

import pytest

import caduceus_jax as cj
from caduceus_jax.model.files import hf_config


@pytest.mark.parametrize(
    ("key", "spelt", "value"),
    [
        ("d_model", "32", 32),
        ("d_model", 32.0, 32),
        ("norm_epsilon", "1e-05", 1e-5),
        ("norm_epsilon", 1, 1),
        ("rcps", "true", True),
        ("rcps", 0, False),
        ("rms_norm", "False", False),
        ("pad_token_id", None, None),
    ],
)
def test_values_get_the_type_of_their_key(key, spelt, value):
    found = hf_config.normalised({key: spelt})[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        ({"d_model": "wide"}, "d_model in the config is 'wide'; it is an integer"),
        ({"d_model": 2.5}, "d_model in the config is 2.5; it is an integer"),
        ({"n_layer": True}, "n_layer in the config is True; it is an integer"),
        ({"rcps": "yes"}, "rcps in the config is 'yes'; it is true or false"),
        ({"norm_epsilon": [1]}, r"norm_epsilon in the config is \[1\]; it is a number"),
        ({"ssm_cfg": "auto"}, "ssm_cfg in the config is 'auto'; it is a dictionary or null"),
        ({"ssm_cfg": {"d_state": "x"}}, "d_state in the config is 'x'; it is an integer"),
        ({"ssm_cfg": {"d_sate": 8}}, "unknown key 'd_sate'; did you mean 'd_state'"),
        ({"bidirectional_startegy": "add"}, "did you mean 'bidirectional_strategy'"),
        ({"rcsp": True}, "the unknown key 'rcsp'; did you mean 'rcps'"),
        ({"initializer_cfg": {"initializer_rnge": 1}}, "did you mean 'initializer_range'"),
        ({"complement_map": {"A": "T"}}, "pairs other things than token ids"),
        ({"complement_map": {"0": 0, "2": 2}}, "skips a token id"),
        ([1, 2], r"the config is \[1, 2\], not a dictionary"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(hf, message):
    with pytest.raises(cj.UserError, match=message):
        hf_config.normalised(hf)


def test_keys_of_hugging_face_are_not_taken_for_misspelt():
    hf = {"bos_token_id": 1, "type_vocab_size": 2, "use_cache": True, "tie_encoder_decoder": False}
    assert hf_config.normalised(hf) == hf


def test_a_key_beside_its_right_spelling_is_harmless():
    hf = {"n_layer": 3, "n_layr": 4, "rcps": True}
    assert hf_config.normalised(hf) == hf


def test_names_of_other_libraries_count(caplog):
    found = hf_config.normalised({"hidden_size": "64", "num_hidden_layers": 2})
    assert (found["d_model"], found["n_layer"]) == (64, 2)
    assert "the config has no d_model: its hidden_size is used" in caplog.text


def test_a_setting_of_the_mixer_at_the_top_is_said_to_be_ignored(caplog):
    hf_config.normalised({"d_state": 8})
    assert "d_state is ignored" in caplog.text and "belongs in ssm_cfg" in caplog.text


def test_complements_are_ordered_and_may_be_a_list():
    texts = {str(i): i for i in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)}
    assert list(hf_config.normalised({"complement_map": texts})["complement_map"])[2] == "2"
    assert hf_config.normalised({"complement_map": [1, 0]})["complement_map"] == {"0": 1, "1": 0}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_files_of_every_encoding(tmp_path, encoding):
    hf = {"d_model": 8, "id2label": {"0": "réseau"}}
    (tmp_path / "config.json").write_bytes(json.dumps(hf, ensure_ascii=False).encode(encoding))
    assert hf_config.read(tmp_path / "config.json") == hf


@pytest.mark.parametrize("name", ["ps", "ps_vocabulary8", "ph_classifier_conjoin"])
def test_the_text_is_that_of_the_original(golden, name):
    text = (golden / name / "config.json").read_text()
    assert hf_config.text(json.loads(text)) == text
    shuffled = dict(sorted(json.loads(text).items(), reverse=True))
    shuffled["complement_map"] = dict(sorted(shuffled["complement_map"].items()))
    assert hf_config.text(shuffled) == text


def test_many_labels_are_in_the_order_of_their_numbers():
    labels = {str(i): f"LABEL_{i}" for i in range(12)}
    assert list(json.loads(hf_config.text({"id2label": labels}))["id2label"]) == list(labels)
