"""FASTA files of every kind users have, whole genomes included."""

import gzip

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.fasta import iterate_chunks, iterate_fasta


def write(path, text: str):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def as_text(records) -> list[tuple[str, str]]:
    return [(name, sequence.tobytes().decode()) for name, sequence in records]


@pytest.mark.parametrize("name", ["genome.fa", "genome.fa.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_reads_records_in_order_and_keeps_the_soft_mask(tmp_path, name, newline):
    text = newline.join([">chr1 of the sample", "ACGT", "nnac", "", ">chr2", "Tt"])
    records = list(iterate_fasta(write(tmp_path / name, text)))
    assert as_text(records) == [("chr1", "ACGTnnac"), ("chr2", "Tt")]
    assert records[0][1].dtype == np.uint8


def test_ambiguity_codes_become_n_and_are_counted_and_u_is_t(tmp_path, capsys):
    path = write(tmp_path / "rna.fa", ">r\nACRYSWKMBDHVNu\nUry\n")
    assert as_text(iterate_fasta(path)) == [("r", "ACNNNNNNNNNNNtTnn")]
    assert capsys.readouterr().err == (
        f"{path}: 12 IUPAC ambiguity codes (such as R or Y) are read as N\n"
    )


def test_says_nothing_of_a_clean_file(tmp_path, capsys):
    list(iterate_fasta(write(tmp_path / "clean.fa", ">r\nACGTNacgtn\n")))
    assert capsys.readouterr().err == ""


BAD = {
    "protein": (
        ">r\nACGT\nACMLLG\n",
        ":3: 'L' is not a nucleotide code: this looks like a protein FASTA, and DNA is needed",
    ),
    "stop codon": (
        ">r\nMKV*\n",
        ":2: '*' is not a nucleotide code: this looks like a protein FASTA, and DNA is needed",
    ),
    "gap": (
        ">r\nAC\n\nGT-A\n",
        ":4: '-' is not a nucleotide code: remove the gaps of an alignment first",
    ),
    "digits": (
        ">r\n1 acgt\n",
        ":2: '1' is not a nucleotide code: sequence lines hold A, C, G, T, N or IUPAC codes and "
        "nothing else",
    ),
    "header inside a line": (
        ">r\nAC>s\n",
        ":2: '>' is not a nucleotide code: sequence lines hold A, C, G, T, N or IUPAC codes and "
        "nothing else",
    ),
    "duplicate": (
        ">r\nA\n>s\nC\n>r again\nG\n",
        ":5: the name r was already used in line 1: rename one of the two records",
    ),
    "empty record": (">r\nA\n>s\n\n>t\nG\n", ":3: the record s has no sequence: remove it"),
    "empty last record": (">r\nA\n>s", ":3: the record s has no sequence: remove it"),
    "no name": (">r\nA\n> s\nC\n", ":3: '>' must be followed by the record's name"),
    "zero byte in a name": (">r\0\nA\n", ":1: a zero byte: this is not text, so not a FASTA file"),
    "empty file": ("", " is empty: a FASTA file has a '>' line and sequence"),
    "blank file": ("\n\n", " is empty: a FASTA file has a '>' line and sequence"),
    "no header": ("\nACGT\n", ":2: a FASTA file starts with '>', not with 'A'"),
    "FASTQ": ("@r\nACGT\n+\nIIII\n", ":1: a FASTA file starts with '>', not with '@'"),
}


@pytest.mark.parametrize("name", ["bad.fa", "bad.fa.gz"])
@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_sentence_with_the_line(tmp_path, case, name):
    text, message = BAD[case]
    path = write(tmp_path / name, text)
    with pytest.raises(UserError) as error:
        list(iterate_fasta(path))
    assert str(error.value) == f"{path}{message}"


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(UserError, match=r"^.*nothing\.fa does not exist$"):
        list(iterate_fasta(tmp_path / "nothing.fa"))
    with pytest.raises(UserError, match=r"cannot be read: Is a directory$"):
        list(iterate_fasta(tmp_path))
    rng = np.random.default_rng(0)
    text = ">r\n" + "".join(rng.choice(list("ACGT"), 10_000)) + "\n"
    path = tmp_path / "cut.fa.gz"
    path.write_bytes(gzip.compress(text.encode())[:-2000])
    with pytest.raises(UserError, match=r"cut\.fa\.gz is cut short or damaged \(.*\): fetch it"):
        list(iterate_fasta(path))


def test_records_come_one_by_one(tmp_path):
    """The first is there before the third turns out to be damaged."""
    records = iterate_fasta(write(tmp_path / "three.fa", ">a\nA\n>b\nC\n>c\n!\n"))
    assert as_text([next(records)]) == [("a", "A")]


@pytest.mark.parametrize("block", [1, 3, 64])
def test_blocks_do_not_show(tmp_path, monkeypatch, block):
    """Wherever the blocks that are read end, the result is the same."""
    monkeypatch.setattr("caduceus_jax.genomics.files.fasta._BLOCK", block)
    rng = np.random.default_rng(block)
    records = [(f"r{i}", "".join(rng.choice(list("ACGTn"), rng.integers(1, 40)))) for i in range(9)]
    lines = "".join(
        f">{name}\n" + "".join(f"{s[i : i + 7]}\n" for i in range(0, len(s), 7))
        for name, s in records
    )
    path = write(tmp_path / "blocks.fa", lines)
    assert as_text(iterate_fasta(path)) == records
    for strange in ("GE", "G>"):
        where = rf"blocks\.fa:{lines.count(chr(10)) + 2}: '{strange[1]}' is not a nucleotide"
        with pytest.raises(UserError, match=where):
            list(iterate_fasta(write(path, lines + f"ACG\n{strange}A\n")))


@pytest.mark.parametrize("name", ["long.fa", "long.fa.gz"])
def test_pieces_are_small_however_long_a_line_is(tmp_path, monkeypatch, name):
    monkeypatch.setattr("caduceus_jax.genomics.files.fasta._BLOCK", 16)
    path = write(tmp_path / name, f">a\n{'ACGTN' * 20}\n>b a very long header indeed\nRa\n")
    read = []
    pieces = list(iterate_chunks(path, read.append))
    assert max(len(piece.bases) for piece in pieces) <= 16
    assert b"".join(piece.bases for piece in pieces if piece.name == "a") == b"ACGTN" * 20
    assert pieces[-1] == ("b", b"Na", 1)
    assert b"".join(read) == path.read_bytes()


def test_a_whole_genome(shared):
    records = list(iterate_fasta(shared / "data/genome_yeast_saccer3/saccer3.fa.gz"))
    assert [name for name, _ in records][:2] + [records[-1][0]] == ["chrI", "chrII", "chrM"]
    assert sum(len(sequence) for _, sequence in records) == 12_157_105
