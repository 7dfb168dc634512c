"""Caduceus with a head for signals along the sequence, such as coverage in bins."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from einops import reduce
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import selective_scan
from caduceus_jax.model import checkpoint
from caduceus_jax.model.backbone import Remat
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.locate import Path
from caduceus_jax.model.files.task import RcMode, TaskDescription
from caduceus_jax.model.inputs import ArrayInput, check_bins
from caduceus_jax.model.linear_head import LinearHead, agreed, stored_head
from caduceus_jax.model.mamba import CONVOLUTION, Conv, Scan
from caduceus_jax.model.pretrained import build
from caduceus_jax.tokenizer import Tokenizer


class TracksOutput(NamedTuple):
    """Holds what `CaduceusForTracks` returns."""

    logits: Float[Array, "batch bins tracks"]  # float32


jax.export.register_namedtuple_serialization(
    TracksOutput, serialized_name="caduceus_jax.TracksOutput"
)


class CaduceusForTracks(LinearHead):
    """Predicts signals along the sequence, with a linear head on the mean state of every bin.

    Both strands' states are averaged, so that the tracks of a reverse complement are the tracks
    turned around, where the model reads both. Parameters are those of a sequence classifier with
    as many labels as there are tracks, and are stored like these.

    Args:
        config: the architecture.
        num_tracks: signals that are predicted.
        bin_size: bases per bin.
        rc_mode: "posthoc" makes a model that is not equivariant read both strands; None and
            "none" do not.
        labels: names of the tracks, in their order.
        dtype: type of activations and matrix products: float32 or bfloat16.
        remat: compute each block again in the backward pass instead of keeping its inside;
            "scans" keeps what its scans returned.
        scan: the selective scan; training passes a sharded one.
        conv: the causal convolution; training passes a sharded one.
        num_signals: values that are known of each base beside the sequence.
        head_bias: the head has a bias, zero at first.
        tokenizer: tokenizer of the sequences that the model is for; by default the original's, if
            the config fits it.
        task: further facts about the outputs; its bin_size, rc_mode and labels are not read.
        rngs: draws the parameters.

    Raises:
        UserError: an `rc_mode` that contradicts the model, or a bin without bases.
    """

    def __init__(
        self,
        config: CaduceusConfig,
        *,
        num_tracks: int,
        bin_size: int,
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
        if bin_size < 1:
            raise UserError(f"bin_size is {bin_size}; it is at least 1")
        known = task or TaskDescription(kind="tracks")
        super().__init__(
            config,
            outputs=num_tracks,
            task=known.used_as(bin_size=bin_size, rc_mode=rc_mode, labels=labels),
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
        num_tracks: int | None = None,
        bin_size: int | None = None,
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
    ) -> "CaduceusForTracks":
        """Loads a model with this head as it was trained, or any backbone under a new head.

        Args:
            path: a folder, a run, a file of weights or a hub id, as for
                `CaduceusForMaskedLM.from_pretrained`.
            num_tracks: signals that are predicted; by default those of the stored head, else 2.
            bin_size: bases per bin; by default as recorded with the model.
            rc_mode: "posthoc" or "none"; by default as recorded with the model, else "none".
            labels: names of the tracks; by default those recorded with the model.
            new_head: draw a new head even where one is stored; nothing that is recorded with the
                stored one then counts.
            dtype: type of activations and matrix products: float32 or bfloat16.
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
            UserError: nothing usable at `path`, a stored head of another size, no `bin_size`
                where none is recorded, or an option that contradicts what is recorded.
        """
        stored = checkpoint.open_model(
            path, revision=revision, token=token, cache_dir=cache_dir, base=base
        )
        task, heads = stored_head(
            path, stored, num_tracks, num_signals, rngs, new_head=new_head, tracks=True
        )
        recorded = task if stored.task is not None else None
        settings = agreed(
            path, recorded, bin_size=bin_size, rc_mode=rc_mode, labels=labels and tuple(labels)
        )
        if settings["bin_size"] is None:
            raise UserError(f"{path} does not record the bases per bin: pass bin_size")
        return build(
            lambda: cls(
                stored.config,
                num_tracks=heads["score"].shape[0],
                bin_size=settings["bin_size"],
                rc_mode=settings["rc_mode"],
                labels=settings["labels"] or (task.labels if task else ()),
                num_signals=0 if heads["signals"] is None else len(heads["signals"]),
                head_bias=heads["score_bias"] is not None,
                task=recorded,
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
    def bin_size(self) -> int:
        """Counts the bases per bin."""
        return self.task.bin_size

    def __call__(
        self,
        input_ids: ArrayInput | None = None,
        padding_mask: ArrayInput | None = None,
        signals: Float[Array, "batch length signals"] | None = None,
        *,
        inputs_one_hot: ArrayInput | None = None,
        inputs_embeds: ArrayInput | None = None,
        segment_ids: ArrayInput | None = None,
    ) -> TracksOutput:
        """Predicts the tracks.

        Args:
            input_ids: (batch, length) int token ids; `length` is a multiple of `bin_size`.
            padding_mask: (batch, length) bool, True on real tokens; bins of padding alone get
                meaningless values.
            signals: (batch, length, num_signals), in the order of `input_ids`.
            inputs_one_hot: (batch, length, 4 or vocab) weights in place of token ids.
            inputs_embeds: (batch, length, d_model or 2 * d_model) embeddings in place of them.
            segment_ids: (batch, length) integers, one per sequence packed into a row; each begins
                and ends with a bin.

        Returns:
            Values of bin i, bases i * bin_size to (i + 1) * bin_size (0-based).

        Raises:
            UserError: an input of another type or shape, or a length that is not a multiple of the
                bin.
        """
        hidden = self.states(
            input_ids,
            padding_mask,
            signals,
            inputs_one_hot=inputs_one_hot,
            inputs_embeds=inputs_embeds,
            segment_ids=segment_ids,
        )
        if hidden.shape[2] % self.bin_size:
            raise UserError(
                f"the inputs have {hidden.shape[2]} tokens, which is not a multiple of bin_size "
                f"({self.bin_size})"
            )
        if segment_ids is not None:
            check_bins(segment_ids, self.bin_size)
        states = reduce(hidden, "b s (bins bases) d -> b bins d", "mean", bases=self.bin_size)
        return TracksOutput(logits=self.head(states))
