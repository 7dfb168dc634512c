"""Weights from and to the original's PyTorch names: one table, strict both ways.

`rows` lists every parameter once: the original's name, our path, and how the array turns. Both
directions, the errors and the report of `caduceus-jax convert` read that table and nothing else.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files import tensor_names
from caduceus_jax.model.files.infer import differ
from caduceus_jax.model.files.infer import infer_config as infer_config

_BACKBONE = "caduceus.backbone."
# The original's name of each head's tensor, with `rcps` false and true.
_HEADS = {
    "lm_head": {False: "lm_head.weight", True: "lm_head.lm_head.weight"},
    "score": dict.fromkeys((False, True), "score.weight"),
    "score_bias": dict.fromkeys((False, True), "score.bias"),
    "signals": dict.fromkeys((False, True), "signals.weight"),  # ours alone
}


# What of an architecture the names and shapes of its tensors tell, whatever the rest is.
_TOLD_BY_TENSORS = (
    "d_model",
    "n_layer",
    "rcps",
    "bidirectional",
    "rms_norm",
    "d_state",
    "d_conv",
    "expand",
    "delta_rank",
    "conv_bias",
    "bias",
    "vocab_size",
)


class Row(NamedTuple):
    """Says where one tensor of the original lives here."""

    name: str  # the original's
    path: tuple[str, ...]  # of an nnx.State
    layer: int | None  # index along the leading axis of our array
    turn: str  # "same", "transpose" or "conv"

    def theirs(self, array: np.ndarray) -> np.ndarray:
        """Returns the original's tensor.

        Args:
            array: ours, with its layer axis where it has one.
        """
        return _turned(_layer(array, self.layer), self.turn)


def to_torch(config: CaduceusConfig, state: Any) -> dict[str, np.ndarray]:
    """Returns parameters, or gradients, under the original's parameter names.

    >>> import caduceus_jax as cj
    >>> from flax import nnx
    >>> config = cj.CaduceusConfig(d_model=8, n_layer=1)
    >>> model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    >>> tensors = to_torch(config, model)
    >>> tensors["caduceus.backbone.layers.0.mixer.mamba_fwd.in_proj.weight"].shape
    (32, 8)

    Args:
        config: the architecture they belong to.
        state: `nnx.state(model, nnx.Param)`, a gradient of the same form, or the model itself.

    Returns:
        name -> array in PyTorch's layout. A tied tensor appears once, under its forward name.

    Raises:
        UserError: the state is not one of this architecture.
    """
    if isinstance(state, nnx.Module):
        state = nnx.state(state, nnx.Param)
    arrays = {_full(path): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}
    table = list(rows(config, heads=[str(path[0]) for path in arrays if len(path) == 1]))
    _match({row.path for row in table}, set(arrays), "parameter")
    return {row.name: row.theirs(arrays[row.path]) for row in table}


def from_torch(config: CaduceusConfig, tensors: Mapping[str, np.ndarray]) -> nnx.State:
    """Returns the original's tensors as the state of a model.

    >>> import caduceus_jax as cj
    >>> from flax import nnx
    >>> config = cj.CaduceusConfig(d_model=8, n_layer=1)
    >>> model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    >>> nnx.update(model, from_torch(config, to_torch(config, model)))

    Args:
        config: the architecture; `reconcile` finds whether stored weights are still tied.
        tensors: name -> array, with or without tied duplicates and `complement_map` buffers.

    Returns:
        A state that `nnx.update` puts into a model of this architecture.

    Raises:
        UserError: names missing, unexpected or of another shape, all listed; tied tensors that
            differ; a `complement_map` that is not the config's.
    """
    tensors, _ = tensor_names.canonical(tensors)
    _pop_complement_maps(config, tensors)
    _pop_ties(config, tensors)
    heads = [head for head, names in _HEADS.items() if names[config.rcps] in tensors]
    table = list(rows(config, heads))
    hint = functools.partial(_hint, config, tensors)
    _match({row.name for row in table}, set(tensors), "tensor", hint)
    shapes = _shapes(config, tensors)
    wrong = []
    leaves: dict[tuple[str, ...], list[np.ndarray]] = {}
    for row in table:
        # The turns are their own inverses but for the convolution's extra axis.
        array = _turned(np.asarray(tensors[row.name]), row.turn, inverse=True)
        if array.dtype.kind in "biuc":
            raise UserError(
                f"{row.name} is {array.dtype}: quantized weights are not supported, store them as "
                "float32, float16 or bfloat16"
            )
        shape = shapes.get(row.path[-2:]) or shapes[row.path[-1:]]
        if array.shape != shape:
            expected = _turned(np.empty(shape), row.turn).shape
            wrong.append(f"{row.name} is {tensors[row.name].shape}, expected {expected}")
        leaves.setdefault(row.path, []).append(array.astype(np.float32))
    if wrong:
        raise UserError(f"tensors of another shape than the config says: {_some(wrong)}{hint()}")
    layered = {row.path for row in table if row.layer is not None}
    return nnx.from_flat_state(
        [
            (path, nnx.Param(jnp.asarray(np.stack(a) if path in layered else a[0])))
            for path, a in leaves.items()
        ]
    )


def reconcile(
    config: CaduceusConfig, tensors: Mapping[str, np.ndarray]
) -> tuple[CaduceusConfig, dict[str, np.ndarray]]:
    """Finds whether weights that the config calls tied are tied in the file.

    Fine-tuned checkpoints exist whose tying was broken when they were loaded. Where a stored
    duplicate differs from its twin the model is untied, and used as such with one warning.

    Args:
        config: the config in the file.
        tensors: name -> array, with or without duplicates of tied ones.

    Returns:
        The config that is true of the tensors, and the tensors complete for it.
    """
    tensors, _ = tensor_names.canonical(tensors)
    broken = []
    if config.bidirectional and config.bidirectional_weight_tie:
        twins = dict(_twins(config))
        if any(differ(tensors, rev, fwd) for rev, fwd in twins.items()):
            broken.append("the two directions' in_proj and out_proj")
            config = dataclasses.replace(config, bidirectional_weight_tie=False)
            tensors |= {
                rev: tensors[fwd]
                for rev, fwd in twins.items()
                if rev not in tensors and fwd in tensors
            }
    head = _HEADS["lm_head"][config.rcps]
    if config.tie_word_embeddings:
        if differ(tensors, head, _BACKBONE + _embedding_name(config)):
            broken.append("the embedding and the language-model head")
            config = dataclasses.replace(config, tie_word_embeddings=False)
    elif config.rcps and head not in tensors:
        # The original ties them in every model with rcps, whatever its config says.
        config = dataclasses.replace(config, tie_word_embeddings=True)
    if broken:
        warnings.warn(
            f"the config says that {' and '.join(broken)} share weights, but the stored tensors "
            "differ: loaded as a model that does not share them",
            stacklevel=2,
        )
    return config, tensors


def complement_maps(config: CaduceusConfig, heads: list[str]) -> dict[str, np.ndarray]:
    """Returns the integer buffers that the original stores beside its parameters.

    Args:
        config: the architecture.
        heads: names of the model's heads; a language-model head has a buffer of its own.
    """
    if not config.rcps:
        return {}
    names = ["caduceus.backbone.embeddings.word_embeddings.complement_map"]
    names += ["lm_head.complement_map"] if "lm_head" in heads else []
    return {name: np.asarray(config.complement_map, np.int64) for name in names}


def rows(config: CaduceusConfig, heads: list[str]) -> Iterator[Row]:
    """Yields one row per stored tensor of this architecture.

    Args:
        config: the architecture.
        heads: "lm_head", "score", "score_bias" and "signals", as far as the model has them.
    """
    yield Row(_BACKBONE + _embedding_name(config), ("caduceus", "embedding"), None, "same")
    norm = "submodule." if config.rcps and not config.fused_add_norm else ""
    parts = [("weight", "scale")] + ([] if config.rms_norm else [("bias", "bias")])
    for theirs, ours in parts:
        yield Row(f"{_BACKBONE}norm_f.{norm}{theirs}", ("caduceus", "norm_f", ours), None, "same")
    for layer in range(config.n_layer):
        prefix = f"{_BACKBONE}layers.{layer}."
        path = ("caduceus", "layers")
        for theirs, ours in parts:
            yield Row(f"{prefix}norm.{norm}{theirs}", (*path, "norm", ours), layer, "same")
        mixer = prefix + ("mixer.submodule." if config.rcps else "mixer.")
        for name, inner, turn in _mixer_rows(config):
            yield Row(mixer + name, (*path, "mixer", *inner), layer, turn)
    for head in heads:
        yield Row(_HEADS[head][config.rcps], (head,), None, "same")


def _mixer_rows(config: CaduceusConfig) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yields the original's name, our path and the turn of each tensor of a block's mixer."""
    shared = config.bidirectional and config.bidirectional_weight_tie
    for direction in ("fwd", "rev") if config.bidirectional else ("fwd",):
        own = (direction,) if shared else (direction, "core")
        core = [
            ("A_log", "a_log", "same"),
            ("D", "d_skip", "same"),
            ("conv1d.weight", "conv_weight", "conv"),
            ("x_proj.weight", "x_proj", "transpose"),
            ("dt_proj.weight", "dt_proj", "transpose"),
            ("dt_proj.bias", "delta_bias", "same"),
        ] + ([("conv1d.bias", "conv_bias", "same")] if config.conv_bias else [])
        for theirs, ours, turn in core:
            yield f"mamba_{direction}.{theirs}", (*own, ours), turn
        if shared and direction == "rev":
            continue
        for name in _projection_names(config):
            projection, kind = name.split(".")
            ours = (projection, "kernel" if kind == "weight" else "bias")
            turn = "transpose" if kind == "weight" else "same"
            yield f"mamba_{direction}.{name}", (ours if shared else (direction, *ours)), turn


def _projection_names(config: CaduceusConfig) -> list[str]:
    kinds = ["weight", "bias"] if config.bias else ["weight"]
    return [f"{projection}.{kind}" for projection in ("in_proj", "out_proj") for kind in kinds]


def _embedding_name(config: CaduceusConfig) -> str:
    return f"embeddings.word_embeddings.{'embedding.' if config.rcps else ''}weight"


def _twins(config: CaduceusConfig) -> Iterator[tuple[str, str]]:
    """Yields names of the reverse projections, with the forward ones they are tied to."""
    for layer in range(config.n_layer):
        mixer = f"{_BACKBONE}layers.{layer}.mixer.{'submodule.' if config.rcps else ''}mamba_"
        for name in _projection_names(config):
            yield f"{mixer}rev.{name}", f"{mixer}fwd.{name}"


def _pop_ties(config: CaduceusConfig, tensors: dict[str, np.ndarray]) -> None:
    """Drops stored duplicates of tied tensors, after checking that they are duplicates."""
    twins = dict(_twins(config)) if config.bidirectional and config.bidirectional_weight_tie else {}
    if config.tie_word_embeddings:
        twins[_HEADS["lm_head"][config.rcps]] = _BACKBONE + _embedding_name(config)
    for twin, original in twins.items():
        if differ(tensors, twin, original):
            raise UserError(
                f"the config ties {twin} to {original}, but they differ: see convert.reconcile"
            )
        if twin in tensors:
            # Which of two equal names a file keeps is up to the library that wrote it.
            tensors.setdefault(original, tensors[twin])
            del tensors[twin]


def _pop_complement_maps(config: CaduceusConfig, tensors: dict[str, np.ndarray]) -> None:
    for name in [name for name in tensors if name.endswith(".complement_map")]:
        stored = tuple(np.asarray(tensors.pop(name)).tolist())
        if stored != config.complement_map:
            raise UserError(f"{name} is {stored}, but the config says {config.complement_map}")


def _shapes(
    config: CaduceusConfig, tensors: Mapping[str, np.ndarray]
) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns each array's shape by the last part of its path, without its layer axis."""
    rank, inner, states, model = (
        config.delta_rank,
        config.d_inner,
        config.d_state,
        config.d_model,
    )
    outputs = tensors.get("score.weight", np.empty(0)).shape[:1]
    return {
        ("embedding",): (config.vocab_size, model),
        ("lm_head",): (config.vocab_size, model),
        ("score",): (*outputs, model),
        ("score_bias",): outputs,
        ("signals",): (*tensors.get("signals.weight", np.empty(0)).shape[:1], model),
        ("norm_f", "scale"): (model,),
        ("norm_f", "bias"): (model,),
        ("norm", "scale"): (model,),
        ("norm", "bias"): (model,),
        ("in_proj", "kernel"): (model, 2 * inner),
        ("in_proj", "bias"): (2 * inner,),
        ("out_proj", "kernel"): (inner, model),
        ("out_proj", "bias"): (model,),
        ("a_log",): (inner, states),
        ("d_skip",): (inner,),
        ("conv_weight",): (config.d_conv, inner),
        ("conv_bias",): (inner,),
        ("x_proj",): (inner, rank + 2 * states),
        ("dt_proj",): (rank, inner),
        ("delta_bias",): (inner,),
    }


def _full(path: tuple) -> tuple:
    """Returns the path of a parameter in a model with a head, also of a backbone alone."""
    return ("caduceus", *path) if path[0] in ("embedding", "layers", "norm_f") else path


def _hint(config: CaduceusConfig, tensors: Mapping[str, np.ndarray]) -> str:
    """Says what may be wrong where names or shapes do not fit, to end a sentence."""
    try:
        found = infer_config(tensors)
    except UserError:
        return "; the names are not those of a Caduceus model"
    differing = [
        f"{key}: {getattr(found, key)} (the config says {getattr(config, key)})"
        for key in _TOLD_BY_TENSORS
        if getattr(found, key) != getattr(config, key)
    ]
    if not differing:
        return ""
    return f"; the tensors are of a model with {', '.join(differing)}: correct config.json"


def _layer(array: np.ndarray, layer: int | None) -> np.ndarray:
    return array if layer is None else array[layer]


def _turned(array: np.ndarray, turn: str, inverse: bool = False) -> np.ndarray:
    """Turns our layout into PyTorch's, or the other way round."""
    if turn == "conv":  # (width, channels) and (channels, 1, width)
        return array[:, 0].T if inverse and array.ndim == 3 else array.T[:, None]
    return np.ascontiguousarray(array.T) if turn == "transpose" else array


def _match(expected: set, found: set, kind: str, hint: Callable[[], str] = str) -> None:
    """Raises one error that lists what is missing and what is unexpected."""
    lists = [
        f"{len(names)} {word}: {_some(sorted(map(str, names)))}"
        for word, names in (("missing", expected - found), ("unexpected", found - expected))
        if names
    ]
    if lists:
        raise UserError(f"{kind}s do not fit the config; {'; '.join(lists)}{hint()}")


def _some(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
