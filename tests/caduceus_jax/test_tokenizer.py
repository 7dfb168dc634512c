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


def test_one_sequence_at_a_time():
    with pytest.raises(cj.UserError, match="sequence is a list; it is one str, or bytes"):
        cj.Tokenizer().encode(["ACGT"])


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


SMALL = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6}
OTHERS = ["<unk>", "<pad>", "<mask>", *"TGCANR"]
OTHER_NAMES = {"pad_token": "<pad>", "mask_token": "<mask>", "unk_token": "<unk>"}


@pytest.mark.parametrize(
    "tokenizer",
    [
        cj.Tokenizer(),
        cj.Tokenizer(SMALL),
        cj.Tokenizer({t: i for i, t in enumerate(OTHERS)}, **OTHER_NAMES),
        cj.Tokenizer(SMALL | {"A": 7, "C": 8, "G": 9, "T": 10}),
    ],
    ids=["original", "lower case", "other names", "both cases"],
)
def test_saved_and_read_it_is_the_same(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    again = cj.Tokenizer.from_pretrained(tmp_path)
    assert again == tokenizer and hash(again) == hash(tokenizer)
    np.testing.assert_array_equal(again.encode("ACGTNacgtnRX"), tokenizer.encode("ACGTNacgtnRX"))
    assert (again.pad_id, again.mask_id) == (tokenizer.pad_id, tokenizer.mask_id)


def test_a_vocabulary_may_tell_upper_from_lower_case():
    tokenizer = cj.Tokenizer(SMALL | {"A": 7, "C": 8, "G": 9, "T": 10})
    np.testing.assert_array_equal(tokenizer.encode("Aa"), [7, 3])
    assert tokenizer.decode([3, 7]) == "aA" and tokenizer.base_ids == (7, 8, 9, 10)
    np.testing.assert_array_equal(tokenizer.complement[[3, 7]], [6, 10])


def test_letters_for_several_bases_have_complements():
    letters = {letter: 3 + i for i, letter in enumerate("ACGTRYN")}
    tokenizer = cj.Tokenizer({"[PAD]": 0, "[MASK]": 1, "[UNK]": 2} | letters)
    assert tokenizer.decode(tokenizer.reverse_complement(tokenizer.encode("ARN"))) == "NYT"


def test_plain_lists_of_tokens(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[MASK]\n[UNK]\nA\nC\nG\nT\n")
    assert cj.Tokenizer.from_pretrained(tmp_path).base_ids == (3, 4, 5, 6)
    (tmp_path / "vocab.json").write_text(json.dumps(SMALL | {"n": 9}))
    assert cj.Tokenizer.from_pretrained(tmp_path).n_id == 9


def test_runs_and_files_lead_to_their_tokenizer(tmp_path, golden):
    run = tmp_path / "run"
    (run / "checkpoints" / "20").mkdir(parents=True)
    cj.Tokenizer(SMALL).save_pretrained(run / "model")
    for path in (run, run / "model", run / "checkpoints" / "20"):
        assert cj.Tokenizer.from_pretrained(path) == cj.Tokenizer(SMALL)
    weights = golden / "ps_vocabulary8" / "model.safetensors"
    assert cj.Tokenizer.from_pretrained(weights).vocab_size == 7


def test_a_model_of_another_vocabulary_gets_no_default(tmp_path, golden):
    hf = (golden / "ps_vocabulary8" / "config.json").read_text()
    (tmp_path / "config.json").write_text(hf)
    with pytest.raises(cj.UserError, match="no tokenizer files, and its vocabulary is not the"):
        cj.Tokenizer.from_pretrained(tmp_path)
    config = cj.CaduceusConfig.from_hf(json.loads(hf))
    assert cj.Tokenizer.of_config(config) is None
    assert cj.Tokenizer.of_config(cj.CaduceusConfig(rcps=True)) == cj.Tokenizer()


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
