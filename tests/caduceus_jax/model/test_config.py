import dataclasses
import json

import pytest

import caduceus_jax as cj


def hf(golden, name="ps"):
    return json.loads((golden / name / "config.json").read_text())


def test_defaults_are_the_originals_vocabulary():
    config = cj.CaduceusConfig(d_model=256, n_layer=16, rcps=True)
    assert config.vocab_size == 16 and config.pad_token_id == 4
    assert config.complement_map[7:12] == (10, 9, 8, 7, 11)
    assert config.bidirectional and config.bidirectional_weight_tie and config.rms_norm
    assert not config.strand_swap
    assert (config.d_inner, config.delta_rank, config.strands) == (512, 16, 2)
    assert dataclasses.replace(config, d_model=118).delta_rank == 8
    assert dataclasses.replace(config, dt_rank=3).delta_rank == 3
    hash(config)


@pytest.mark.parametrize("name", ["ps", "ps_vocabulary8", "ph", "ph_classifier_conjoin"])
def test_from_hf_and_back_changes_nothing(golden, name):
    assert cj.CaduceusConfig.from_hf(hf(golden, name)).to_hf() == hf(golden, name)


def test_a_changed_field_is_changed_in_the_hf_config_alone(golden):
    config = dataclasses.replace(cj.CaduceusConfig.from_hf(hf(golden)), n_layer=5, dt_rank=7)
    changed = config.to_hf()
    expected = hf(golden) | {"n_layer": 5}
    expected["ssm_cfg"]["dt_rank"] = 7
    assert changed == expected
    assert cj.CaduceusConfig.from_hf(changed).delta_rank == 7


def test_a_new_config_survives_the_hf_form():
    config = cj.CaduceusConfig(
        d_model=24, n_layer=2, rcps=True, d_conv=3, bias=True, bidirectional_strategy="ew_multiply"
    )
    again = cj.CaduceusConfig.from_hf(json.loads(json.dumps(config.to_hf())))
    assert again == config and hash(again) == hash(config)


def test_missing_keys_have_the_originals_defaults():
    config = cj.CaduceusConfig.from_hf({"d_model": 32, "n_layer": 2, "vocab_size": 12})
    assert config.fused_add_norm and config.residual_in_fp32 and not config.rcps
    assert config.vocab_size == 16 and config.complement_map[7] == 10
    assert (config.d_state, config.d_conv, config.expand, config.delta_rank) == (16, 4, 2, 2)


def test_rows_that_pad_the_vocabulary_are_their_own_complement():
    config = cj.CaduceusConfig(
        vocab_size=12,
        pad_vocab_size_multiple=32,
        complement_map=tuple([*range(7), 10, 9, 8, 7, 11]),
    )
    assert config.vocab_size == 32
    assert config.complement_map == (*range(7), 10, 9, 8, 7, *range(11, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ssm_cfg": {"d_sate": 8}}, "unknown key 'd_sate'; did you mean 'd_state'"),
        ({"complement_map": None}, "rcps: true and no complement_map"),
        ({"complement_map": {str(i): (i + 1) % 16 for i in range(16)}}, "must pair the 16"),
        ({"complement_map": {"0": 0, "2": 2}}, "skips a token id"),
        ({"bidirectional_strategy": "concat"}, "it is 'add' or 'ew_multiply'"),
        ({"ssm_cfg": {"dt_rank": "large"}}, "it is 'auto' or a positive integer"),
        ({"d_model": 0}, "must be at least 1"),
    ],
)
def test_impossible_configs_are_refused(golden, change, message):
    with pytest.raises(cj.UserError, match=message):
        cj.CaduceusConfig.from_hf(hf(golden) | change)


def test_another_models_config_is_refused():
    with pytest.raises(cj.UserError, match="no d_model and no n_layer"):
        cj.CaduceusConfig.from_hf({"model_type": "bert", "vocab_size": 30522})
