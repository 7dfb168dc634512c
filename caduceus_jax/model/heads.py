"""Caduceus with its heads: masked language model, sequence classifier.

Modules own parameters and share none, so a model is an ordinary pytree: `jax.jit`, `jax.grad`,
`jax.vmap` and `jax.export` take it as an argument.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.export
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import selective_scan
from caduceus_jax.model import checkpoint
from caduceus_jax.model.backbone import Caduceus, Remat, complement
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.locate import Path
from caduceus_jax.model.files.task import Pooling as Pooling
from caduceus_jax.model.files.task import RcMode, TaskDescription
from caduceus_jax.model.inputs import ArrayInput, checked_count, checked_mask, checked_segments
from caduceus_jax.model.linear_head import LinearHead, agreed, pool, stored_head
from caduceus_jax.model.mamba import CONVOLUTION, Conv, Scan
from caduceus_jax.model.pretrained import PretrainedModel, build
from caduceus_jax.model.rcps import strand_logits, to_original_layout
from caduceus_jax.model.typing import Hidden, Logits, Strands
from caduceus_jax.tokenizer import Tokenizer


class MaskedLMOutput(NamedTuple):
    """Holds what `CaduceusForMaskedLM` returns."""

    logits: Logits  # (batch, length, vocab) float32
    last_hidden_state: Hidden  # (batch, length, d_model), or 2 * d_model with rcps
    hidden_states: tuple[Hidden, ...] | None  # block inputs, then the final state


class SequenceClassifierOutput(NamedTuple):
    """Holds what `CaduceusForSequenceClassification` returns."""

    logits: Float[Array, "batch *segments labels"]  # float32


# So that a program that returns these can be serialised.
for _output in (MaskedLMOutput, SequenceClassifierOutput):
    jax.export.register_namedtuple_serialization(
        _output, serialized_name=f"caduceus_jax.{_output.__name__}"
    )


class CaduceusForMaskedLM(PretrainedModel):
    """Predicts masked tokens: Caduceus with its language-model head.

    Args:
        config: the architecture.
        dtype: type of activations and matrix products: float32 or bfloat16. Parameters, norms, the
            recurrence and the logits are float32.
        remat: compute each block again in the backward pass instead of keeping its inside;
            "scans" keeps what its scans returned.
        scan: the selective scan; training passes a sharded one.
        conv: the causal convolution; training passes a sharded one.
        tokenizer: tokenizer of the sequences that the model is for; by default the original's, if
            the config fits it.
        rngs: draws the parameters, distributed as in the original.
    """

    def __init__(
        self,
        config: CaduceusConfig,
        *,
        dtype: Dtype = jnp.float32,
        remat: Remat = False,
        scan: Scan = selective_scan,
        conv: Conv = CONVOLUTION,
        tokenizer: Tokenizer | None = None,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.tokenizer = tokenizer or Tokenizer.of_config(config)
        self.caduceus = Caduceus(
            config,
            dtype=dtype,
            remat=remat,
            scan=scan,
            conv=conv,
            tokenizer=self.tokenizer,
            rngs=rngs,
        )
        shape = (config.vocab_size, config.d_model)
        if config.tie_word_embeddings:
            self.lm_head = None
        else:
            bound = config.d_model**-0.5
            draw = jax.random.uniform(
                rngs.params(), shape, jnp.float32, minval=-bound, maxval=bound
            )
            self.lm_head = nnx.Param(draw)

    @classmethod
    def from_pretrained(
        cls,
        path: checkpoint.Source,
        *,
        dtype: Dtype = jnp.float32,
        remat: Remat = False,
        scan: Scan = selective_scan,
        conv: Conv = CONVOLUTION,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | None = None,
        base: Path | None = None,
    ) -> "CaduceusForMaskedLM":
        """Loads weights of the original or of this project.

        Args:
            path: a Hugging Face folder (`config.json` with `model.safetensors` or
                `pytorch_model.bin`), the folder of a pretraining run or of one of its checkpoints,
                a Lightning `.ckpt` or another file of weights, a hub id, a short name such as
                caduceus-ps-131k, or what `checkpoint.open_model` returned.
            dtype: type of activations and matrix products: float32 or bfloat16. Stored weights
                become float32 parameters either way.
            remat: compute each block again in the backward pass instead of keeping its inside;
                "scans" keeps what its scans returned.
            scan: the selective scan.
            conv: the causal convolution.
            revision: branch, tag or commit of the hub's repository; the newest by default.
            token: access token of the hub; by default that of the account that is logged in.
            cache_dir: folder for downloads; by default Hugging Face's own cache.
            base: the model that a low-rank adapter (PEFT's LoRA) at `path` is merged into; by
                default the one that its adapter_config.json names.

        Raises:
            UserError: nothing usable at `path`, or names and shapes that do not fit: all of them
                are listed.
        """
        stored = checkpoint.open_model(
            path, revision=revision, token=token, cache_dir=cache_dir, base=base
        )
        if "score" in stored.state:
            raise UserError(
                f"{path} is a classifier, without a language-model head: load it with "
                "CaduceusForSequenceClassification, or its backbone alone with Caduceus"
            )
        if "lm_head" not in stored.state and not stored.config.tie_word_embeddings:
            raise UserError(
                f"{path} has no language-model head, and its config does not tie one to the "
                "embedding: load its backbone alone with Caduceus"
            )
        return build(
            lambda: cls(
                stored.config,
                dtype=dtype,
                remat=remat,
                scan=scan,
                conv=conv,
                tokenizer=stored.tokenizer,
                rngs=nnx.Rngs(0),
            ),
            stored,
        )

    def __call__(
        self,
        input_ids: ArrayInput | None = None,
        padding_mask: ArrayInput | None = None,
        output_hidden_states: bool = False,
        *,
        inputs_one_hot: ArrayInput | None = None,
        inputs_embeds: ArrayInput | None = None,
        segment_ids: ArrayInput | None = None,
    ) -> MaskedLMOutput:
        """Predicts every token.

        Args:
            input_ids: (batch, length) int token ids.
            padding_mask: (batch, length) bool, True on real tokens. Outputs on real tokens are
                then those of the sequence without its padding, on whichever side that is.
            output_hidden_states: also return the input of each block and the final state.
            inputs_one_hot: (batch, length, 4) weights of A, C, G, T in place of token ids, or
                (batch, length, vocab) of all tokens, on both strands: for gradients by base,
                integrated gradients and design.
            inputs_embeds: (batch, length, d_model) embeddings in place of token ids, 2 * d_model
                with rcps, as the original lays them out.
            segment_ids: (batch, length) integers, one per sequence packed into a row: each
                sequence is read as if it were alone in a row.

        Raises:
            UserError: an input of another type or shape, a token id out of range, or none or
                several of the three inputs; the sentence names the argument.
        """
        # Named only where it is set, since nnx.tabulate traces every argument of a submodule.
        options: dict[str, Any] = {"output_hidden_states": True} if output_hidden_states else {}
        hidden, inputs = self.caduceus(
            input_ids,
            padding_mask,
            inputs_one_hot=inputs_one_hot,
            inputs_embeds=inputs_embeds,
            segment_ids=segment_ids,
            **options,
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
        """Computes each strand's logits, whose sum over strands are the model's own.

        Args:
            hidden: (batch, strand, length, d_model), the backbone's final state.

        Returns:
            float32; strand 1 votes for the complement of what it reads.
        """
        weight = (self.caduceus.embedding if self.lm_head is None else self.lm_head)[...]
        return strand_logits(hidden, weight, complement(self.config))


class CaduceusForSequenceClassification(LinearHead):
    """Predicts labels or values, with a linear head on pooled states of Caduceus.

    An equivariant model (`rcps`) and `rc_mode="posthoc"` average the logits of both strands, so
    that a sequence and its reverse complement get the same answer (Schiff et al. 2024, 4.2).

    Args:
        config: the architecture.
        num_labels: outputs of the head.
        pooling: over real tokens; "first" and "last" count from each strand's own 5' end.
        rc_mode: "posthoc" makes a model that is not equivariant read both strands; None and
            "none" do not.
        labels: names of the outputs, in their order.
        dtype: type of activations and matrix products: float32 or bfloat16.
        remat: compute each block again in the backward pass instead of keeping its inside;
            "scans" keeps what its scans returned.
        scan: the selective scan; training passes a sharded one.
        conv: the causal convolution; training passes a sharded one.
        num_signals: values that are known of each base beside the sequence, such as coverage. A
            linear map of them, zero at first, is added to the embeddings of both strands.
        head_bias: the head has a bias, zero at first. The original's Hugging Face class has none,
            its own fine-tunes (`decoder.0.output_transform`) do.
        tokenizer: tokenizer of the sequences that the model is for; by default the original's, if
            the config fits it.
        task: further facts about the outputs; its pooling, rc_mode and labels are not read.
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
        rc_mode: RcMode | None = None,
        labels: Sequence[str] = (),
        dtype: Dtype = jnp.float32,
        remat: Remat = False,
        scan: Scan = selective_scan,
        conv: Conv = CONVOLUTION,
        num_signals: int = 0,
        head_bias: bool = False,
        tokenizer: Tokenizer | None = None,
        task: TaskDescription | None = None,
        rngs: nnx.Rngs,
    ):
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}; it is one of: {', '.join(get_args(Pooling))}")
        known = task or TaskDescription(kind="regression" if num_labels == 1 else "classification")
        self.num_labels = num_labels
        super().__init__(
            config,
            outputs=num_labels,
            task=known.used_as(pooling=pooling, rc_mode=rc_mode, labels=labels),
            dtype=dtype,
            remat=remat,
            scan=scan,
            conv=conv,
            num_signals=num_signals,
            head_bias=head_bias,
            tokenizer=tokenizer,
            rngs=rngs,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: checkpoint.Source,
        *,
        num_labels: int | None = None,
        pooling: Pooling | None = None,
        rc_mode: RcMode | None = None,
        labels: Sequence[str] | None = None,
        new_head: bool = False,
        dtype: Dtype = jnp.float32,
        remat: Remat = False,
        scan: Scan = selective_scan,
        conv: Conv = CONVOLUTION,
        num_signals: int | None = None,
        rngs: nnx.Rngs | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | None = None,
        base: Path | None = None,
    ) -> "CaduceusForSequenceClassification":
        """Loads a classifier as it was trained, or the backbone of any model under a new head.

        Args:
            path: a folder, a run, a file of weights or a hub id, as for
                `CaduceusForMaskedLM.from_pretrained`.
            num_labels: outputs of the head; by default those of the stored head, else 2.
            pooling: over real tokens; by default as recorded with the model, else "mean".
            rc_mode: "posthoc" or "none"; by default as recorded with the model, else "none".
            labels: names of the outputs; by default those recorded with the model.
            new_head: draw a new head even where one is stored; nothing that is recorded with the
                stored one then counts.
            dtype: type of activations and matrix products: float32 or bfloat16. Stored weights
                become float32 parameters either way.
            remat: compute each block again in the backward pass instead of keeping its inside;
                "scans" keeps what its scans returned.
            scan: the selective scan.
            conv: the causal convolution.
            num_signals: values known of each base beside the sequence; by default those of the
                stored model, else none.
            rngs: draws the head where none is stored; `nnx.Rngs(0)` by default.
            revision: branch, tag or commit of the hub's repository; the newest by default.
            token: access token of the hub; by default that of the account that is logged in.
            cache_dir: folder for downloads; by default Hugging Face's own cache.
            base: the model that a low-rank adapter (PEFT's LoRA) at `path` is merged into; by
                default the one that its adapter_config.json names.

        Raises:
            UserError: nothing usable at `path`, a stored head of another size, or an option that
                contradicts what is recorded with the model.
        """
        stored = checkpoint.open_model(
            path, revision=revision, token=token, cache_dir=cache_dir, base=base
        )
        task, heads = stored_head(
            path, stored, num_labels, num_signals, rngs, new_head=new_head, tracks=False
        )
        recorded = task if stored.task is not None else None
        settings = agreed(
            path, recorded, pooling=pooling, rc_mode=rc_mode, labels=labels and tuple(labels)
        )
        return build(
            lambda: cls(
                stored.config,
                num_labels=heads["score"].shape[0],
                pooling=settings["pooling"] or "mean",
                rc_mode=settings["rc_mode"],
                labels=settings["labels"] or (task.labels if task else ()),
                num_signals=0 if heads["signals"] is None else len(heads["signals"]),
                head_bias=heads["score_bias"] is not None,
                task=task,
                tokenizer=stored.tokenizer,
                dtype=dtype,
                remat=remat,
                scan=scan,
                conv=conv,
                rngs=nnx.Rngs(0),
            ),
            stored,
            heads,
        )

    @property
    def pooling(self) -> Pooling:
        """Names how the states of a sequence become one."""
        return self.task.pooling

    def __call__(
        self,
        input_ids: ArrayInput | None = None,
        padding_mask: ArrayInput | None = None,
        signals: Float[Array, "batch length signals"] | None = None,
        *,
        inputs_one_hot: ArrayInput | None = None,
        inputs_embeds: ArrayInput | None = None,
        segment_ids: ArrayInput | None = None,
        num_segments: int | None = None,
    ) -> SequenceClassifierOutput:
        """Classifies sequences.

        Args:
            input_ids: (batch, length) int token ids.
            padding_mask: (batch, length) bool, True on real tokens; padding changes nothing. A
                sequence of padding alone gets the logits of a state of zeros.
            signals: (batch, length, num_signals), in the order of `input_ids`.
            inputs_one_hot: (batch, length, 4 or vocab) weights in place of token ids.
            inputs_embeds: (batch, length, d_model or 2 * d_model) embeddings in place of them.
            segment_ids: (batch, length) integers, one per sequence packed into a row, from 1 on; 0
                is padding.
            num_segments: sequences packed into a row at most; needed with `segment_ids`.

        Returns:
            (batch, num_labels) logits; of packed sequences (batch, num_segments, num_labels),
            those of sequence n at n - 1.

        Raises:
            UserError: an input of another type or shape, a token id or the number of a sequence
                out of range, or signals that are given to a model that reads none, or missing
                where it does.
        """
        if (segment_ids is None) != (num_segments is None):
            raise UserError("segment_ids and num_segments belong together: pass both or neither")
        hidden = self.states(
            input_ids,
            padding_mask,
            signals,
            inputs_one_hot=inputs_one_hot,
            inputs_embeds=inputs_embeds,
            segment_ids=segment_ids,
        )
        mask = None
        if padding_mask is not None:
            mask = checked_mask(padding_mask, (hidden.shape[0], hidden.shape[2]))
        if segment_ids is None or num_segments is None:
            pooled = pool(hidden, mask, self.pooling)
            return SequenceClassifierOutput(logits=self.head(pooled).mean(axis=1))
        segments = checked_segments(segment_ids, (hidden.shape[0], hidden.shape[2]))
        count = checked_count(num_segments, segments)

        def one(number: jax.Array) -> jax.Array:
            """Pools the tokens of one segment."""
            members = segments == jnp.broadcast_to(number.astype(segments.dtype), segments.shape)
            members = members if mask is None else members & mask
            return self.head(pool(hidden, members, self.pooling)).mean(axis=1)

        logits = jax.lax.map(one, jnp.arange(1, count + 1))
        return SequenceClassifierOutput(logits=jnp.swapaxes(logits, 0, 1))
