"""The outputs of a fine-tuned model: what they are called, and how two of them are compared."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.inference.attributions import output_index
from caduceus_jax.inference.loading import Pretrained, checked_tokenizer
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.tracks import CaduceusForTracks
from caduceus_jax.model.typing import PaddingMask, TokenIds


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Describes what a fine-tuned model gives for a window, and what a change of it is called.

    Args:
        task: the model's description of its outputs.
        names: names of the classes, values or tracks.
        tracks: the outputs are values along the sequence.
        pad_id: token that completes shorter sequences, where the model was trained so.
    """

    task: TaskDescription
    names: tuple[str, ...]
    tracks: bool
    pad_id: int

    @classmethod
    def of(cls, m: Pretrained) -> "Outputs":
        """Reads what a model gives.

        Args:
            m: a classifier, a model of values or a model of tracks, with its tokenizer.

        Raises:
            UserError: a language model, or a model that reads more than the sequence.
        """
        model: Any = m.model
        if isinstance(model, CaduceusForMaskedLM):
            raise UserError(
                "the model was not fine-tuned and predicts only masked bases: name a "
                "folder that caduceus-jax finetune wrote, such as runs/finetune/seed-1/model"
            )
        if model.signals is not None:
            raise UserError(
                "the model reads signals beside the sequence: use it in Python, with "
                f"{type(model).__name__}"
            )
        tokenizer = checked_tokenizer(model, m.tokenizer, both_strands=True)
        count = int(model.score.shape[0])
        names = model.task.labels or tuple(f"LABEL_{i}" for i in range(count))
        tracks = isinstance(model, CaduceusForTracks)
        return cls(model.task, names, tracks, tokenizer.pad_id)

    @property
    def bins(self) -> int:
        """Returns the bases of a bin of tracks; 1 of other outputs."""
        return self.task.bin_size if self.tracks else 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns the columns of `changes`."""
        if self.tracks:
            pairs = ((f"difference_{n}", f"largest_difference_{n}") for n in self.names)
            return tuple(column for pair in pairs for column in pair)
        if self.task.kind == "regression":
            return tuple(f"difference_{name}" for name in self.names)
        pairs = ((f"difference_p_{n}", f"log_odds_ratio_{n}") for n in self.names)
        return tuple(column for pair in pairs for column in pair)

    def column(self, output: str | None) -> str:
        """Returns the column that a picture or a track of one output shows.

        Args:
            output: name or number (from 0) of a class, value or track; None for the only one, or
                the second of two.

        Raises:
            UserError: an output that the model does not have.
        """
        name = self.names[output_index(output, self.names)]
        of_values = self.tracks or self.task.kind == "regression"
        return f"difference_{name}" if of_values else f"log_odds_ratio_{name}"

    def describe(self, column: str) -> str:
        """Returns what a column has, for the header of a file.

        Args:
            column: one of `columns`.
        """
        for start, text in (
            ("difference_p_", "Probability of {} with ALT minus that with REF"),
            ("log_odds_ratio_", "Log-odds of {} with ALT minus those with REF, natural logarithm"),
            ("largest_difference_", "Change of {}, ALT minus REF, in the bin where it is largest"),
        ):
            if column.startswith(start) and column.removeprefix(start) in self.names:
                return text.format(column.removeprefix(start))
        name = column.removeprefix("difference_")
        mean = "Mean of {} over the window" if self.tracks else "Value of {}"
        return f"{mean.format(name)} with ALT minus that with REF"

    def check_context(self, length: int) -> None:
        """Refuses a context that the model cannot read.

        Raises:
            UserError: the context is longer than what the model was trained on, or is not made of
                whole bins.
        """
        most = self.task.max_length
        if most is not None and length > most:
            raise UserError(
                f"context_length is {length:,}, more than the {most:,} bases that the model was "
                "trained on"
            )
        if length % self.bins:
            raise UserError(
                f"context_length is {length:,}, which is not a multiple of the model's bins of "
                f"{self.bins}"
            )

    def shape(self, length: int) -> tuple[int, ...]:
        """Returns the shape of the outputs of a window of so many tokens."""
        return (
            (length // self.task.bin_size, len(self.names)) if self.tracks else (len(self.names),)
        )

    def run_length(self, length: int) -> int:
        """Returns the tokens that are run of a window: more where the model was trained so."""
        return self.task.max_length or length if self.task.padded else length

    def changes(
        self, ref: Float[np.ndarray, "rows ..."], alt: Float[np.ndarray, "rows ..."]
    ) -> Float[np.ndarray, "rows columns"]:
        """Compares the outputs of windows with ALT with those with REF, in the order of `columns`.

        Args:
            ref: (rows, outputs) or, of tracks, (rows, bins, outputs) of the windows with REF.
            alt: the same of those with ALT.
        """
        ref, alt = ref.astype(np.float64), alt.astype(np.float64)
        shape = len(ref), len(self.columns)
        if self.tracks:
            difference = (alt - ref) * self._scale
            largest = np.abs(difference).argmax(axis=1, keepdims=True)
            at = np.take_along_axis(difference, largest, axis=1)[:, 0]
            both = np.stack([difference.mean(axis=1), at], axis=2)
            return both.reshape(shape).astype(np.float32)
        if self.task.kind == "regression":
            return ((alt - ref) * self._scale).astype(np.float32)
        old, new = self._log_odds(ref), self._log_odds(alt)
        both = np.stack([_sigmoid(new) - _sigmoid(old), new - old], axis=2)
        return both.reshape(shape).astype(np.float32)

    def values(self, outputs: Float[np.ndarray, "... outputs"]) -> Float[np.ndarray, "... outputs"]:
        """Returns values of a task or of tracks as they were before training scaled them."""
        centre = np.asarray(self.task.centre or 0.0, np.float32)
        return outputs * np.asarray(self.task.scale or 1.0, np.float32) + centre

    @property
    def _scale(self) -> np.ndarray:
        return np.asarray(self.task.scale or (1.0,) * len(self.names), np.float64)

    def _log_odds(self, logits: Float[np.ndarray, "rows classes"]) -> np.ndarray:
        """Returns the log-odds of each class against all others, or of each label by itself."""
        if self.task.kind == "multi_label" or logits.shape[1] < 2:
            return logits
        columns = []
        for i in range(logits.shape[1]):
            others = np.delete(logits, i, axis=1)
            most = others.max(axis=1)
            columns.append(logits[:, i] - most - np.log(np.exp(others - most[:, None]).sum(axis=1)))
        return np.stack(columns, axis=1)


def forward(
    model: Any, ids: TokenIds, mask: PaddingMask | None
) -> Float[jax.Array, "batch ... outputs"]:
    """Computes the outputs of a batch, without their scale.

    Args:
        model: a classifier, a model of values or a model of tracks.
        ids: (batch, length) token ids.
        mask: (batch, length), True on real tokens; None where all are.
    """
    return model(ids, mask).logits


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
