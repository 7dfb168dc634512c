"""The original's modelling code beside exported models, for `transformers` to load them with.

`AutoModel.from_pretrained(folder, trust_remote_code=True)` runs the code that `auto_map` in
config.json names: files of the folder, or of a repository on the hub ("owner/name--file.Class").
This project does not contain that code.
"""

import json
import pathlib
import shutil
from typing import Any

from caduceus_jax.errors import UserError

# A repository of the original's authors with the code, for folders that have none of their own.
HUB = "kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16"
_CLASSES = {
    "AutoConfig": "configuration_caduceus.CaduceusConfig",
    "AutoModel": "modeling_caduceus.Caduceus",
    "AutoModelForMaskedLM": "modeling_caduceus.CaduceusForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_caduceus.CaduceusForSequenceClassification",
}
_TOKENIZER = ["tokenization_caduceus.CaduceusTokenizer", None]


def auto_map(prefix: str = f"{HUB}--") -> dict[str, str]:
    """Returns the entries of config.json about the code.

    Args:
        prefix: prefix of each file's name; empty for files in the model's own folder.
    """
    return {name: prefix + place for name, place in _CLASSES.items()}


def copy(code: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Copies the code of a model.

    Args:
        code: a folder with modeling_caduceus.py and what it imports: of a model, or a clone of the
            original's repository.
        folder: the folder of the exported model.

    Returns:
        Names of the files.

    Raises:
        UserError: the code is not there.
    """
    places = [
        place for place in (code, code / "caduceus") if (place / _file("AutoModel")).is_file()
    ]
    if not places:
        raise UserError(f"{code} has no {_file('AutoModel')}: it is not the original's code")
    files = sorted(path for path in places[0].glob("*.py") if path.name != "__init__.py")
    for path in files:
        if path.resolve() != (folder / path.name).resolve():
            shutil.copyfile(path, folder / path.name)
    return [path.name for path in files]


def described(hf: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Returns a config.json whose `auto_map` names code that is there.

    Args:
        hf: the parsed config.json.
        folder: folder of the exported model; files of the original's code in it are named, and
            entries for files that are not in it lead to the hub.
    """
    if all((folder / _file(name)).is_file() for name in _CLASSES):
        return hf | {"auto_map": auto_map("")}
    if "auto_map" not in hf:
        return hf
    return hf | {"auto_map": {k: _reachable(v, folder) for k, v in hf["auto_map"].items()}}


def describe_tokenizer(folder: pathlib.Path) -> None:
    """Makes `auto_map` of a written tokenizer_config.json name code that is there.

    Args:
        folder: the folder of the exported model.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    settings = json.loads(path.read_text(encoding="utf-8-sig"))
    before = settings.get("auto_map")
    stored = before.get("AutoTokenizer") if isinstance(before, dict) else before
    ours = (folder / "tokenization_caduceus.py").is_file() and "characters" in settings
    if ours and not stored:
        stored = _TOKENIZER
    if not stored:
        return
    classes = [
        _reachable(place, folder) for place in (stored if isinstance(stored, list) else [stored])
    ]
    if {"AutoTokenizer": classes} != before:
        settings["auto_map"] = {"AutoTokenizer": classes}
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _file(name: str) -> str:
    return _CLASSES[name].partition(".")[0] + ".py"


def _reachable(place: Any, folder: pathlib.Path) -> Any:
    """Returns the place of a class, on the hub where the folder does not hold its file."""
    if not isinstance(place, str) or "--" in place:
        return place
    return place if (folder / f"{place.partition('.')[0]}.py").is_file() else f"{HUB}--{place}"
