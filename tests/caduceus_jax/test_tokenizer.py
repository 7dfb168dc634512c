import json

import numpy as np
import pytest

import caduceus_jax as cj


def test_the_originals_vocabulary():
    tokenizer = cj.Tokenizer()
    np.testing.assert_array_equal(tokenizer.encode("ACGTNacgtn"), [7, 8, 9, 10, 11] * 2)
    np.testing.assert_array_equal(tokenizer.encode("RX-*"), [6, 6, 6, 6])
    assert tokenizer.encode("ACGT").dtype == np.int32
    assert tokenizer.decode([3, 7, 11, 4]) == "[MASK]AN[PAD]"
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.unk_id, tokenizer.n_id) == (4, 3, 6, 11)
    assert tokenizer.vocab_size == 12 and tokenizer.base_ids == (7, 8, 9, 10)


def test_bytes_and_nothing():
    tokenizer = cj.Tokenizer()
    np.testing.assert_array_equal(tokenizer.encode(b"GATTACA"), [9, 7, 10, 10, 7, 8, 7])
    assert tokenizer.encode("").shape == (0,)
    np.testing.assert_array_equal(tokenizer.encode("Aé"), [7, 6])


def test_reverse_complement():
    tokenizer = cj.Tokenizer()
    assert tokenizer.decode(tokenizer.reverse_complement(tokenizer.encode("AACGN"))) == "NCGTT"
    ids = np.stack([tokenizer.encode("AACG"), tokenizer.encode("TTTT")])
    np.testing.assert_array_equal(tokenizer.reverse_complement(ids)[1], tokenizer.encode("AAAA"))
    np.testing.assert_array_equal(tokenizer.complement, cj.CaduceusConfig().complement_map[:12])


def test_another_vocabulary(golden):
    tokenizer = cj.Tokenizer.from_pretrained(golden / "ps_vocabulary8")
    np.testing.assert_array_equal(tokenizer.encode("ACGTacgtN"), [3, 4, 5, 6, 3, 4, 5, 6, 2])
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.n_id) == (0, 1, 2)
    np.testing.assert_array_equal(tokenizer.complement, [0, 1, 2, 6, 5, 4, 3])


def test_characters_of_the_originals_tokenizer_config(tmp_path):
    config = {"characters": ["A", "C", "G", "T", "N"], "model_max_length": 131072}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert cj.Tokenizer.from_pretrained(tmp_path).vocabulary == cj.Tokenizer().vocabulary


def test_a_folder_without_tokenizer_files_has_the_default(golden):
    assert cj.Tokenizer.from_pretrained(golden / "ps").vocabulary == cj.Tokenizer().vocabulary


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(cj.UserError, match="is not a folder"):
        cj.Tokenizer.from_pretrained(tmp_path / "absent")
    words = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "the": 3}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    with pytest.raises(cj.UserError, match="is not a character-level tokenizer"):
        cj.Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(cj.UserError, match=r"the vocabulary has no \[MASK\], T"):
        cj.Tokenizer({"[PAD]": 0, "[UNK]": 1, "A": 2, "C": 3, "G": 4})
    with pytest.raises(cj.UserError, match="token id 99 is not in the vocabulary of 12"):
        cj.Tokenizer().decode([99])
