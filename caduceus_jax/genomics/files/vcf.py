"""Variants from VCF and BCF files, and the same files with fields added to INFO.

Text is read and written line by line, so that everything but the added fields comes out as it came
in, and an error can name its line. (htslib ends the whole process where it copies a record whose
contig the header does not declare, and reads no plain gzip.) pysam translates BCF, and compresses
with bgzip.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import is_sequence, is_symbolic
from caduceus_jax.genomics.files.compressed import open_binary

_LARGEST = 2**31 - 1  # positions are 32-bit in BCF and its indexes
_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
_INFO = _COLUMNS.index("INFO")


class Variants(NamedTuple):
    """One row for each ALT of each record, in the file's order; also for a record without ALT."""

    record: Int[np.ndarray, " rows"]  # number of the row's record, from 0
    line: Int[np.ndarray, " rows"]  # of the text file, or number of the BCF's record, from 1
    chrom: list[str]
    position: Int[np.ndarray, " rows"]  # of the first base of REF, 0-based: VCF's POS - 1
    ref: list[str]
    alt: list[str | None]  # None where it is missing
    identifier: Sequence[str] = ()  # the column ID as it stands: "." where there is none


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
    source: str | pathlib.Path | Sequence[str],
    out: pathlib.Path,
    declarations: Mapping[str, str],
    fields: Iterable[Mapping[str, str]],
    *,
    provenance: str,
    compress: bool,
) -> None:
    """Copies a VCF or BCF file to a VCF file with more INFO fields.

    Args:
        source: what `read_vcf` read, or the lines of a VCF file without line ends.
        out: the file to write; it is not renamed at the end, so give a temporary one.
        declarations: INFO key -> the rest of its header line, for example
            `Number=A,Type=Float,Description="..."`. Fields of these names that the source already
            has, and their declarations, are replaced.
        fields: for each record, in the source's order, INFO key -> value.
        provenance: one more header line, which says where the fields come from.
        compress: write bgzip, which needs pysam.
    """
    if isinstance(source, (str, pathlib.Path)):
        opened = _lines(pathlib.Path(source))
    else:
        opened = contextlib.nullcontext(_text_lines(pathlib.Path(), map(_encode, source)))
    with opened as (header, lines), _writer(out, compress) as file:
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
            fresh = (f"{key}={value}" for key, value in values.items())
            columns[_INFO] = ";".join([*info, *fresh]) or "."
            file.write(_encode("\t".join(columns)))


def index_vcf(path: pathlib.Path) -> None:
    """Writes the tabix index (.tbi) of a .vcf.gz file beside it; needs pysam.

    Raises:
        UserError: the records are not sorted, or a position is beyond what such an index holds.
    """
    import pysam

    index = path.with_name(f"{path.name}.tbi")
    after = "the VCF is written, its index is not"
    finished: set[str] = set()
    contig, position = "", -1
    with _lines(path) as (_, lines):
        for number, text in lines:
            name, there = text.split("\t", 2)[:2]
            if name != contig:
                finished.add(contig)
                contig, position = name, -1
            if name in finished or int(there) < position:
                raise UserError(
                    f"{path}:{number}: {name}:{there} is out of order, and an index needs sorted "
                    f"records: sort the input, for example with bcftools sort ({after})"
                )
            position = int(there)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".index-") as folder:
        made = pathlib.Path(folder) / index.name
        try:
            pysam.tabix_index(str(path), preset="vcf", index=str(made), force=True)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be indexed: {error} ({after})") from None
        os.replace(made, index)


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
    if not is_sequence(ref):
        raise UserError(f"{where}: REF is {ref!r}: it must be the reference's bases")
    for alt in alts.split(","):
        if not is_symbolic(alt) and not is_sequence(alt):
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
