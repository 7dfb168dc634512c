"""The files of a character-level tokenizer, as `transformers` reads and writes them."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from caduceus_jax.errors import UserError
from caduceus_jax.model.files import hf_config

FULL, CONFIG, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
NAMES = (FULL, CONFIG, SPECIAL, "vocab.json", "vocab.txt")
# The first ids of the original's tokenizer, which its files do not list; characters follow.
ORIGINAL_SPECIAL = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]")
_ROLES = {
    "bos_token": "[BOS]",
    "cls_token": "[CLS]",
    "eos_token": "[SEP]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}
# What transformers writes where no length limits a tokenizer.
_NO_LIMIT = int(1e30)


class TokenizerFiles(NamedTuple):
    """Holds a tokenizer as it is stored."""

    vocabulary: dict[str, int]
    names: dict[str, str]  # "pad_token": "[PAD]" and so on, where the files tell
    texts: dict[str, str]  # content of each file, by its name


def read(folder: pathlib.Path) -> TokenizerFiles | None:
    """Reads the tokenizer of a model's folder; None where it has no tokenizer files.

    Raises:
        UserError: the tokenizer is not one token per character.
    """
    present = {name: folder / name for name in NAMES if (folder / name).is_file()}
    settings: dict[str, Any] = {}
    for name in (SPECIAL, CONFIG):
        if name in present:
            settings |= hf_config.read(present[name])
    vocabulary = _vocabulary(present, settings)
    if vocabulary is None:
        return None
    roles = {role: settings.get(role) for role in _ROLES}
    # An added token is stored as a dictionary of its properties.
    roles = {k: v.get("content") if isinstance(v, dict) else v for k, v in roles.items()}
    texts = {name: path.read_text(encoding="utf-8-sig") for name, path in present.items()}
    return TokenizerFiles(vocabulary, {k: v for k, v in roles.items() if v}, texts)


def _vocabulary(
    present: Mapping[str, pathlib.Path], settings: Mapping[str, Any]
) -> dict[str, int] | None:
    """Reads token -> id from the first file that tells."""
    if FULL in present:
        stored = hf_config.read(present[FULL])
        tokens = (stored.get("model") or {}).get("vocab")
        if not isinstance(tokens, dict):
            raise UserError(f"{present[FULL]} is not a character-level tokenizer: it has no vocab")
        added = {token["content"]: token["id"] for token in stored.get("added_tokens") or ()}
        return _per_character({**tokens, **added}, present[FULL])
    if "vocab.json" in present:
        return _per_character(hf_config.read(present["vocab.json"]), present["vocab.json"])
    if "vocab.txt" in present:
        lines = present["vocab.txt"].read_text().split()
        return _per_character({t: i for i, t in enumerate(lines)}, present["vocab.txt"])
    if characters := settings.get("characters"):
        return {token: i for i, token in enumerate((*ORIGINAL_SPECIAL, *characters))}
    return None


def _per_character(tokens: dict[str, int], path: pathlib.Path) -> dict[str, int]:
    longer = [token for token in tokens if len(token) > 1 and token[0] not in "[<"]
    if longer:
        raise UserError(
            f"{path} is not a character-level tokenizer: it has the token {longer[0]!r}, and a "
            "model here reads one token per base"
        )
    return tokens


def texts(vocabulary: Mapping[str, int], names: Mapping[str, str]) -> dict[str, str]:
    """Writes a tokenizer as files that `AutoTokenizer` loads without any code of the model.

    Args:
        vocabulary: token -> id; letters in the one case that the tokenizer reads.
        names: "pad_token": "[PAD]" and so on.

    Returns:
        The content of each file, by its name. The original's vocabulary gets the original's
        behaviour: [SEP] is appended, and padding is on the left.
    """
    special = [t for t in sorted(vocabulary, key=vocabulary.__getitem__) if len(t) > 1]
    letters = [t for t in vocabulary if len(t) == 1]
    original = [t for t, i in sorted(vocabulary.items(), key=lambda item: item[1])]
    characters = original[len(ORIGINAL_SPECIAL) :]
    is_original = tuple(original[: len(ORIGINAL_SPECIAL)]) == ORIGINAL_SPECIAL and sorted(
        vocabulary.values()
    ) == list(range(len(original)))
    roles = dict(names)
    settings: dict[str, Any] = {"model_max_length": _NO_LIMIT}
    post_processor = None
    if is_original:
        roles = _ROLES | roles
        settings |= {"characters": characters, "padding_side": "left"}
        post_processor = _appends(roles["sep_token"], vocabulary[roles["sep_token"]])
    settings |= roles | {"clean_up_tokenization_spaces": False}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    full = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token, vocabulary[token]) for token in special],
        "normalizer": _one_case(letters),
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "."},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": post_processor,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": dict(vocabulary),
            "unk_token": roles.get("unk_token", "[UNK]"),
        },
    }
    return {
        FULL: json.dumps(full, indent=2) + "\n",
        CONFIG: json.dumps(settings, indent=2, sort_keys=True) + "\n",
        SPECIAL: json.dumps(roles, indent=2, sort_keys=True) + "\n",
    }


def _added(token: str, i: int) -> dict[str, Any]:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": token, **off, "special": True}


def _one_case(letters: list[str]) -> dict[str, Any] | None:
    """Reads upper and lower case alike, unless the vocabulary tells them apart."""
    if all(letter.lower() == letter for letter in letters):
        return {"type": "Lowercase"}
    # The tokenizers library lowers letters, and has no step that raises them.
    others = [letter for letter in letters if letter.lower() not in letters]
    return {
        "type": "Sequence",
        "normalizers": [
            {"type": "Replace", "pattern": {"String": letter.lower()}, "content": letter}
            for letter in others
        ],
    }


def _appends(token: str, i: int) -> dict[str, Any]:
    """Makes a post-processor that ends each sequence with one token."""

    def ended(*sequences: str) -> list[dict[str, Any]]:
        """Returns a template that ends each sequence with [SEP]."""
        parts: list[dict[str, Any]] = []
        for sequence in sequences:
            parts.append({"Sequence": {"id": sequence, "type_id": 0}})
            parts.append({"SpecialToken": {"id": token, "type_id": 0}})
        return parts

    return {
        "type": "TemplateProcessing",
        "single": ended("A"),
        "pair": ended("A", "B"),
        "special_tokens": {token: {"id": token, "ids": [i], "tokens": [token]}},
    }
