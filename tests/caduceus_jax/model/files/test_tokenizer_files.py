import json

import pytest

import caduceus_jax as cj
from caduceus_jax.model.files import tokenizer_files


def test_the_originals_tokenizer_is_written_with_its_behaviour(tmp_path):
    cj.Tokenizer().save_pretrained(tmp_path)
    full = json.loads((tmp_path / "tokenizer.json").read_text())
    assert full["model"]["vocab"]["A"] == 7 and full["model"]["unk_token"] == "[UNK]"
    # Lower case is read as upper case, and [SEP] ends each sequence, as the original does it.
    assert {"type": "Replace", "pattern": {"String": "a"}, "content": "A"} in full["normalizer"][
        "normalizers"
    ]
    assert full["post_processor"]["special_tokens"]["[SEP]"]["ids"] == [1]
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["characters"] == ["A", "C", "G", "T", "N"]
    assert settings["padding_side"] == "left" and settings["pad_token"] == "[PAD]"


def test_a_lower_case_vocabulary_lowers_letters():
    names = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    small = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6}
    full = json.loads(tokenizer_files.texts(small, names)["tokenizer.json"])
    assert full["normalizer"] == {"type": "Lowercase"} and full["post_processor"] is None


def test_names_of_special_tokens_may_be_dictionaries(tmp_path):
    (tmp_path / "vocab.txt").write_text("<p> <m> <u> A C G T")
    special = {"pad_token": {"content": "<p>"}, "mask_token": "<m>", "unk_token": "<u>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    found = tokenizer_files.read(tmp_path)
    assert found.names == {"pad_token": "<p>", "mask_token": "<m>", "unk_token": "<u>"}
    assert cj.Tokenizer.from_pretrained(tmp_path).pad_id == 0


def test_tokens_added_to_a_tokenizer_count(tmp_path):
    vocab = {"[PAD]": 0, "[UNK]": 1, "A": 2, "C": 3, "G": 4, "T": 5}
    added = [{"id": 6, "content": "[MASK]"}]
    stored = {"model": {"vocab": vocab}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    assert cj.Tokenizer.from_pretrained(tmp_path).mask_id == 6


def test_no_files_are_nothing(tmp_path):
    assert tokenizer_files.read(tmp_path) is None


def test_tokens_of_several_letters_are_refused(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"[PAD]": 0, "AAC": 1}))
    with pytest.raises(cj.UserError, match="it has the token 'AAC', and a model here reads one"):
        tokenizer_files.read(tmp_path)
