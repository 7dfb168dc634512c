"""The Hugging Face `config.json` of a Caduceus model: its keys, their types, and its text."""

import difflib
import json
import logging
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from caduceus_jax.errors import UserError

log = logging.getLogger(__name__)

# Type of each key, in the three groups that the original keeps them in. "rank" is "auto" or int.
TOP = {
    "d_model": "int",
    "n_layer": "int",
    "vocab_size": "int",
    "pad_vocab_size_multiple": "int",
    "pad_token_id": "int",
    "rcps": "bool",
    "bidirectional": "bool",
    "bidirectional_strategy": "str",
    "bidirectional_weight_tie": "bool",
    "rms_norm": "bool",
    "norm_epsilon": "float",
    "fused_add_norm": "bool",
    "residual_in_fp32": "bool",
    "tie_word_embeddings": "bool",
}
SSM = {
    "d_state": "int",
    "d_conv": "int",
    "expand": "int",
    "dt_rank": "rank",
    "dt_min": "float",
    "dt_max": "float",
    "dt_init": "str",
    "dt_scale": "float",
    "dt_init_floor": "float",
    "conv_bias": "bool",
    "bias": "bool",
}
INITIALIZER = {
    "initializer_range": "float",
    "rescale_prenorm_residual": "bool",
    "n_residuals_per_layer": "int",
}
# What Mamba's constructor takes beside these; nothing of it changes what a model computes.
_IGNORED_SSM = ("use_fast_path", "layer_idx", "device", "dtype")
# What other libraries call the same thing.
_RENAMED = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layer",
    "n_layers": "n_layer",
    "num_layers": "n_layer",
    "layer_norm_epsilon": "norm_epsilon",
    "rms_norm_eps": "norm_epsilon",
    "norm_eps": "norm_epsilon",
}
# Names that Hugging Face itself uses, close to ours and yet other things.
_NOT_MISSPELT = ("_token_id", "_vocab_size", "initializer_range", "initializer_factor")
_TYPE_NAMES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "rank": "'auto' or a positive integer",
}


def normalised(hf: Any) -> dict[str, Any]:
    """Checks a parsed `config.json` and gives every value its type.

    Args:
        hf: the parsed file. "32", "true" and "1e-05" count as the values they spell; a key that
            other libraries use for the same thing (`hidden_size`) counts as the original's.

    Returns:
        A copy in which every architecture key that is set has its name and type, and
        `complement_map` is a dictionary from token id to token id. Other keys are as they were.

    Raises:
        UserError: not a dictionary, a value of another type, an unknown key of `ssm_cfg`, or a key
            that can only be a misspelling of one that is missing.
    """
    if not isinstance(hf, dict):
        raise UserError(f"the config is {_shown(hf)}, not a dictionary: it is not a config.json")
    hf = dict(hf)
    for theirs, ours in _RENAMED.items():
        if hf.get(theirs) is not None and hf.get(ours) is None:
            log.warning("the config has no %s: its %s is used", ours, theirs)
            hf[ours] = hf[theirs]
    _refuse_misspelt(hf, [*TOP, "ssm_cfg", "initializer_cfg", "complement_map"])
    for key, kind in TOP.items():
        if hf.get(key) is not None:
            hf[key] = _typed(key, hf[key], kind)
    for group, kinds in (("ssm_cfg", SSM), ("initializer_cfg", INITIALIZER)):
        if hf.get(group) is not None:
            hf[group] = _typed_group(group, hf[group], kinds)
    if hf.get("complement_map") is not None:
        hf["complement_map"] = _complement_map(hf["complement_map"])
    for key in SSM.keys() & hf.keys():
        log.warning("the config's %s is ignored, as in the original: it belongs in ssm_cfg", key)
    return hf


def text(hf: dict[str, Any]) -> str:
    """Formats a `config.json` as the original's `save_pretrained` does.

    Keys are sorted, and those that are numbers by their value: the original builds its table of
    complements from the values of `complement_map` in the order of the file.

    >>> print(text({"rcps": True, "complement_map": {"10": 7, "7": 10}}), end="")
    {
      "complement_map": {
        "7": 10,
        "10": 7
      },
      "rcps": true
    }
    """
    return json.dumps(_sorted(hf), indent=2) + "\n"


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Parses a JSON file, whether or not it begins with a byte order mark.

    Args:
        path: the file. A file that is not UTF-8 is read as Latin-1, with a warning.

    Raises:
        UserError: the file is not JSON; the message names the line.
    """
    path = pathlib.Path(path)
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        decoded = content.decode(encoding)
    except UnicodeDecodeError:
        log.warning("%s is not UTF-8: it is read as Latin-1", path)
        decoded = content.decode("latin-1")
    try:
        return json.loads(decoded)
    except json.JSONDecodeError as error:
        what = "a Git LFS pointer, not its content: run git lfs pull"
        if not decoded.startswith("version https://git-lfs"):
            what = f"not JSON ({error.msg})"
        raise UserError(f"{path}, line {error.lineno}: {what}") from None


def _refuse_misspelt(hf: dict[str, Any], known: Iterable[str]) -> None:
    """Refuses a key close to a missing one, which would stay at its default without a word."""
    absent = [key for key in known if key not in hf]
    for key in hf.keys() - set(known) - set(_RENAMED) - set(SSM):
        if str(key).endswith(_NOT_MISSPELT):
            continue
        if near := difflib.get_close_matches(str(key), absent, n=1, cutoff=0.75):
            raise UserError(f"the config has the unknown key {key!r}; did you mean {near[0]!r}?")


def _typed_group(group: str, values: Any, kinds: dict[str, str]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{group} in the config is {_shown(values)}; it is a dictionary or null")
    unknown = sorted(set(values) - set(kinds) - set(_IGNORED_SSM)) if group == "ssm_cfg" else []
    if unknown:
        near = difflib.get_close_matches(unknown[0], kinds, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(kinds)}"
        raise UserError(f"{group} has the unknown key {unknown[0]!r}{hint}")
    if group == "initializer_cfg":
        _refuse_misspelt(values, kinds)
    return {
        key: _typed(key, value, kinds[key]) if key in kinds and value is not None else value
        for key, value in values.items()
    }


def _typed(key: str, value: Any, kind: str) -> Any:
    """Returns the value as the type that the key has."""
    number = _number(value)
    if isinstance(value, str) and (kind == "str" or (kind == "rank" and number is None)):
        return value
    if kind == "bool":
        spelt = {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())
        if spelt is not None:
            return spelt
    if kind == "float" and number is not None:
        return number if isinstance(value, str) else value
    if kind in ("int", "rank") and number is not None and number.is_integer():
        return int(number)
    raise UserError(f"{key} in the config is {_shown(value)}; it is {_TYPE_NAMES[kind]}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _complement_map(value: Any) -> dict[str, int]:
    """Returns the pairs in the order of the token ids, under their names in JSON."""
    pairs = enumerate(value) if isinstance(value, list) else getattr(value, "items", tuple)()
    try:
        ids = {int(token): int(other) for token, other in pairs}
    except (TypeError, ValueError):
        raise UserError(
            "complement_map in the config pairs other things than token ids: it maps the id of "
            'each token to that of its complement, such as {"7": 10, "10": 7}'
        ) from None
    if sorted(ids) != list(range(len(ids))):
        raise UserError("complement_map in the config skips a token id")
    return {str(token): ids[token] for token in range(len(ids))}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        numbers = all(str(key).isdecimal() for key in value)
        return {key: _sorted(value[key]) for key in sorted(value, key=int if numbers else str)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
