"""`caduceus-jax info`: what is installed, and what a model is."""

import importlib.metadata
import platform

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from caduceus_jax.kernels import default
from caduceus_jax.model import checkpoint
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.model.heads import CaduceusForMaskedLM, CaduceusForSequenceClassification
from caduceus_jax.model.pretrained import build
from caduceus_jax.model.tracks import CaduceusForTracks
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.version import __version__

AnyModel = CaduceusForMaskedLM | CaduceusForSequenceClassification | CaduceusForTracks
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "pysam", "polars")
# Looked up where there is an accelerator: its compilers.
_COMPILERS = ("jax-triton", "triton", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")


def info(model: str | None = None) -> None:
    """Describes this installation, its devices and the scan that runs on them, or a model.

    With a model it names the architecture, counts the parameters, and measures on random sequence
    how far the model's answers on the reverse complement are from those on the sequence.

    examples:
      caduceus-jax info
      caduceus-jax info runs/quickstart

    Args:
        model: a model's folder, a run's, a Lightning .ckpt, a hub id or a short name.
    """
    print(_installation() if model is None else _describe(model))


def equivariance_error(model: AnyModel, length: int = 128) -> float:
    """Measures how far a model's output for the reverse complement is from what it should be.

    Args:
        model: a language model, whose logits should be those of the sequence in reverse order and
            of the complements; a classifier, whose logits should be the same; or a track model,
            whose tracks should be turned around.
        length: tokens of the random sequence; a multiple of a track model's bins.

    Returns:
        The largest absolute difference; rounding for Caduceus-PS and for rc_mode "posthoc".
    """
    complement = np.asarray(model.config.complement_map)
    ids = np.random.default_rng(0).integers(0, len(complement), (1, length), dtype=np.int32)
    logits = jax.jit(lambda model, ids: model(ids).logits)
    forward = logits(model, jnp.asarray(ids))
    backward = logits(model, jnp.asarray(complement[ids][:, ::-1].astype(np.int32)))
    if isinstance(model, CaduceusForMaskedLM):
        backward = backward[:, ::-1][..., complement]
    elif isinstance(model, CaduceusForTracks):
        backward = backward[:, ::-1]
    return float(jnp.abs(backward - forward).max())


def _installation() -> str:
    lines = [f"caduceus-jax {__version__}, Python {platform.python_version()}"]
    devices = jax.devices()
    packages = _PACKAGES if devices[0].platform == "cpu" else (*_PACKAGES, *_COMPILERS)
    for package in packages:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        lines.append(f"  {package:17} {version}")
    lines.append(f"{len(devices)} {devices[0].platform} device(s): {devices[0].device_kind}")
    choice = default.choose()
    lines.append(f"selective scan: {choice.name} ({choice.why})")
    lines += [f"  not {failure}" for failure in choice.failures]
    return "\n".join(lines)


def _describe(path: str) -> str:
    stored = checkpoint.open_model(path)
    config, task = stored.config, stored.task
    head = "language model" if config.tie_word_embeddings else "language model, its own weights"
    if "score" in stored.state:
        tracks = task is not None and task.kind == "tracks"
        made = CaduceusForTracks if tracks else CaduceusForSequenceClassification
        model: AnyModel = made.from_pretrained(stored)
        head = _head(model.task, model.score.shape[0])
    else:
        model = build(lambda: CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)), stored)
    signals = getattr(model, "signals", None) is not None
    bins = task.bin_size if task is not None else 1
    rows = {
        "kind": "Caduceus-PS, equivariant" if config.rcps else "Caduceus, one strand",
        "head": head,
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(model)):,}",
        "d_model x n_layer": f"{config.d_model} x {config.n_layer}",
        "directions": _directions(config),
        "states, width, rank": f"{config.d_state}, {config.d_conv}, {config.delta_rank}",
        "norm": "RMSNorm" if config.rms_norm else "LayerNorm",
        "strand swap": "yes, as in released checkpoints" if config.strand_swap else "no",
        "vocabulary": f"{config.vocab_size} rows, padding token {config.pad_token_id}",
        "tokenizer": _alphabet(stored.tokenizer),
    }
    if not signals:
        length = -(-128 // bins) * bins
        error = f"{equivariance_error(model, length):.1e} at most, {length} random tokens"
        form = "f(rc(x)) - f(x)" if "score" in stored.state else "f(rc(x)) - rc(f(x))"
        rows[f"|{form}|"] = error
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())


def _head(task: TaskDescription, outputs: int) -> str:
    """Says what a head predicts."""
    kind = {"tracks": "tracks", "regression": "values"}.get(task.kind, "labels")
    shown = ", ".join(task.labels[:8]) + (", ..." if len(task.labels) > 8 else "")
    text = f"{task.kind}: {outputs} {kind}" + (f" ({shown})" if shown else "")
    how = f"{task.bin_size} bases per bin" if task.kind == "tracks" else f"{task.pooling} pooling"
    text += f", {how}, rc_mode {task.rc_mode or 'none'}"
    return text + (f", trained on up to {task.max_length:,} bases" if task.max_length else "")


def _alphabet(tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        return "none stored, and the vocabulary is not the original's"
    ids = ", ".join(f"{b} {i}" for b, i in zip("ACGT", tokenizer.base_ids, strict=True))
    return f"{ids}; [MASK] {tokenizer.mask_id}, [PAD] {tokenizer.pad_id}"


def _directions(config: CaduceusConfig) -> str:
    if not config.bidirectional:
        return "one"
    tied = "shared" if config.bidirectional_weight_tie else "separate"
    return f"two, combined by {config.bidirectional_strategy}, {tied} projections"
