"""Names of tensors as trainers and wrappers leave them, brought back to the original's."""

import re
from collections.abc import Mapping
from typing import Any

from caduceus_jax.errors import UserError

# What compilers and wrappers of single modules put in the middle of a name.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_BACKBONE = re.compile(r"(.*?)(?:caduceus\.)?backbone\.(?:embeddings|layers|norm_f)\.")
# Heads under other names than that of the original's Hugging Face class. The first is that of the
# original's own fine-tunes (src/tasks/decoders.py).
_SCORE = ("decoder.0.output_transform.", "decoder.output_transform.", "classifier.", "head.")
# Counters of metrics that the original's trainer keeps as buffers.
_IGNORED = ("torchmetrics",)
_ADAPTER = re.compile(r"\.(base_layer|lora_[AB]|lora_embedding_[AB]|modules_to_save)\.")


def canonical(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Strips what training frameworks put before the original's names.

    Args:
        tensors: name -> tensor, under any common prefix (`module.`, `model.`, `_forward_module.`,
            ...), with heads under the original's name or that of its fine-tunes.

    Returns:
        name -> tensor under the names of the original's Hugging Face classes, and the prefix that
        was stripped.

    Raises:
        UserError: the names have several prefixes, so that there are several models, or they are
            those of an adapter that is not merged.
    """
    if adapted := next((name for name in tensors if _ADAPTER.search(name)), None):
        raise UserError(
            f"the tensors are those of a model with an adapter that is not merged ({adapted}): "
            "save it after merge_and_unload(), or name the adapter's own folder"
        )
    plain = {}
    for name, tensor in tensors.items():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        if not any(ignored in name for ignored in _IGNORED):
            plain[name] = tensor
    prefixes = sorted({found[1] for name in plain if (found := _BACKBONE.match(name))})
    if len(prefixes) > 1:
        raise UserError(
            f"the tensors are those of {len(prefixes)} models, under the prefixes "
            f"{', '.join(map(repr, prefixes))}: keep one of them"
        )
    prefix = prefixes[0] if prefixes else ""
    stripped = {_renamed(_without(prefix, name)): tensor for name, tensor in plain.items()}
    if "score.weight" not in stripped:
        for head in _SCORE:
            if f"{head}weight" in stripped:
                for kind in ("weight", "bias"):
                    if f"{head}{kind}" in stripped:
                        stripped[f"score.{kind}"] = stripped.pop(f"{head}{kind}")
                break
    return stripped, prefix


def _without(prefix: str, name: str) -> str:
    """Strips a prefix, or as much of its beginning as the name has: a head's is often shorter."""
    while prefix and not name.startswith(prefix):
        prefix = prefix[: prefix.rfind(".", 0, -1) + 1]
    return name.removeprefix(prefix)


def _renamed(name: str) -> str:
    return "caduceus." + name if name.startswith("backbone.") else name
