"""`caduceus-jax info`: what is installed, and what a model is."""

import importlib.metadata
import platform

import jax
import jax.numpy as jnp
import numpy as np

from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "pysam", "polars")


def info(model: str | None = None) -> None:
    """Describes this installation and its devices, or a model.

    With a model it names the architecture, counts the parameters, and measures on random sequence
    how far the model's answers on the reverse complement are from those on the sequence.

    examples:
      caduceus-jax info
      caduceus-jax info runs/quickstart

    Args:
        model: a model's folder, a Lightning .ckpt, or a hub id.
    """
    print(_installation() if model is None else _describe(model))


def equivariance_error(model: CaduceusForMaskedLM, length: int = 128) -> float:
    """Largest |f(rc(x)) - rc(f(x))| of the logits on random tokens; rounding for Caduceus-PS.

    Args:
        model: any masked language model.
        length: tokens of the random sequence.
    """
    complement = np.asarray(model.config.complement_map)
    ids = np.random.default_rng(0).integers(0, len(complement), (1, length), dtype=np.int32)
    logits = jax.jit(lambda model, ids: model(ids).logits)
    forward = logits(model, jnp.asarray(ids))
    backward = logits(model, jnp.asarray(complement[ids][:, ::-1].astype(np.int32)))
    return float(jnp.abs(backward[:, ::-1][..., complement] - forward).max())


def _installation() -> str:
    lines = [f"caduceus-jax {__version__}, Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        lines.append(f"  {package:17} {version}")
    devices = jax.devices()
    lines.append(f"{len(devices)} {devices[0].platform} device(s): {devices[0].device_kind}")
    return "\n".join(lines)


def _describe(path: str) -> str:
    model = CaduceusForMaskedLM.from_pretrained(path)
    config = model.config
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model))
    rows = {
        "kind": "Caduceus-PS, equivariant" if config.rcps else "Caduceus, one strand",
        "parameters": f"{parameters:,}",
        "d_model x n_layer": f"{config.d_model} x {config.n_layer}",
        "directions": _directions(model),
        "states, width, rank": f"{config.d_state}, {config.d_conv}, {config.delta_rank}",
        "norm": "RMSNorm" if config.rms_norm else "LayerNorm",
        "strand swap": "yes, as in released checkpoints" if config.strand_swap else "no",
        "vocabulary": f"{config.vocab_size} rows, padding token {config.pad_token_id}",
        "|f(rc(x)) - rc(f(x))|": f"{equivariance_error(model):.1e} at most, 128 random tokens",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())


def _directions(model: CaduceusForMaskedLM) -> str:
    config = model.config
    if not config.bidirectional:
        return "one"
    tied = "shared" if config.bidirectional_weight_tie else "separate"
    return f"two, combined by {config.bidirectional_strategy}, {tied} projections"
