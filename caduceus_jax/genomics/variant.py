"""Variants of a genome: one, as a value, and many, as columns."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.structural import Event

_TYPED = (
    re.compile(r"(?P<chrom>.+?):(?P<pos>[0-9][0-9,]{0,19}):(?P<ref>[A-Za-z]+)[>:](?P<alt>\S+)"),
    re.compile(r"(?P<chrom>.+)-(?P<pos>[0-9]{1,20})-(?P<ref>[A-Za-z]+)-(?P<alt>\S+)"),
)


@dataclasses.dataclass(frozen=True, order=True)
class Variant:
    """One change of a genome, as a VCF writes it.

    Args:
        chrom: name of the contig.
        pos: position of the first base of `ref`, counted from 1.
        ref: the reference's bases there.
        alt: the bases in their place; "*", "." or a symbol such as "<DEL>" (whose length is in a
            VCF's INFO alone) are kept, and get a status in place of a score.

    Raises:
        UserError: a position below 0, or no `ref`.

    Examples:
        >>> variant = Variant.from_str("chr1:123:A>G")
        >>> variant
        Variant(chrom='chr1', pos=123, ref='A', alt='G')
        >>> variant.start, variant.end
        (122, 123)
        >>> str(variant)
        'chr1:123:A>G'
    """

    chrom: str
    pos: int
    ref: str
    alt: str

    def __post_init__(self) -> None:
        if self.pos < 0:
            raise UserError(f"pos is {self.pos}; positions of variants are counted from 1")
        if not self.ref:
            raise UserError("ref is empty: it must be the reference's bases")

    @classmethod
    def from_str(cls, text: str) -> "Variant":
        """Reads a variant that is written like chr1:123:A>G (123 counted from 1).

        Args:
            text: the variant; chr1:123:A:G and chr1-123-A-G mean the same.

        Raises:
            UserError: the text is not written so.
        """
        for form in _TYPED:
            if found := form.fullmatch(text.strip()):
                pos = int(found["pos"].replace(",", ""))
                return cls(found["chrom"], pos, found["ref"], found["alt"])
        raise UserError(f"{text!r} is not a variant: variants are written like chr1:123:A>G")

    def __str__(self) -> str:
        return f"{self.chrom}:{self.pos}:{self.ref}>{self.alt}"

    @property
    def start(self) -> int:
        """Returns the first base of `ref`, 0-based."""
        return self.pos - 1

    @property
    def end(self) -> int:
        """Returns the base after the last one of `ref`, 0-based."""
        return self.start + len(self.ref)


class Variants(NamedTuple):
    """One row per ALT of each record, in the order given; also for a record without ALT."""

    record: Int[np.ndarray, " rows"]  # number of the row's record, from 0
    line: Int[np.ndarray, " rows"]  # of the file, or number of a BCF's or table's record, from 1
    chrom: list[str]
    position: Int[np.ndarray, " rows"]  # of the first base of REF, 0-based: VCF's POS - 1
    ref: list[str]
    alt: list[str | None]  # None where it is missing
    identifier: Sequence[str] = ()  # the column ID as it stands: "." where there is none
    events: Mapping[int, Event] = MappingProxyType({})  # what ALT stands for, by row: of <DEL> etc.

    @classmethod
    def of(cls, variants: Iterable[Variant]) -> "Variants":
        """Returns the columns of some variants, each a record of its own."""
        variants = list(variants)
        number = np.arange(len(variants))
        return cls(
            number,
            number + 1,
            [variant.chrom for variant in variants],
            np.array([variant.start for variant in variants], np.int64),
            [variant.ref for variant in variants],
            [None if variant.alt in ("", ".") else variant.alt for variant in variants],
        )
