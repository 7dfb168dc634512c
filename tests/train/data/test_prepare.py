import gzip
import os
import pathlib
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.files.fasta import iterate_fasta
from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.train.data import prepare as module
from caduceus_jax.train.data.prepare import write_store
from tests.disks import files_of_at_most
from tests.genomes import fasta, prepared


@pytest.mark.parametrize("block", [5, 1 << 22])
@pytest.mark.parametrize("name", ["genome.fa", "genome.fa.gz"])
def test_what_was_prepared_is_what_the_file_holds(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr("caduceus_jax.genomics.files.fasta._BLOCK", block)
    text = b">one of them\nACGTnnNN\nNNacRt\n>two\nNNY\n>three\nUacgt\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    store = write_store(path, tmp_path / "store")
    assert list(store.contigs) == ["one", "two", "three"]
    for contig, letters in iterate_fasta(path):
        np.testing.assert_array_equal(store[contig], letters)
    assert store["one"].tobytes() == b"ACGTnnNNNNacNt"
    assert [contig.ambiguous for contig in store.contigs.values()] == [1, 1, 0]
    # A run goes on over lines and blocks, and ends with its contig.
    assert store.unknown.tolist() == [[4, 10], [12, 13], [14, 17]]
    assert store.source.name == name
    assert store.source.size == path.stat().st_size
    store.verify()


def test_the_digest_is_of_the_genome_and_not_of_the_file(tmp_path):
    text = ">one\nACGT\n>two\nAC\n"
    (tmp_path / "a.fa").write_text(text)
    (tmp_path / "b.fa.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.fa").write_text(">one\nACG\n>two\nTAC\n")
    a, b, c = (
        write_store(tmp_path / name, tmp_path / f"of_{name}")
        for name in ("a.fa", "b.fa.gz", "c.fa")
    )
    assert a.sha256 == b.sha256 != c.sha256
    assert a.bases.tobytes() == c.bases.tobytes()
    assert a.source.sha256 != b.source.sha256


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_genome_in_a_pipe_is_the_same_store(tmp_path, pack):
    path = fasta(tmp_path / "g.fa", chr1="ACGTN" * 20, chr2="acgtR")
    whole = write_store(path, tmp_path / "whole")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(pack(path.read_bytes()))
    piped = write_store(pathlib.Path(f"/dev/fd/{reading}"), tmp_path / "piped")
    os.close(reading)
    assert piped.sha256 == whole.sha256 and piped.source.name == "a pipe"
    assert (tmp_path / "piped/bases.bin").read_bytes() == (
        tmp_path / "whole/bases.bin"
    ).read_bytes()
    if pack is bytes:
        assert piped.source.sha256 == whole.source.sha256


def test_the_command_says_what_it_made(tmp_path, capsys):
    path = fasta(tmp_path / "genome.fa", chr1="ACGTNNNN", chr2="RY" * 600_000)
    out = tmp_path / "made"
    assert main(["prepare", str(path), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert f"{out}: 1,200,008 bases in 2 contigs\n" in shown.out
    assert "1,200,004 of them unknown (N), in 2 runs; 1,200,000 were ambiguity codes" in shown.out
    assert Store(out).source.sha256 in shown.out
    assert f"caduceus-jax pretrain --data.fasta {out}" in shown.out
    assert "reading genome.fa: 2/2 MB" in shown.err
    assert main(["prepare", str(path), "--out", str(out)]) == 2
    assert "already exists: choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("bad.fa", b">a\nACGT\nAC!T\n", "bad.fa:3: '!' is not a nucleotide"),
        ("empty.fa", b"", "empty.fa is empty"),
        ("cut.fa.gz", gzip.compress(b">a\nAAAAAAAAA", mtime=0)[:-9], "cut short"),
        ("none.fa", None, "none.fa does not exist"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UserError, match=message):
        write_store(path, tmp_path / "out")
    assert {found.name for found in tmp_path.iterdir()} == ({name} if text is not None else set())


_KILLED = """
import os, pathlib, signal
from caduceus_jax.train.data import prepare
prepare.content_digest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
prepare.write_store(pathlib.Path("g.fa"), pathlib.Path("out"))
"""


def test_a_killed_prepare_leaves_nothing_that_looks_whole(tmp_path):
    """Killed when all bases are written and the index is not."""
    path = fasta(tmp_path / "g.fa", a="ACGT" * 100)
    run = subprocess.run([sys.executable, "-c", _KILLED], cwd=tmp_path, stderr=subprocess.PIPE)
    assert run.returncode == -signal.SIGKILL
    assert {found.name for found in tmp_path.iterdir()} == {"g.fa", "out.part"}
    with pytest.raises(UserError, match="index.json is missing"):
        Store(tmp_path / "out.part")
    assert len(write_store(path, tmp_path / "out").bases) == 400
    assert not (tmp_path / "out.part").exists()


def test_an_interrupted_prepare_leaves_nothing_at_all(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    path = fasta(tmp_path / "g.fa", a="ACGT" * 100)
    monkeypatch.setattr(module, "content_digest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_store(path, tmp_path / "out")
    assert [found.name for found in tmp_path.iterdir()] == ["g.fa"]


@pytest.mark.parametrize("most", [0, 30, 110])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, most):
    path = fasta(tmp_path / "g.fa", chr1="ACGTN" * 20)
    with files_of_at_most(most), pytest.raises(UserError) as error:
        write_store(path, tmp_path / "out")
    assert str(error.value) == f"{tmp_path / 'out'} cannot be written: File too large"
    assert [found.name for found in tmp_path.iterdir()] == ["g.fa"]


def test_memory_does_not_grow_with_the_genome(tmp_path, monkeypatch):
    """24 Mb in one line, with runs of N everywhere, read in blocks of 1 MiB."""
    monkeypatch.setattr("caduceus_jax.genomics.files.fasta._BLOCK", 1 << 20)
    path = tmp_path / "long.fa"
    path.write_bytes(b">long\n" + b"ACGTN" * 4_800_000)
    tracemalloc.start()
    try:
        store = write_store(path, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store.bases) == 24_000_000
    assert len(store.unknown) == 4_800_000
    assert peak < 12_000_000


def test_stores_that_are_damaged_are_refused(tmp_path):
    store = prepared(tmp_path, a="ACGTNN" * 10)
    index = (store.path / "index.json").read_text()
    bases = (store.path / "bases.bin").read_bytes()

    def refused(message, **files):
        for name, content in files.items():
            mode = {"data": content} if isinstance(content, bytes) else {}
            target = store.path / name.replace("_", ".")
            target.write_bytes(**mode) if mode else target.write_text(content)
        with pytest.raises(UserError, match=message) as error:
            Store(store.path).verify()
        assert "\n" not in str(error.value)
        (store.path / "index.json").write_text(index)
        (store.path / "bases.bin").write_bytes(bases)

    refused("bases.bin has 59 bytes, and 60 were written", bases_bin=bases[:-1])
    refused("bases.bin is not what was written there", bases_bin=b"C" + bases[1:])
    refused("index.json is damaged", index_json=index[:-20])
    refused("index.json is damaged", index_json=index.replace('"source"', '"sauce"'))
    refused("index.json is damaged", index_json=index.replace('"offset"', '"onset"'))
    refused("is not the index of a prepared genome", index_json="{}")
    refused(
        "version 2 of the format, and this program reads version 1: prepare",
        index_json=(index.replace('"version": 1', '"version": 2')),
    )
    (store.path / "unknown.bin").unlink()
    with pytest.raises(UserError, match=r"unknown.bin cannot be read \(No such file"):
        Store(store.path)
    with pytest.raises(UserError, match="nowhere is not a folder: caduceus-jax prepare"):
        Store(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="other holds no prepared genome"):
        Store(tmp_path / "other")
