"""Variants from VCF and BCF files, and the same files with fields added to INFO.

Text is read and written line by line, so that everything but the added fields comes out as it came
in, and an error can name its line. (htslib ends the whole process where it copies a record whose
contig the header does not declare, and reads no plain gzip.) pysam translates BCF, and compresses
with bgzip.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.compressed import open_binary
from caduceus_jax.genomics.windows import Status

_LARGEST = 2**31 - 1  # positions are 32-bit in BCF and its indexes
_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
_INFO = _COLUMNS.index("INFO")
_BASES = re.compile("[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)
_BREAKEND = re.compile(r"[\[\]]|^\.|\.$")


class Variants(NamedTuple):
    """One row for each ALT of each record, in the file's order; also for a record without ALT."""

    record: Int[np.ndarray, " rows"]  # number of the row's record, from 0
    line: Int[np.ndarray, " rows"]  # of the text file, or number of the BCF's record, from 1
    chrom: list[str]
    position: Int[np.ndarray, " rows"]  # of the first base of REF, 0-based: VCF's POS - 1
    ref: list[str]
    alt: list[str | None]  # None where it is missing
    identifier: Sequence[str] = ()  # the column ID as it stands: "." where there is none


class Change(NamedTuple):
    """What an ALT does to REF."""

    status: Status  # OK where it changes a single base
    offset: int = 0  # of that base in REF, 0-based
    ref: str = ""  # that base in upper case
    alt: str = ""  # what it becomes, in upper case


def read_vcf(path: str | pathlib.Path) -> Variants:
    """Reads the variants of a VCF (plain, gzip or bgzip) or BCF file; a header alone gives none.

    Raises:
        UserError: no such file, not a VCF, or a line that is no record, with its number.
    """
    path = pathlib.Path(path)
    record, line, chrom, position, ref, alt, identifier = [], [], [], [], [], [], []
    with _lines(path) as (_, lines):
        for i, (number, text) in enumerate(lines):
            columns = _checked(f"{path}:{number}", text)
            alts = columns[4].split(",")
            record += [i] * len(alts)
            line += [number] * len(alts)
            chrom += [columns[0]] * len(alts)
            position += [int(columns[1]) - 1] * len(alts)
            ref += [columns[3]] * len(alts)
            alt += [None if a in (".", "") else a for a in alts]
            identifier += [columns[2]] * len(alts)
    integers = (np.array(column, np.int64) for column in (record, line, position))
    record, line, position = integers
    return Variants(record, line, chrom, position, ref, alt, identifier)


def write_vcf(
    source: str | pathlib.Path,
    out: pathlib.Path,
    declarations: Mapping[str, str],
    fields: Iterable[Mapping[str, str]],
    *,
    provenance: str,
    compress: bool,
) -> None:
    """Copies a VCF or BCF file to a VCF file with more INFO fields.

    Args:
        source: what `read_vcf` read.
        out: the file to write; it is not renamed at the end, so give a temporary one.
        declarations: INFO key -> the rest of its header line, for example
            `Number=A,Type=Float,Description="..."`. Fields of these names that the source already
            has, and their declarations, are replaced.
        fields: for each record, in the source's order, INFO key -> value.
        provenance: one more header line, which says where the fields come from.
        compress: write bgzip, which needs pysam.
    """
    with _lines(pathlib.Path(source)) as (header, lines), _writer(out, compress) as file:
        replaced = tuple(f"##INFO=<ID={key}," for key in declarations)
        kept = [text for text in header if not text.startswith(replaced)]
        added = [f"##INFO=<ID={key},{rest}>" for key, rest in declarations.items()]
        for text in (*kept[:-1], *added, provenance, kept[-1]):
            file.write(_encode(text))
        for (_, text), values in zip(lines, fields, strict=True):
            columns = text.split("\t")
            info = [
                entry
                for entry in columns[_INFO].split(";")
                if entry not in (".", "") and entry.partition("=")[0] not in declarations
            ]
            columns[_INFO] = ";".join([*info, *(f"{key}={v}" for key, v in values.items())])
            file.write(_encode("\t".join(columns)))


def single_base_change(ref: str, alt: str | None) -> Change:
    """What kind of change an ALT is, and the one base it changes where it is one.

    Records that list several alleles pad them all to one REF (`REF=AT ALT=A,AC`): an ALT that
    differs from REF in one base is that base's change.
    """
    if alt is None:
        return Change(Status.MISSING_ALT)
    if alt == "*":
        return Change(Status.SPANNING_DELETION)
    if not _BASES.fullmatch(alt):
        return Change(Status.SYMBOLIC)
    if len(ref) != len(alt):
        return Change(Status.INDEL)
    ref, alt = ref.upper(), alt.upper()
    changed = [i for i in range(len(ref)) if ref[i] != alt[i]]
    if len(ref) > 1 and len(changed) != 1:
        return Change(Status.MNV)
    at = changed[0] if changed else 0
    known = ref[at] in "ACGT" and alt[at] in "ACGT"
    return Change(Status.OK if known else Status.AMBIGUOUS, at, ref[at], alt[at])


def _checked(where: str, text: str) -> list[str]:
    """The columns of a record as far as INFO."""
    columns = text.split("\t", len(_COLUMNS))
    if len(columns) < len(_COLUMNS):
        raise UserError(
            f"{where}: only {len(columns)} of a VCF's {len(_COLUMNS)} columns; they are separated "
            "by tabs"
        )
    chrom, position, _, ref, alts = columns[:5]
    if not chrom.strip():
        raise UserError(f"{where}: the first column, CHROM, is empty")
    if not (position.isascii() and position.isdecimal()):
        raise UserError(f"{where}: POS is {position!r}, not a whole number from 1 up")
    if len(position) > len(str(_LARGEST)) or int(position) > _LARGEST:
        raise UserError(f"{where}: POS is {position[:20]}, beyond 2^31: no contig is that long")
    if not _BASES.fullmatch(ref):
        raise UserError(f"{where}: REF is {ref!r}: it must be the reference's bases")
    for alt in alts.split(","):
        symbolic = alt in ("*", ".") or _BREAKEND.search(alt) or (alt[:1], alt[-1:]) == ("<", ">")
        if not symbolic and not _BASES.fullmatch(alt):
            raise UserError(
                f"{where}: ALT is {alt!r}: it must be bases, '*', '.', a symbol such as <DEL>, or "
                "a breakend"
            )
    return columns


@contextlib.contextmanager
def _lines(path: pathlib.Path) -> Iterator[tuple[list[str], Iterator[tuple[int, str]]]]:
    """The header's lines, and the records' lines with their numbers, without line ends."""
    with open_binary(path) as file:
        if file.read(3) == b"BCF":
            yield _bcf_lines(path)
        else:
            file.seek(0)
            yield _text_lines(path, file)


def _text_lines(
    path: pathlib.Path, file: Iterable[bytes]
) -> tuple[list[str], Iterator[tuple[int, str]]]:
    numbered = enumerate(map(_decode, file), start=1)
    header: list[str] = []
    for number, text in numbered:
        if number == 1 and not text.startswith("##fileformat=VCF"):
            raise UserError(
                f"{path} is no VCF: it starts with {text[:20]!r}, where a VCF starts with a line "
                "##fileformat=VCFv4.2"
            )
        header.append(text)
        if text.startswith("##"):
            continue
        if tuple(text.split("\t")[: len(_COLUMNS)]) != _COLUMNS:
            raise UserError(
                f"{path}:{number}: a VCF has a line #CHROM POS ID REF ALT QUAL FILTER INFO before "
                "its records, separated by tabs"
            )
        return header, ((n, record) for n, record in numbered if record.strip(" \t"))
    if not header:
        raise UserError(f"{path} is empty: a VCF starts with a line ##fileformat=VCFv4.2")
    raise UserError(f"{path} ends within its header: there is no #CHROM line")


def _bcf_lines(path: pathlib.Path) -> tuple[list[str], Iterator[tuple[int, str]]]:
    try:
        import pysam
    except ImportError:
        raise UserError(
            f"{path} is BCF, which pysam reads: pip install 'caduceus-jax[genomics]', or convert "
            "it with bcftools view"
        ) from None
    loudness = pysam.set_verbosity(0)  # or htslib complains that there is no index
    try:
        file = pysam.VariantFile(str(path))
        header = str(file.header).splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as BCF: {error}") from None
    finally:
        pysam.set_verbosity(loudness)

    def records() -> Iterator[tuple[int, str]]:
        number = 0
        try:
            for number, record in enumerate(file, start=1):
                yield number, _decode(str(record).encode())
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: record {number + 1} cannot be read: {error}") from None

    return header, records()


@contextlib.contextmanager
def _writer(path: pathlib.Path, compress: bool) -> Iterator[Any]:
    if not compress:
        with path.open("wb") as file:
            yield file
        return
    import pysam

    with contextlib.closing(pysam.BGZFile(str(path), "wb")) as file:  # pyright: ignore
        yield file


def _decode(line: bytes) -> str:
    # Whatever is no UTF-8 comes out again as it came in.
    return line.decode("utf-8", errors="surrogateescape").rstrip("\r\n")


def _encode(line: str) -> bytes:
    return line.encode("utf-8", errors="surrogateescape") + b"\n"
