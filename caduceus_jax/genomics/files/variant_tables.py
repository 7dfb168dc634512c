"""Variants in tables: one row per ALT, with the columns chrom, pos (from 1), ref and alt."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import polars

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import is_sequence
from caduceus_jax.genomics.files.tables import Table
from caduceus_jax.genomics.variant import Variants

COLUMNS = ("chrom", "pos", "ref", "alt")
_LARGEST = 2**31 - 1  # as in VCF


def variants_of(table: Table) -> Variants:
    """Returns the variants of a table, one record per row.

    Raises:
        UserError: none of the four columns, or a row that is not a variant.
    """
    frame = table.frame
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(
            f"{table.name} has no column {', '.join(missing)}: a table of variants has chrom, pos, "
            "ref and alt"
        )
    chrom, pos, ref, alt = (frame[name].to_list() for name in COLUMNS)
    chrom = [None if name is None else str(name) for name in chrom]
    position = np.zeros(len(frame), np.int64)
    for i, row in enumerate(zip(chrom, pos, ref, alt, strict=True)):
        try:
            position[i] = _checked(*row) - 1
        except ValueError as error:
            raise UserError(f"{table.where(i)}: {error}") from None
    known = [None if a in (None, "", ".") else a for a in alt]
    lines = np.array([table.line(i) for i in range(len(frame))], np.int64)
    names = [str(name) for name in chrom]
    return Variants(np.arange(len(frame)), lines, names, position, ref, known)


def _checked(chrom: object, pos: object, ref: object, alt: object) -> int:
    """Returns the position of a row, from 1; a ValueError tells what is wrong."""
    if not isinstance(chrom, str) or not chrom.strip():
        raise ValueError("chrom is empty")
    number = pos if isinstance(pos, int) else None
    if isinstance(pos, str) and pos.isascii() and pos.isdecimal():
        number = int(pos)
    if number is None or number < 0:
        raise ValueError(f"pos is {pos!r}, not a whole number from 1 up")
    if number > _LARGEST:
        raise ValueError(f"pos is {pos}, beyond 2^31: no contig is that long")
    if not isinstance(ref, str) or not is_sequence(ref):
        raise ValueError(f"ref is {ref!r}: it must be the reference's bases")
    if isinstance(alt, str) and "," in alt:
        raise ValueError(f"alt is {alt!r}: a table has one row per ALT")
    if alt is not None and not isinstance(alt, str):
        raise ValueError(f"alt is {alt!r}, not text")
    return number


def frame_of(variants: Variants) -> polars.DataFrame:
    """Returns variants as a table: chrom, pos (from 1), ref and alt."""
    texts = {"chrom": variants.chrom, "ref": variants.ref, "alt": variants.alt}
    series = {name: polars.Series(values, dtype=polars.String) for name, values in texts.items()}
    series["pos"] = polars.Series(variants.position + 1, dtype=polars.Int64)
    return polars.DataFrame({name: series[name] for name in COLUMNS})


def vcf_lines(
    variants: Variants, contigs: Iterable[tuple[str, int]], declared: Mapping[str, int | None]
) -> Iterator[str]:
    """Yields the lines of a VCF file with one record for each row.

    Args:
        variants: the rows.
        contigs: names and lengths of the genome's contigs, in its order.
        declared: name in `variants` -> number of the genome's contig; None where it has none.
    """
    lengths = [length for _, length in contigs]
    known = sorted((i, name) for name, i in declared.items() if i is not None)
    yield "##fileformat=VCFv4.2"
    yield from (f"##contig=<ID={name},length={lengths[i]}>" for i, name in known)
    yield from (f"##contig=<ID={name}>" for name, i in declared.items() if i is None)
    yield "\t".join("#CHROM POS ID REF ALT QUAL FILTER INFO".split())
    rows = zip(variants.chrom, variants.position.tolist(), variants.ref, variants.alt, strict=True)
    for chrom, position, ref, alt in rows:
        yield f"{chrom}\t{position + 1}\t.\t{ref}\t{alt or '.'}\t.\t.\t."
