"""Variants from VCF and BCF files, and the same files with fields added to INFO.

Text is read and written line by line as bytes, so that everything but the added fields comes out as
it came in, line ends included, and an error can name its line. (htslib ends the whole process where
it copies a record whose contig the header does not declare, and reads no plain gzip.) pysam
translates BCF, and compresses with bgzip.
"""

import codecs
import contextlib
import io
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import Genotype, genotype, is_sequence
from caduceus_jax.genomics.files.inputs import AnyPath, Input, as_input
from caduceus_jax.genomics.structural import Event, read_events
from caduceus_jax.genomics.variant import Variants

_LARGEST = 2**31 - 1  # positions are 32-bit in BCF and its indexes
_COLUMNS = (b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO")
_INFO = _COLUMNS.index(b"INFO")
_FORMAT, _SAMPLES = _INFO + 1, _INFO + 2
_CONTIG = re.compile(rb"##contig=<(?:.*,)?ID=([^,>]+)")
_LENGTH = re.compile(rb"##contig=<(?:.*,)?length=([0-9]+)")

# A record's INFO fields that are there already, and those to add -> those to write.
Combine = Callable[[Mapping[str, str], Mapping[str, str]], Mapping[str, str]]


class Vcf:
    """A VCF (plain, gzip or bgzip) or BCF file; its records can be read again and again.

    Args:
        source: the file.

    Attributes:
        name: its name in errors.
        header: the header's lines as they stand, the last one with the columns' names.
        contigs: lengths that the header declares, by name of the contig.

    Raises:
        UserError: no such file, or not a VCF.
    """

    def __init__(self, source: AnyPath | Input):
        self._source = as_input(source)
        self.name = self._source.name
        with self._source.open() as file:
            self._binary = file.read(3) == b"BCF"
        with self._lines() as (header, _):
            self.header = header
        self.contigs: dict[str, int] = {}
        for line in self.header:
            if (name := _CONTIG.match(line)) and (length := _LENGTH.match(line)):
                self.contigs[_decode(name[1])] = int(length[1])

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> "Vcf":
        """Returns a VCF of lines in memory, header and records, without line ends."""
        self = cls.__new__(cls)
        text = b"".join(_encode(line) + b"\n" for line in lines)
        self._source, self._binary, self.name, self.contigs = text, False, "variants", {}
        with self._lines() as (header, _):
            self.header = header
        return self

    @contextlib.contextmanager
    def records(self) -> Iterator[Iterator[tuple[int, bytes]]]:
        """Yields the records' lines as they stand, each with its number in the file, from 1."""
        with self._lines() as (_, records):
            yield records

    def variants(self) -> Variants:
        """Returns one row per ALT of each record, and per record without ALT.

        Raises:
            UserError: a line that is not a record, with its number.
        """
        record, line, chrom, position, ref, alt, identifier = [], [], [], [], [], [], []
        events: dict[int, Event] = {}
        with self.records() as records:
            for i, (number, text) in enumerate(records):
                columns = _checked(f"{self.name}:{number}", text)
                alts = columns[4].split(",")
                if "<" in columns[4]:
                    read = read_events(alts, _info(text), int(columns[1]))
                    events |= {len(alt) + i: e for i, e in enumerate(read) if e is not None}
                record += [i] * len(alts)
                line += [number] * len(alts)
                chrom += [columns[0]] * len(alts)
                position += [int(columns[1]) - 1] * len(alts)
                ref += [columns[3]] * len(alts)
                alt += [None if a in (".", "") else a for a in alts]
                identifier += [columns[2]] * len(alts)
        integers = (np.array(column, np.int64) for column in (record, line, position))
        record, line, position = integers
        return Variants(record, line, chrom, position, ref, alt, identifier, events)

    def genotypes(self, sample: str | None) -> list[Genotype]:
        """Returns one sample's genotype of each record.

        Args:
            sample: its name; None for the first.

        Raises:
            UserError: the file has no samples, or none of this name.
        """
        names = [_decode(n) for n in self.header[-1].rstrip(b"\r\n").split(b"\t")[_SAMPLES:]]
        if not names:
            raise UserError(f"{self.name} has no samples: phased variants need a sample's GT")
        if sample is not None and sample not in names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise UserError(f"{self.name} has no sample {sample}; it has {shown}")
        column = _SAMPLES + (0 if sample is None else names.index(sample))
        found = []
        with self.records() as records:
            for _, line in records:
                columns = line.rstrip(b"\r\n").split(b"\t", column + 1)
                has = len(columns) > column
                keys, values = (columns[i].split(b":") if has else [] for i in (_FORMAT, column))
                # Fields at the end may be left out.
                pairs = zip(map(_decode, keys), map(_decode, values), strict=False)
                found.append(genotype(dict(pairs)))
        return found

    def digest(self) -> str:
        """Computes the SHA-256 of the file."""
        assert isinstance(self._source, Input)
        return self._source.digest()

    @contextlib.contextmanager
    def _lines(self) -> Iterator[tuple[list[bytes], Iterator[tuple[int, bytes]]]]:
        if isinstance(self._source, bytes):
            yield _text_lines(self.name, io.BytesIO(self._source))
        elif self._binary:
            with self._source.file_object() as file:
                yield _bcf_lines(self.name, file)
        else:
            with self._source.open() as file:
                yield _text_lines(self.name, file)


def read_vcf(path: AnyPath | Input) -> Variants:
    """Reads the variants of a VCF (plain, gzip or bgzip) or BCF file; a header alone gives none.

    Raises:
        UserError: no such file, not a VCF, or a line that is not a record, with its number.
    """
    return Vcf(path).variants()


def write_vcf(
    source: Vcf,
    out: pathlib.Path,
    declarations: Mapping[str, str],
    fields: Iterable[Mapping[str, str]],
    *,
    provenance: Mapping[str, str],
    compress: bool,
    combine: Combine | None = None,
) -> None:
    """Copies a VCF or BCF file to a VCF file with more INFO fields.

    Args:
        source: the file that is copied.
        out: the file to write; it is not renamed at the end, so give a temporary one.
        declarations: INFO key -> the rest of its header line, for example
            `Number=A,Type=Float,Description="..."`. Fields of these names that the source already
            has, and their declarations, are replaced.
        fields: one dictionary per record, in the source's order: INFO key -> value.
        provenance: keys and values of one more header line, `##caduceus_jax=<...>`, which tells
            where the fields come from; the first key is ID. A line of the same ID is replaced.
        compress: write bgzip, which needs pysam.
        combine: joins the INFO fields that a record already has with the new ones; by default the
            new ones replace them.
    """
    with source.records() as records, writer(out, compress) as file:
        for line in _header(source.header, declarations, provenance):
            file.write(line)
        for (_, line), new in zip(records, fields, strict=True):
            file.write(_annotated(line, declarations, new, combine))


def _header(
    lines: Sequence[bytes], declarations: Mapping[str, str], provenance: Mapping[str, str]
) -> Iterator[bytes]:
    end = b"\r\n" if lines[-1].endswith(b"\r\n") else b"\n"
    replaced = [f"##INFO=<ID={key}," for key in declarations]
    added = [f"##INFO=<ID={key},{rest}>" for key, rest in declarations.items()]
    if provenance:
        pairs = [f"{key}={_quoted(value)}" for key, value in provenance.items()]
        pairs[0] = pairs[0].replace('"', "")
        replaced.append(f"##caduceus_jax=<{pairs[0]},")
        added.append(f"##caduceus_jax=<{','.join(pairs)}>")
    starts = tuple(_encode(start) for start in replaced)
    yield from (
        _ended(line, end) for line in lines[:-1] if not starts or not line.startswith(starts)
    )
    yield from (_encode(line) + end for line in added)
    yield _ended(lines[-1], end)


def _annotated(
    line: bytes, keys: Mapping[str, str], new: Mapping[str, str], combine: Combine | None
) -> bytes:
    """Returns a record with other values of some INFO fields; all other bytes stay."""
    text = line.rstrip(b"\r\n")
    columns = text.split(b"\t", len(_COLUMNS))
    info = _decode(columns[_INFO])
    entries = [] if info in (".", "") else info.split(";")
    if combine is not None:
        there = {entry.partition("=")[0]: entry.partition("=")[2] for entry in entries}
        new = combine(there, new)
    kept = ";".join(entry for entry in entries if entry.partition("=")[0] not in keys)
    added = ";".join(f"{key}={value}" for key, value in new.items())
    between = ";" if kept and added and not kept.endswith(";") else ""
    columns[_INFO] = _encode(kept + between + added or ".")
    return b"\t".join(columns) + (line[len(text) :] or b"\n")


def _info(line: bytes) -> str:
    return _decode(line.rstrip(b"\r\n").split(b"\t", len(_COLUMNS))[_INFO])


def _quoted(value: object) -> str:
    """Returns a value of a header line, as VCF 4.3 (1.4) escapes it."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{" ".join(text.splitlines())}"'


def _ended(line: bytes, end: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + end


def _checked(where: str, line: bytes) -> list[str]:
    """Returns the first five columns of a record."""
    if b"\0" in line:
        raise UserError(f"{where}: a zero byte: this is not text, so not a VCF file")
    columns = line.rstrip(b"\r\n").split(b"\t", len(_COLUMNS))
    if len(columns) < len(_COLUMNS):
        raise UserError(
            f"{where}: only {len(columns)} of a VCF's {len(_COLUMNS)} columns; they are separated "
            "by tabs"
        )
    chrom, position, identifier, ref, alts = map(_decode, columns[:5])
    if not chrom.strip():
        raise UserError(f"{where}: the first column, CHROM, is empty")
    if not (position.isascii() and position.isdecimal()):
        raise UserError(f"{where}: POS is {position!r}, not a whole number from 1 up")
    if len(position) > len(str(_LARGEST)) or int(position) > _LARGEST:
        raise UserError(f"{where}: POS is {position[:20]}, beyond 2^31: no contig is that long")
    if not is_sequence(ref):
        raise UserError(f"{where}: REF is {ref!r}: it must be the reference's bases")
    return [chrom, position, identifier, ref, alts]


def _text_lines(
    name: str, file: Iterable[bytes]
) -> tuple[list[bytes], Iterator[tuple[int, bytes]]]:
    numbered = enumerate(file, start=1)
    header: list[bytes] = []
    for number, line in numbered:
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
            if not line.startswith(b"##fileformat=VCF"):
                shown = _decode(line.rstrip(b"\r\n"))[:20]
                raise UserError(
                    f"{name} is not a VCF: it starts with {shown!r}, where a VCF starts with a "
                    "line ##fileformat=VCFv4.2; tables of variants end in .tsv, .csv or .parquet"
                )
        header.append(line)
        if line.startswith(b"##"):
            continue
        if tuple(line.rstrip(b"\r\n").split(b"\t")[: len(_COLUMNS)]) != _COLUMNS:
            raise UserError(
                f"{name}:{number}: a VCF has a line #CHROM POS ID REF ALT QUAL FILTER INFO before "
                "its records, separated by tabs"
            )
        return header, ((n, record) for n, record in numbered if record.strip(b" \t\r\n"))
    if not header:
        raise UserError(f"{name} is empty: a VCF starts with a line ##fileformat=VCFv4.2")
    raise UserError(f"{name} ends within its header: there is no #CHROM line")


def _bcf_lines(name: str, source: Any) -> tuple[list[bytes], Iterator[tuple[int, bytes]]]:
    try:
        import pysam
    except ImportError:
        raise UserError(
            f"{name} is BCF, which pysam reads: pip install 'caduceus-jax[genomics]', or convert "
            "it with bcftools view"
        ) from None
    loudness = pysam.set_verbosity(0)  # or htslib complains about the missing index
    try:
        file = pysam.VariantFile(source)
        header = [line.encode() + b"\n" for line in str(file.header).splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be read as BCF: {error}") from None
    except TypeError:  # pysam fails to name a file object in its own error
        raise UserError(f"{name} cannot be read as BCF: it is damaged") from None
    finally:
        pysam.set_verbosity(loudness)

    def records() -> Iterator[tuple[int, bytes]]:
        """Yields records with their numbers, from 1."""
        number = 0
        try:
            for number, record in enumerate(file, start=1):
                yield number, str(record).encode()
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{name}: record {number + 1} cannot be read: {error}") from None

    return header, records()


@contextlib.contextmanager
def writer(path: pathlib.Path, compress: bool) -> Iterator[Any]:
    """Opens a file for writing bytes.

    Args:
        path: the file.
        compress: write bgzip, which needs pysam.
    """
    if not compress:
        with path.open("wb") as file:
            yield file
        return
    import pysam

    with contextlib.closing(pysam.BGZFile(str(path), "wb")) as file:  # pyright: ignore
        yield file


def _decode(text: bytes) -> str:
    # Bytes that are not UTF-8 come out again as they came in.
    return text.decode("utf-8", errors="surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
