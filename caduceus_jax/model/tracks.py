"""Caduceus with a head for signals along the sequence, such as coverage in bins."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from einops import reduce
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import selective_scan
from caduceus_jax.model import checkpoint
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.heads import CaduceusForSequenceClassification
from caduceus_jax.model.mamba import Scan
from caduceus_jax.model.typing import PaddingMask, TokenIds


class TracksOutput(NamedTuple):
    """What `CaduceusForTracks` returns."""

    logits: Float[Array, "batch bins tracks"]  # float32


class CaduceusForTracks(nnx.Module):
    """Caduceus with a linear head on the mean state of every bin.

    Both strands' states are averaged, so that the tracks of a reverse complement are the tracks
    turned around, where the model reads both. Parameters are those of a sequence classifier with
    as many labels as there are tracks, and are stored like these.

    Args:
        config: the architecture.
        num_tracks: signals that are predicted.
        bin_size: bases of a bin.
        rc_mode: "posthoc" makes a model that is not equivariant read both strands.
        dtype: see `CaduceusForMaskedLM`.
        remat: see `CaduceusForMaskedLM`.
        scan: see `CaduceusForMaskedLM`.
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
        rc_mode: Literal["posthoc"] | None = None,
        dtype: Dtype = jnp.float32,
        remat: bool = False,
        scan: Scan = selective_scan,
        rngs: nnx.Rngs,
    ):
        if bin_size < 1:
            raise UserError(f"bin_size is {bin_size}; it is at least 1")
        inner = CaduceusForSequenceClassification(
            config,
            num_labels=num_tracks,
            rc_mode=rc_mode,
            dtype=dtype,
            remat=remat,
            scan=scan,
            rngs=rngs,
        )
        self.config, self.bin_size, self.rc_mode = config, bin_size, rc_mode
        self.caduceus, self.score = inner.caduceus, inner.score

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        num_tracks: int | None = None,
        bin_size: int,
        rc_mode: Literal["posthoc"] | None = None,
        dtype: Dtype = jnp.float32,
        remat: bool = False,
        scan: Scan = selective_scan,
        rngs: nnx.Rngs | None = None,
    ) -> "CaduceusForTracks":
        """Loads a model with this head, or the backbone of a language model under a new one.

        Args:
            path: see `CaduceusForMaskedLM.from_pretrained`.
            num_tracks: by default those of the stored head, else 2.
            bin_size: see the class.
            rc_mode: see the class.
            dtype: see the class.
            remat: see the class.
            scan: see the class.
            rngs: draws the head where none is stored; `nnx.Rngs(0)` by default.

        Raises:
            UserError: as for `CaduceusForSequenceClassification.from_pretrained`.
        """
        common = {"rc_mode": rc_mode, "dtype": dtype, "remat": remat, "scan": scan}
        stored = CaduceusForSequenceClassification.from_pretrained(
            path, num_labels=num_tracks, rngs=rngs, **common
        )
        model = nnx.eval_shape(
            lambda: cls(
                stored.config,
                num_tracks=stored.num_labels,
                bin_size=bin_size,
                rngs=nnx.Rngs(0),
                **common,
            )
        )
        nnx.update(model, nnx.state(stored, nnx.Param))
        return model

    def save_pretrained(self, path: str) -> None:
        """Writes `config.json` and `model.safetensors`; `bin_size` is not among them."""
        checkpoint.save(path, self.config, nnx.state(self, nnx.Param))

    def __call__(
        self, input_ids: TokenIds, padding_mask: PaddingMask | None = None
    ) -> TracksOutput:
        """Predicts the tracks.

        Args:
            input_ids: (batch, length) int token ids; `length` is a multiple of `bin_size`.
            padding_mask: (batch, length) bool, True on real tokens; bins of padding alone get
                meaningless values.

        Returns:
            Values of bin i, bases i * bin_size to (i + 1) * bin_size (0-based).

        Raises:
            UserError: the length is no multiple of the bin.
        """
        if input_ids.shape[1] % self.bin_size:
            raise UserError(
                f"{input_ids.shape[1]} tokens are no multiple of a bin of {self.bin_size}"
            )
        hidden, _ = self.caduceus(input_ids, padding_mask, both_strands=self.rc_mode == "posthoc")
        hidden = hidden.astype(jnp.float32)
        states = reduce(hidden, "b s (bins bases) d -> b bins d", "mean", bases=self.bin_size)
        logits = jnp.einsum("bnd,td->bnt", states, self.score[...], precision="highest")
        return TracksOutput(logits=logits)
