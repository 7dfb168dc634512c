"""Caduceus with its heads: masked language model, sequence classifier.

Modules own parameters and share none, so a model is an ordinary pytree: `jax.jit`, `jax.grad`,
`jax.vmap` and `jax.export` take it as an argument.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import causal_conv1d, selective_scan
from caduceus_jax.model import checkpoint
from caduceus_jax.model.backbone import Caduceus, complement
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.mamba import Conv, Scan
from caduceus_jax.model.rcps import strand_logits, to_original_layout
from caduceus_jax.model.typing import Hidden, Logits, PaddingMask, Strands, TokenIds

Pooling = Literal["mean", "max", "first", "last"]


class MaskedLMOutput(NamedTuple):
    """What `CaduceusForMaskedLM` returns."""

    logits: Logits  # (batch, length, vocab) float32
    last_hidden_state: Hidden  # (batch, length, d_model), or 2 * d_model with rcps
    hidden_states: tuple[Hidden, ...] | None  # block inputs, then the final state


class SequenceClassifierOutput(NamedTuple):
    """What `CaduceusForSequenceClassification` returns."""

    logits: Float[Array, "batch labels"]  # float32


class CaduceusForMaskedLM(nnx.Module):
    """Caduceus with its masked-language-model head.

    Args:
        config: the architecture.
        dtype: of activations and matrix products: float32 or bfloat16. Parameters, norms, the
            recurrence and the logits are float32.
        remat: compute each block again in the backward pass instead of keeping its inside.
        scan: the selective scan; training passes a sharded one.
        conv: the causal convolution; likewise.
        rngs: draws the parameters, distributed as in the original.
    """

    def __init__(
        self,
        config: CaduceusConfig,
        *,
        dtype: Dtype = jnp.float32,
        remat: bool = False,
        scan: Scan = selective_scan,
        conv: Conv = causal_conv1d,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.caduceus = Caduceus(config, dtype=dtype, remat=remat, scan=scan, conv=conv, rngs=rngs)
        shape = (config.vocab_size, config.d_model)
        if config.tie_word_embeddings:
            self.lm_head = None
        else:
            bound = config.d_model**-0.5
            draw = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
            self.lm_head = nnx.Param(draw)

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        dtype: Dtype = jnp.float32,
        remat: bool = False,
        scan: Scan = selective_scan,
    ) -> "CaduceusForMaskedLM":
        """Loads weights of the original or of this project.

        Args:
            path: a Hugging Face folder (`config.json` with `model.safetensors` or
                `pytorch_model.bin`), a Lightning `.ckpt`, or a hub id.
            dtype: see the class; stored weights become float32 parameters either way.
            remat: see the class.
            scan: see the class.

        Raises:
            UserError: nothing usable at `path`, or names and shapes that do not fit: all of them
                are listed.
        """
        config, state = checkpoint.load(path)
        if "score" in state:
            raise UserError(
                f"{path} is a classifier, without a language-model head: load it with "
                "CaduceusForSequenceClassification"
            )
        model = nnx.eval_shape(
            lambda: cls(config, dtype=dtype, remat=remat, scan=scan, rngs=nnx.Rngs(0))
        )
        nnx.update(model, state)
        return model

    def save_pretrained(self, path: str) -> None:
        """Writes `config.json` and `model.safetensors`, which the original loads too."""
        checkpoint.save(path, self.config, nnx.state(self, nnx.Param))

    def __call__(
        self,
        input_ids: TokenIds,
        padding_mask: PaddingMask | None = None,
        output_hidden_states: bool = False,
    ) -> MaskedLMOutput:
        """Predicts every token.

        Args:
            input_ids: (batch, length) int token ids.
            padding_mask: (batch, length) bool, True on real tokens. Outputs on real tokens are
                then those of the sequence without its padding, on whichever side that is.
            output_hidden_states: also return the input of each block and the final state.
        """
        hidden, inputs = self.caduceus(
            input_ids, padding_mask, output_hidden_states=output_hidden_states
        )
        hidden_states = None
        if inputs is not None:
            hidden_states = tuple(to_original_layout(h) for h in inputs)
            # The original's unfused path stops at the last block's input.
            if self.config.fused_add_norm:
                hidden_states += (to_original_layout(hidden),)
        return MaskedLMOutput(
            logits=self.head(hidden).sum(axis=1),
            last_hidden_state=to_original_layout(hidden),
            hidden_states=hidden_states,
        )

    def head(self, hidden: Strands) -> Float[Array, "batch strand length vocab"]:
        """Each strand's logits, float32; strand 1 votes for the complement of what it reads.

        The model's own logits are the sum over strands.
        """
        weight = (self.caduceus.embedding if self.lm_head is None else self.lm_head)[...]
        return strand_logits(hidden, weight, complement(self.config))


class CaduceusForSequenceClassification(nnx.Module):
    """Caduceus with a linear head on its pooled states: labels, or values to regress.

    An equivariant model (`rcps`) and `rc_mode="posthoc"` average the logits of both strands, so
    that a sequence and its reverse complement get the same answer (Schiff et al. 2024, 4.2).

    Args:
        config: the architecture.
        num_labels: outputs of the head.
        pooling: over real tokens; "first" and "last" count from each strand's own 5' end.
        rc_mode: "posthoc" makes a model that is not equivariant read both strands.
        dtype: see `CaduceusForMaskedLM`.
        remat: see `CaduceusForMaskedLM`.
        scan: see `CaduceusForMaskedLM`.
        num_signals: values that are known of each base beside the sequence, such as coverage. A
            linear map of them, zero at first, is added to the embeddings of both strands.
        rngs: draws the parameters.

    Raises:
        UserError: an unknown pooling, or an `rc_mode` that contradicts the model.
    """

    def __init__(
        self,
        config: CaduceusConfig,
        *,
        num_labels: int = 2,
        pooling: Pooling = "mean",
        rc_mode: Literal["posthoc"] | None = None,
        dtype: Dtype = jnp.float32,
        remat: bool = False,
        scan: Scan = selective_scan,
        num_signals: int = 0,
        rngs: nnx.Rngs,
    ):
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}; it is one of: {', '.join(get_args(Pooling))}")
        if rc_mode not in (None, "posthoc"):
            raise UserError(f"rc_mode is {rc_mode!r}; a classifier takes None or 'posthoc'")
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
        self.config, self.num_labels = config, num_labels
        self.pooling: Pooling = pooling
        self.rc_mode = rc_mode
        self.caduceus = Caduceus(config, dtype=dtype, remat=remat, scan=scan, rngs=rngs)
        self.score = _new_head(config, num_labels, rngs)
        self.signals = _new_signals(config, num_signals)

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        num_labels: int | None = None,
        pooling: Pooling = "mean",
        rc_mode: Literal["posthoc"] | None = None,
        dtype: Dtype = jnp.float32,
        remat: bool = False,
        scan: Scan = selective_scan,
        num_signals: int | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> "CaduceusForSequenceClassification":
        """Loads a classifier, or the backbone of a language model under a new head.

        Args:
            path: see `CaduceusForMaskedLM.from_pretrained`.
            num_labels: outputs of the head; by default those of the stored head, else 2.
            pooling: see the class.
            rc_mode: see the class.
            dtype: see the class.
            remat: see the class.
            scan: see the class.
            num_signals: see the class; by default those of the stored model, else none.
            rngs: draws the head where none is stored; `nnx.Rngs(0)` by default.

        Raises:
            UserError: as for `CaduceusForMaskedLM`, or a stored head of another size.
        """
        config, state = checkpoint.load(path)
        flat = dict(nnx.to_flat_state(state))
        flat.pop(("lm_head",), None)
        stored = flat.get(("score",))
        if stored is None:
            num_labels = num_labels or 2
            flat[("score",)] = _new_head(config, num_labels, rngs or nnx.Rngs(0))
        elif num_labels not in (None, stored.shape[0]):
            raise UserError(
                f"{path} holds a head of {stored.shape[0]} labels, not {num_labels}: leave "
                "num_labels out to use it, or start from a model without a head"
            )
        signals = flat.get(("signals",))
        if signals is None and num_signals:
            flat[("signals",)] = signals = _new_signals(config, num_signals)
        elif signals is not None and num_signals not in (None, len(signals)):
            raise UserError(f"{path} reads {len(signals)} signals, not {num_signals}")
        model = nnx.eval_shape(
            lambda: cls(
                config,
                num_labels=flat[("score",)].shape[0],
                num_signals=0 if signals is None else len(signals),
                pooling=pooling,
                rc_mode=rc_mode,
                dtype=dtype,
                remat=remat,
                scan=scan,
                rngs=nnx.Rngs(0),
            )
        )
        nnx.update(model, nnx.from_flat_state(list(flat.items())))
        return model

    def save_pretrained(self, path: str) -> None:
        """Writes `config.json` and `model.safetensors`, which the original loads too."""
        checkpoint.save(path, self.config, nnx.state(self, nnx.Param))

    def __call__(
        self,
        input_ids: TokenIds,
        padding_mask: PaddingMask | None = None,
        signals: Float[Array, "batch length signals"] | None = None,
    ) -> SequenceClassifierOutput:
        """Classifies sequences.

        Args:
            input_ids: (batch, length) int token ids.
            padding_mask: (batch, length) bool, True on real tokens; see `CaduceusForMaskedLM`.
            signals: (batch, length, num_signals), in the order of `input_ids`.

        Raises:
            UserError: signals are given to a model that reads none, or missing where it does.
        """
        both_strands = self.rc_mode == "posthoc"
        if (signals is None) != (self.signals is None):
            wrong = "reads none" if self.signals is None else "needs them"
            raise UserError(f"signals: the model {wrong}; num_signals is chosen when it is made")
        added = None
        if signals is not None and self.signals is not None:
            added = jnp.einsum("blc,cd->bld", signals, self.signals[...], precision="highest")
        hidden, _ = self.caduceus(input_ids, padding_mask, both_strands=both_strands, added=added)
        pooled = _pool(hidden.astype(jnp.float32), padding_mask, self.pooling)
        logits = jnp.einsum("bsd,kd->bsk", pooled, self.score[...], precision="highest")
        return SequenceClassifierOutput(logits=logits.mean(axis=1))


def _new_head(config: CaduceusConfig, num_labels: int, rngs: nnx.Rngs) -> nnx.Param:
    draw = jax.random.normal(rngs.params(), (num_labels, config.d_model))
    return nnx.Param(config.initializer_range * draw)


def _new_signals(config: CaduceusConfig, num_signals: int) -> nnx.Param | None:
    return nnx.Param(jnp.zeros((num_signals, config.d_model))) if num_signals else None


def _pool(
    hidden: Strands, padding_mask: PaddingMask | None, pooling: Pooling
) -> Float[Array, "batch strand d_model"]:
    """Pools each strand over its real tokens."""
    batch, strands, length, _ = hidden.shape
    real = jnp.ones((batch, length), bool) if padding_mask is None else padding_mask
    if pooling in ("mean", "max"):
        real = real[:, None, :, None]
        if pooling == "max":
            return jnp.max(hidden, axis=2, where=real, initial=-jnp.inf)
        return jnp.mean(hidden, axis=2, where=real)
    ends = jnp.argmax(real, axis=1), length - 1 - jnp.argmax(real[:, ::-1], axis=1)
    if pooling == "last":
        ends = ends[::-1]
    rows = jnp.arange(batch)
    # Strand 1 is stored in the + strand's coordinates: its first token is the last one there.
    return jnp.stack([hidden[rows, s, ends[s]] for s in range(strands)], axis=1)
