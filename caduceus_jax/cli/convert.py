"""`caduceus-jax convert`: any stored model as a Hugging Face folder, with a report."""

import pathlib
import re
import shutil

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint, run_checkpoint
from caduceus_jax.model import convert as weights

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def convert(source: str, *, out: pathlib.Path, force: bool = False) -> None:
    """Converts a stored model into a Hugging Face folder (config.json, model.safetensors).

    The folder loads in the original PyTorch code and here alike. Every tensor is accounted for:
    the report lists the original's names with their shapes, one line for all layers, and what they
    sum up to.

    examples:
      caduceus-jax convert runs/quickstart --out caduceus-hf
      caduceus-jax convert last.ckpt --out converted

    Args:
        source: a Hugging Face folder, a pretraining run's folder (its newest checkpoint, also while
            the run goes on) or one of its checkpoints, a Lightning .ckpt, or a hub id.
        out: the folder to write.
        force: write into a folder that is not empty.

    Raises:
        UserError: nothing usable at `source`, or `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise UserError(f"{out} is not empty: name another folder, or add --force")
    folder = pathlib.Path(source)
    if trained := run_checkpoint.find(folder):
        print(f"from {trained}")
        config, state = run_checkpoint.load_model(trained)
    else:
        config, state = checkpoint.load(source)
    checkpoint.save(out, config, state)
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file() and folder.resolve() != out.resolve():
            shutil.copyfile(folder / name, out / name)
    tensors = weights.to_torch(config, state)
    print(_report(tensors))
    print(f"wrote {out}/config.json and {out}/{checkpoint.WEIGHTS}")


def _report(tensors: dict[str, np.ndarray]) -> str:
    """One line a tensor, layers folded into one, and the totals."""
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
