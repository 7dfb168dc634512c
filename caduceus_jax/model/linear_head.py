"""The linear head of classifiers and track models: its parameters, and what is recorded of it."""

from typing import Any, Literal, TypedDict, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.model.backbone import Caduceus, Remat
from caduceus_jax.model.checkpoint import Source, StoredModel
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.task import Pooling, RcMode, TaskDescription
from caduceus_jax.model.inputs import ArrayInput
from caduceus_jax.model.mamba import Conv, Scan
from caduceus_jax.model.pretrained import PretrainedModel
from caduceus_jax.model.typing import PaddingMask, Strands
from caduceus_jax.tokenizer import Tokenizer


class Heads(TypedDict):
    """Holds the parameters of a head, each nnx.Param, or None where there is none."""

    score: Any
    score_bias: Any
    signals: Any


class LinearHead(PretrainedModel):
    """Puts a linear head on a backbone's states: what classifiers and track models share.

    Args:
        config: the architecture.
        outputs: the head's outputs.
        task: the meaning of the outputs.
        dtype: type of activations and matrix products: float32 or bfloat16.
        remat: compute each block again in the backward pass instead of keeping its inside;
            "scans" keeps what its scans returned.
        scan: the selective scan.
        conv: the causal convolution.
        num_signals: values known of each base beside the sequence.
        head_bias: the head has a bias.
        tokenizer: the tokenizer of the sequences that the model is for.
        rngs: draws the parameters.
    """

    task: TaskDescription

    def __init__(
        self,
        config: CaduceusConfig,
        *,
        outputs: int,
        task: TaskDescription,
        dtype: Dtype,
        remat: Remat,
        scan: Scan,
        conv: Conv,
        num_signals: int,
        head_bias: bool,
        tokenizer: Tokenizer | None,
        rngs: nnx.Rngs,
    ):
        _check_rc_mode(config, task.rc_mode)
        if task.labels and len(task.labels) != outputs:
            raise UserError(f"labels has {len(task.labels)} names for {outputs} outputs")
        self.config, self.task = config, task
        self.tokenizer = tokenizer or Tokenizer.of_config(config)
        self.caduceus = Caduceus(
            config,
            dtype=dtype,
            remat=remat,
            scan=scan,
            conv=conv,
            tokenizer=self.tokenizer,
            both_strands=task.rc_mode == "posthoc",
            rngs=rngs,
        )
        self.score = new_head_of(config, outputs, rngs)
        self.score_bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if head_bias else None
        self.signals = new_signals(config, num_signals)

    @property
    def rc_mode(self) -> Literal["posthoc"] | None:
        """Is "posthoc" where a model that is not equivariant reads both strands, else None."""
        return self.task.rc_mode

    @property
    def labels(self) -> tuple[str, ...]:
        """Lists the names of the outputs in their order; empty where they have none."""
        return self.task.labels

    def states(
        self,
        input_ids: ArrayInput | None,
        padding_mask: ArrayInput | None,
        signals: Float[Array, "batch length signals"] | None,
        *,
        inputs_one_hot: ArrayInput | None = None,
        inputs_embeds: ArrayInput | None = None,
        segment_ids: ArrayInput | None = None,
    ) -> Strands:
        """Computes the final states of the strands that the head reads, float32.

        Args:
            input_ids: (batch, length) int token ids.
            padding_mask: (batch, length) bool, True on real tokens.
            signals: (batch, length, num_signals), in the order of `input_ids`.
            inputs_one_hot: (batch, length, 4 or vocab) weights in place of token ids.
            inputs_embeds: (batch, length, d_model or 2 * d_model) embeddings in place of them.
            segment_ids: (batch, length) integers, one per sequence packed into a row.

        Raises:
            UserError: an input of another type or shape, or signals that are given to a model that
                reads none, or missing where it does.
        """
        if (signals is None) != (self.signals is None):
            wrong = "reads none" if self.signals is None else "needs them"
            raise UserError(f"signals: the model {wrong}; num_signals is chosen when it is made")
        added = None
        if signals is not None and self.signals is not None:
            if signals.ndim != 3 or signals.shape[-1] != self.signals.shape[0]:
                raise UserError(
                    f"signals has shape {signals.shape}; it is (batch, length, "
                    f"{self.signals.shape[0]})"
                )
            added = jnp.einsum("blc,cd->bld", signals, self.signals[...], precision="highest")
        hidden = self.caduceus(
            input_ids,
            padding_mask,
            inputs_one_hot=inputs_one_hot,
            inputs_embeds=inputs_embeds,
            segment_ids=segment_ids,
            added=added,
        ).state
        return hidden.astype(jnp.float32)

    def head(self, states: Float[Array, "batch places d_model"]) -> jax.Array:
        """Applies the head.

        Args:
            states: (batch, places, d_model) float32; places are strands, or bins.

        Returns:
            (batch, places, outputs) float32.
        """
        outputs = jnp.einsum("bpd,od->bpo", states, self.score[...], precision="highest")
        if self.score_bias is None:
            return outputs
        return outputs + self.score_bias[...][None, None]


def stored_head(
    path: object,
    stored: StoredModel,
    outputs: int | None,
    num_signals: int | None,
    rngs: nnx.Rngs | None,
    *,
    new_head: bool,
    tracks: bool,
) -> tuple[TaskDescription | None, Heads]:
    """Finds the head of a stored model, or draws one where it has none.

    Args:
        path: the path of the model, for sentences.
        stored: the stored model.
        outputs: number of outputs that are wanted; None takes those of the stored head, else 2.
        num_signals: number of signals that are wanted; None takes those of the stored model.
        rngs: draws a head.
        new_head: draw one even where one is stored.
        tracks: the model predicts tracks, not labels.

    Returns:
        What the outputs of a stored head mean, None for a new one; and the parameters.

    Raises:
        UserError: the stored head has another size, or is for another kind of model.
    """
    heads: dict[str, Any] = {
        str(p[0]): leaf for p, leaf in nnx.to_flat_state(stored.state) if p[0] != "caduceus"
    }
    name = "num_tracks" if tracks else "num_labels"
    score, task = heads.get("score"), None
    if score is None or new_head:
        heads = {"signals": heads.get("signals")}
        heads["score"] = new_head_of(stored.config, outputs or 2, rngs or nnx.Rngs(0))
    elif outputs not in (None, score.shape[0]):
        raise UserError(
            f"{path} holds a head of {score.shape[0]} labels, not {outputs}: leave {name} out to "
            "use it, or pass new_head=True to draw another"
        )
    else:
        task = stored.task or TaskDescription.of(stored.hf)
        if stored.task is not None and (task.kind == "tracks") != tracks:
            other = "ForSequenceClassification" if tracks else "ForTracks"
            raise UserError(
                f"{path} was trained for {task.kind}: load it with Caduceus{other}, or pass "
                "new_head=True to use its backbone alone"
            )
    signals = heads.get("signals")
    if signals is None and num_signals:
        signals = new_signals(stored.config, num_signals)
    elif signals is not None and num_signals not in (None, len(signals)):
        raise UserError(f"{path} reads {len(signals)} signals, not {num_signals}")
    return task, {
        "score": heads["score"],
        "score_bias": heads.get("score_bias"),
        "signals": signals,
    }


def agreed(path: Source, task: TaskDescription | None, **given: Any) -> dict[str, Any]:
    """Brings options together with what is recorded of a model.

    Args:
        path: the path of the model, for sentences.
        task: the task recorded with the model; None without a record.
        **given: options by name, None where one is left to the record.

    Returns:
        The options that hold: the record's where there is one, else those given.

    Raises:
        UserError: an option contradicts the record.
    """
    if task is None:
        return given
    for name, value in given.items():
        recorded = getattr(task, name)
        shown = "none" if recorded is None else recorded
        if value is not None and value != shown and recorded != ():
            raise UserError(
                f"{name} is {value!r}, but {path} was trained with {shown!r}: leave {name} out, or "
                "pass new_head=True to draw another head"
            )
        given[name] = recorded or value
    return given


def pool(
    hidden: Strands, padding_mask: PaddingMask | None, pooling: Pooling
) -> Float[Array, "batch strand d_model"]:
    """Pools each strand over its real tokens.

    Args:
        hidden: (batch, strand, length, d_model), both strands in the + strand's coordinates.
        padding_mask: (batch, length) bool, True on real tokens.
        pooling: "mean", "max", "first" or "last"; the latter two count from each strand's own 5'
            end.

    Returns:
        (batch, strand, d_model); zeros for a row of padding alone.
    """
    batch, strands, length, _ = hidden.shape
    real = jnp.ones((batch, length), bool) if padding_mask is None else padding_mask
    # A row of padding alone becomes zeros, and not the mean, the largest or the first of nothing.
    some = real.any(axis=1)[:, None, None]
    if pooling in ("mean", "max"):
        if padding_mask is None:
            return hidden.mean(axis=2) if pooling == "mean" else hidden.max(axis=2)
        real = (real | ~some[:, 0])[:, None, :, None]
        if pooling == "max":
            pooled = jnp.max(hidden, axis=2, where=real, initial=-jnp.inf)
        else:
            pooled = jnp.mean(hidden, axis=2, where=real)
        return jnp.where(some, pooled, 0)
    ends = jnp.argmax(real, axis=1), length - 1 - jnp.argmax(real[:, ::-1], axis=1)
    if pooling == "last":
        ends = ends[::-1]
    rows = jnp.arange(batch)
    # Strand 1 is stored in the + strand's coordinates: its first token is the last one there.
    pooled = jnp.stack([hidden[rows, s, ends[s]] for s in range(strands)], axis=1)
    return pooled if padding_mask is None else jnp.where(some, pooled, 0)


def new_head_of(config: CaduceusConfig, outputs: int, rngs: nnx.Rngs) -> nnx.Param:
    """Draws a head, (outputs, d_model), as the original does.

    Args:
        config: the architecture.
        outputs: the head's outputs.
        rngs: draws it.
    """
    draw = jax.random.normal(rngs.params(), (outputs, config.d_model), jnp.float32)
    return nnx.Param(config.initializer_range * draw)


def new_signals(config: CaduceusConfig, num_signals: int) -> nnx.Param | None:
    """Makes the map from signals to embeddings, (num_signals, d_model), zero at first.

    Args:
        config: the architecture.
        num_signals: number of signals that the model reads beside the sequence; 0 for none.
    """
    shape = (num_signals, config.d_model)
    return nnx.Param(jnp.zeros(shape, jnp.float32)) if num_signals else None


def _check_rc_mode(config: CaduceusConfig, rc_mode: RcMode | None) -> None:
    if rc_mode not in (None, *get_args(RcMode)):
        raise UserError(f"rc_mode is {rc_mode!r}; it is one of: {', '.join(get_args(RcMode))}")
    if rc_mode == "posthoc" and config.rcps:
        raise UserError(
            "rc_mode='posthoc' contradicts an equivariant model (rcps), which reads both "
            "strands already: leave rc_mode out"
        )
    if rc_mode == "posthoc" and config.complement_map == tuple(range(config.vocab_size)):
        raise UserError(
            "rc_mode='posthoc' needs to know each token's complement, and the config has no "
            "complement_map: add it to config.json"
        )
