"""The settings of the data of a pretraining run."""

import dataclasses
from typing import Literal

from caduceus_jax.errors import UserError
from caduceus_jax.settings import advanced
from caduceus_jax.train.storage.remote import check_address

Names = str | list[str]  # one name, or several


def as_list(value: Names) -> list[str]:
    """Returns names as a list; an empty text is an empty list."""
    return ([value] if value else []) if isinstance(value, str) else value


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The genomes to train on, how they are split, and what is masked.

    Args:
        fasta: FASTA file, plain or .gz, or folder made by caduceus-jax prepare; or a list [a,b]
            of them. What is held out below is held out of each.
        weights: one number per genome: with [2,1] windows are drawn from the first twice as often
            as from the second. Empty: in proportion to their numbers of windows.
        temperature: instead of weights: genomes are drawn from in proportion to their windows to
            the power 1 / temperature; 1 is in proportion, 2 shows small genomes more often, and a
            very large number all alike.
        validation_fraction: this share of every contig, at its end, is held out for validation.
            Not used where `validation_contigs` are named.
        validation_contigs: contig, or a list [chrII,chrIII], held out whole for validation.
        test_contigs: contig, or a list, that is neither trained nor validated on.
        intervals: BED file whose fourth column is train, valid or test, as of the Basenji data;
            takes the place of fraction and contigs. Each interval is cut into windows; the last
            one is shifted inward until it fits, also at a contig's end.
        interval_length: intervals are extended to so many bases from their start, as the original
            does; null takes them as they are.
        interval_overlap: "cut" leaves out training windows that touch a validation or test
            interval, which extended ones often do; "keep" is the original's way.
        stride: bases from one training window to the next; null is `max_length`, no overlap.
        min_contig: contigs shorter than this are left out; null leaves out those shorter than half
            a window if the genome has longer ones, because such windows are mostly padding.
        validation_windows: largest number of windows to validate on, spread evenly over the
            held-out sequence; null is 16 million tokens of them, and 0 is all.
        validation_masks: number of different masks each validation window is seen with. They are
            the same in every run and at every step.
        mask_probability: share of the tokens to predict. Of these 80 % become [MASK], 10 %
            are replaced by a random token and 10 % left as they are.
        soft_mask_weight: weight in the training loss of bases that the FASTA has in lower case
            (repeats); 1 counts them fully, 0.1 is usual for plant genomes.
        rc_mode: "augment" shows the model either strand, with equal odds; "none" only the strand
            in the file; "equivariant" goes with model.rcps, which reads both by construction.
        workers: processes that make batches ahead of the device, each with `threads`; 0 makes
            them in this process, which is enough for most models.
        threads: number of threads that make batches.
    """

    fasta: Names = ""
    weights: list[float] = advanced(default_factory=list)
    temperature: float = advanced(1.0)
    validation_fraction: float = 0.1
    validation_contigs: Names = ""
    test_contigs: Names = ""
    intervals: str = ""
    interval_length: int | None = advanced(2**20)
    interval_overlap: Literal["cut", "keep"] = advanced("cut")
    stride: int | None = advanced(None)
    min_contig: int | None = advanced(None)
    validation_windows: int | None = advanced(None)
    validation_masks: int = advanced(1)
    mask_probability: float = 0.15
    soft_mask_weight: float = 1.0
    rc_mode: Literal["none", "augment", "equivariant"] = "equivariant"
    workers: int = advanced(0)
    threads: int = advanced(2)

    def __post_init__(self) -> None:
        for name in ("mask_probability", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; it is between 0 and 1")
        if not self.soft_mask_weight >= 0:
            raise UserError(f"data.soft_mask_weight is {self.soft_mask_weight}; it is at least 0")
        sizes = ("stride", "validation_masks", "interval_length", "threads")
        for name in sizes:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.{name} is {value}; it is at least 1")
        for name in ("workers", "validation_windows", "min_contig"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"data.{name} is {getattr(self, name)}; it is at least 0")
        for name in (*as_list(self.fasta), self.intervals):
            check_address("data", name)
        self._check_splits()

    def _check_splits(self) -> None:
        if self.weights and len(self.weights) != len(as_list(self.fasta)):
            raise UserError(
                f"data.weights has {len(self.weights)} numbers, and there are "
                f"{len(as_list(self.fasta))} genomes in data.fasta: give one for each"
            )
        if not self.temperature > 0:
            raise UserError(f"data.temperature is {self.temperature}; it is above 0")
        if self.weights and self.temperature != 1:
            raise UserError("data.weights and data.temperature are both given: leave one out")
        if not all(weight > 0 for weight in self.weights):
            raise UserError(f"data.weights is {self.weights}; each is above 0")
        if self.intervals and (as_list(self.validation_contigs) or as_list(self.test_contigs)):
            raise UserError(
                "data.intervals says what is held out, so data.validation_contigs and "
                "data.test_contigs must be left out"
            )
        if both := sorted(set(as_list(self.validation_contigs)) & set(as_list(self.test_contigs))):
            raise UserError(f"{both[0]} is both in data.validation_contigs and data.test_contigs")
