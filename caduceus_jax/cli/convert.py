"""`caduceus-jax convert`: any stored model as a Hugging Face folder, with a report."""

import logging
import pathlib
import re

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint, run_checkpoint
from caduceus_jax.model import convert as weights

log = logging.getLogger(__name__)


def convert(
    source: str,
    *,
    out: pathlib.Path,
    base: str | None = None,
    code: pathlib.Path | None = None,
    force: bool = False,
) -> None:
    """Converts a stored model into a Hugging Face folder (config.json, model.safetensors).

    The folder loads in the original PyTorch code and here alike. Every tensor is accounted for:
    the report lists the original's names with their shapes, one line for all layers, and what they
    sum up to.

    examples:
      caduceus-jax convert runs/quickstart --out caduceus-hf
      caduceus-jax convert last.ckpt --out converted

    Args:
        source: a Hugging Face folder, a pretraining run's folder (its newest checkpoint, also while
            the run goes on) or one of its checkpoints, a Lightning .ckpt or another file of
            weights, a folder with a LoRA adapter of the PEFT library, a hub id, or a short name.
        out: the folder to write.
        base: the model that a low-rank adapter (PEFT's LoRA) is merged into; by default the one
            that its adapter_config.json names.
        code: folder with the original's modelling code (a clone of its repository), which is
            copied, so that AutoModel of transformers loads the folder without a network.
        force: write into a folder that is not empty.

    Raises:
        UserError: nothing usable at `source`, or `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise UserError(f"{out} is not empty: name another folder, or add --force")
    source_folder = pathlib.Path(source)
    if trained := run_checkpoint.find(source_folder):
        print(f"from {trained}")
        stored = checkpoint.open_model(trained)
    else:
        stored = checkpoint.open_model(source, base=base)
    # The code that the source's auto_map names comes along.
    beside = stored.folder is not None and (stored.folder / "modeling_caduceus.py").is_file()
    checkpoint.save(
        out,
        stored.config,
        stored.state,
        tokenizer=stored.tokenizer,
        task=stored.task,
        code=code or (stored.folder if beside else None),
    )
    print(_report(weights.to_torch(stored.config, stored.state)))
    if stored.tokenizer is None:
        log.warning(
            "%s has no tokenizer, and its vocabulary is not the original's: copy tokenizer.json "
            "of the model that it came from to %s",
            source,
            out,
        )
    print(f"wrote {out}/config.json and {out}/{checkpoint.WEIGHTS}")


def _report(tensors: dict[str, np.ndarray]) -> str:
    """Writes one line per tensor, layers folded into one, and the totals."""
    layers: dict[tuple[str, tuple[int, ...]], int] = {}
    for name, tensor in tensors.items():
        key = re.sub(r"\.layers\.\d+\.", ".layers.*.", name), tensor.shape
        layers[key] = layers.get(key, 0) + 1
    rows = [
        (name, " x ".join(map(str, shape)), f"in {count} layers" if count > 1 else "")
        for (name, shape), count in layers.items()
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:{width}}  {shape:>12} {count}".rstrip() for name, shape, count in rows]
    parameters = sum(tensor.size for tensor in tensors.values())
    return "\n".join([*lines, f"{len(tensors)} tensors, {parameters:,} parameters"])
