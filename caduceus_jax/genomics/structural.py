"""Structural variants: what ALTs such as <DEL> stand for, by INFO and the genome.

VCF 4.4, sections 1.4.5 and 3: POS is the base before the event, END its last base (both from 1),
and SVLEN its length for each ALT; a deletion's was negative before VCF 4.4.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from caduceus_jax.genomics.files.alleles import COMPLEMENT, Change, change, is_sequence
from caduceus_jax.genomics.status import Status

_SYMBOL = re.compile(r"<(?:(DEL|INS)(?::[^<>]+)?|(DUP)(?::TANDEM)?|(INV))>")
_KEYS = ("END", "SVLEN", "SEQ", "SVINSSEQ")
_INTEGER = re.compile("-?[0-9]{1,18}")


class Event(NamedTuple):
    """Describes what happens to the bases that follow a record's first one."""

    kind: str  # "DEL", "DUP", "INV" or "INS"
    length: int  # bases that are deleted, doubled, inverted or inserted
    inserted: str = ""  # of "INS", as INFO has them


def read_events(alts: Sequence[str], info: str, pos: int) -> list[Event | None]:
    """Reads what the symbolic ALTs of a record stand for.

    Args:
        alts: the record's ALTs.
        info: its column INFO.
        pos: its POS, from 1.

    Returns:
        One event for each ALT; None where ALT is of another kind, or where INFO lacks the length
        or the inserted bases, has them in another form, or contradicts itself.
    """
    kinds = [next(filter(None, m.groups())) if (m := _SYMBOL.fullmatch(a)) else "" for a in alts]
    none: list[Event | None] = [None] * len(alts)
    if not any(kinds):
        return none
    fields: dict[str, list[str]] = {}
    for entry in info.split(";"):
        key, _, value = entry.partition("=")
        if key not in _KEYS or value in ("", "."):
            continue
        values = value.split(",")
        if fields.setdefault(key, values) != values:
            return none
    if any(len(v) != (1 if key == "END" else len(alts)) for key, v in fields.items()):
        return none
    end = fields.get("END", ["."])[0]
    lengths = fields.get("SVLEN", ["."] * len(alts))
    if not all(text == "." or _INTEGER.fullmatch(text) for text in (end, *lengths)):
        return none
    # Of several ALTs END is the longest one's.
    spanned = None if end == "." else int(end) - pos
    return [
        _event(
            kind,
            None if length == "." else int(length),
            spanned,
            len(alts) == 1,
            {fields[key][i].upper() for key in _inserted(kind) if key in fields} - {"."},
        )
        for i, (kind, length) in enumerate(zip(kinds, lengths, strict=True))
    ]


def change_of(
    event: Event,
    ref: str,
    position: int,
    contig_length: int,
    bases: Callable[[int, int], str],
    longest: int,
) -> Change:
    """Finds what an event changes, in bases of the genome.

    Args:
        event: the event.
        ref: REF of its record.
        position: the record's position, 0-based: the event begins at the base after it.
        contig_length: bases of the contig.
        bases: returns the genome's bases between two 0-based positions, the second not included.
        longest: bases of the longest event that is read; longer ones are `too_long`.

    Returns:
        The change, as `change` finds it for the same alleles written in bases. The status is
        `symbolic` where the event reaches beyond the contig.
    """
    first, last = position + 1, position + 1
    if event.kind != "INS":
        last += event.length
    if last > contig_length:
        return Change(Status.SYMBOLIC)
    if event.length > longest:
        return Change(Status.TOO_LONG)
    old = bases(first, last)
    new = {
        "DEL": "",
        "DUP": old + old,
        "INV": old.encode().translate(COMPLEMENT)[::-1].decode(),
        "INS": event.inserted,
    }[event.kind]
    return change(ref[0] + old, ref[0] + new)


def _inserted(kind: str) -> tuple[str, ...]:
    """Returns the keys of bases that a kind of event inserts; SEQ may be a deletion's own bases."""
    return ("SEQ", "SVINSSEQ") if kind == "INS" else ("SVINSSEQ",)


def _event(
    kind: str, length: int | None, spanned: int | None, alone: bool, inserted: set[str]
) -> Event | None:
    """Returns the event of one ALT, or None where what INFO has does not fit together."""
    if kind == "DEL" and length is not None:
        length = abs(length)
    if kind == "INS":
        bases = inserted.pop() if len(inserted) == 1 else ""
        fits = is_sequence(bases) and length in (None, len(bases))
        return Event(kind, len(bases), bases) if fits else None
    if inserted:  # at the ends of what is deleted, doubled or inverted
        return None
    if kind == "INV" and length == 0:  # VCF 4.3: the difference of the alleles' lengths
        length = None
    if length is None or (alone and spanned is not None and spanned != length):
        length = spanned if length is None else None
    return Event(kind, length) if kind and length is not None and length > 0 else None
