"""The meaning of a fine-tuned model's outputs, as its `config.json` records it."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, Self

from caduceus_jax.model.files import hf_config

KEY = "caduceus_jax_task"  # of the description in config.json
Kind = Literal["classification", "multi_label", "regression", "tracks"]
Pooling = Literal["mean", "max", "first", "last"]
RcMode = Literal["none", "posthoc"]

_PROBLEM_TYPES: dict[Kind, str] = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
    "tracks": "regression",
}
# What config.json says by other keys.
_ELSEWHERE = ("kind", "labels")


@dataclasses.dataclass(frozen=True)
class TaskDescription:
    """Describes how a fine-tuned model is used, and what its outputs stand for.

    Args:
        kind: "classification" (one label per sequence), "multi_label" (any number of them),
            "regression" (values) or "tracks" (values along the sequence).
        max_length: bases of the longest sequence it was trained on; None where it is not known.
        pooling: reduction of a sequence's states to one: "mean", "max", "first" or "last".
        rc_mode: "posthoc" where a model that is not equivariant reads both strands; None where it
            reads one, or is equivariant.
        padded: shorter sequences are completed on the left with tokens that the model reads, as in
            the original; otherwise padding changes nothing.
        centre: value that an output of 0 stands for, one number per output; of values only.
        scale: size of a step of 1 in an output, one number per output; of values only.
        bin_size: bases per bin; of tracks only.
        labels: names of the classes, values or tracks, in the order of the outputs; empty where
            they have none.
    """

    kind: Kind = "classification"
    max_length: int | None = None
    pooling: Pooling = "mean"
    rc_mode: Literal["posthoc"] | None = None
    padded: bool = False
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    bin_size: int = 1
    labels: tuple[str, ...] = ()

    @classmethod
    def recorded(cls, hf: dict[str, Any] | None) -> "TaskDescription | None":
        """Reads the description that this project wrote; None where there is none.

        Args:
            hf: the parsed `config.json`.
        """
        if not hf or not isinstance(hf.get(KEY), dict):
            return None
        known = {field.name for field in dataclasses.fields(cls)} - {"labels"}
        fields = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in hf[KEY].items()
            if name in known
        }
        return cls(**{"kind": _kind(hf), **fields, "labels": _labels(hf)})

    @classmethod
    def of(cls, hf: dict[str, Any] | None) -> "TaskDescription":
        """Reads the description, or what Hugging Face's own keys tell of a classifier.

        Args:
            hf: the parsed `config.json`.
        """
        return cls.recorded(hf) or cls(kind=_kind(hf or {}), labels=_labels(hf or {}))

    def used_as(self, *, rc_mode: RcMode | None, labels: Sequence[str], **settings: Any) -> Self:
        """Returns the description with the settings that a model is made with.

        Args:
            rc_mode: "posthoc", or "none" and None for a model that reads one strand.
            labels: names of the outputs.
            **settings: other fields.
        """
        mode: Any = None if rc_mode == "none" else rc_mode
        return dataclasses.replace(self, rc_mode=mode, labels=tuple(labels), **settings)

    def in_hf(self, hf: dict[str, Any], outputs: int) -> dict[str, Any]:
        """Returns a `config.json` with this description in it.

        Args:
            hf: the parsed `config.json` without it.
            outputs: number of outputs of the model.
        """
        hf = {key: value for key, value in hf.items() if key != KEY}
        if self.labels != _labels(hf) or len(hf.get("id2label") or ()) != outputs:
            names = self.labels or tuple(f"LABEL_{i}" for i in range(outputs))
            hf["id2label"] = {str(i): name for i, name in enumerate(names)}
            hf["label2id"] = {name: i for i, name in enumerate(names)}
        fields = dataclasses.asdict(self)
        plain = dataclasses.asdict(TaskDescription())
        if any(fields[key] != plain[key] for key in fields if key not in _ELSEWHERE):
            del fields["labels"]
            hf[KEY] = json.loads(json.dumps(fields))
        if KEY in hf or _kind(hf) != self.kind:
            hf["problem_type"] = _PROBLEM_TYPES[self.kind]
        return hf

    def write(self, folder: pathlib.Path, names: Sequence[str]) -> None:
        """Adds this, and the names of classes or values, to the config.json of a folder.

        Args:
            folder: a saved model's.
            names: one per output.
        """
        path = folder / "config.json"
        task = dataclasses.replace(self, labels=tuple(names))
        path.write_text(hf_config.text(task.in_hf(hf_config.read(path), len(names))))


def _kind(hf: dict[str, Any]) -> Kind:
    """Chooses the kind as Hugging Face's models choose their loss."""
    for kind, problem_type in _PROBLEM_TYPES.items():
        if hf.get("problem_type") == problem_type:
            return kind
    count = len(hf.get("id2label") or ()) or hf.get("num_labels")
    return "regression" if count == 1 else "classification"


def _labels(hf: dict[str, Any]) -> tuple[str, ...]:
    """Reads the names in the order of the outputs; none where they only count."""
    stored = hf.get("id2label")
    if not isinstance(stored, dict) or not all(str(i).isdecimal() for i in stored):
        return ()
    names = tuple(str(stored[i]) for i in sorted(stored, key=int))
    return () if names == tuple(f"LABEL_{i}" for i in range(len(names))) else names
