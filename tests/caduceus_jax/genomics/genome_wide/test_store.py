"""Stores: what they are of, and what they refuse."""

import json

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.genome_wide.store import (
    ScoreStore,
    StoredContig,
    bases_digest,
    folder_of,
    is_store,
    write_group,
)
from caduceus_jax.genomics.genome_wide.zarr_array import ArrayWriter
from caduceus_jax.genomics.reference.genome import Genome
from tests.genomes import fasta, prepared

RECORDS = {"chr1": "ACGT" * 20, "HLA/A*01:01": "TTGCA" * 4}
RUN = {"model": "m", "options": {"context_length": 31, "edge": "pad"}}


@pytest.fixture
def genome(tmp_path) -> Genome:
    return Genome(fasta(tmp_path / "a.fa", **RECORDS))


@pytest.fixture
def store(tmp_path, genome) -> ScoreStore:
    """Base i of both contigs has i, i + 0.25, i + 0.5 and i + 0.75."""
    folder, contigs = tmp_path / "a.zarr", []
    folder.mkdir()
    for number, name in enumerate(genome.names):
        length = int(genome.lengths[number])
        writer = ArrayWriter(folder / folder_of(name, number), length)
        writer.write(0, (np.arange(length)[:, None] + np.arange(4) / 4).astype(np.float16))
        place, bases = folder_of(name, number), bases_digest(genome, number)
        contigs.append(StoredContig(name, length, place, bases, writer.close()))
    write_group(folder, RUN | {"genome": genome.identity}, contigs)
    return ScoreStore(folder)


def test_stretches_and_single_bases(store, genome):
    assert store.fetch("chr1", 3, 5).tolist() == [[3, 3.25, 3.5, 3.75], [4, 4.25, 4.5, 4.75]]
    assert store.fetch("1").shape == (80, 4) and store.fetch("HLA/A*01:01").shape == (20, 4)
    found = store.at(genome.names, np.array([1, 0, 1]), np.array([7, 2, 0]))
    assert found[:, 0].tolist() == [7, 2, 0]
    assert np.isnan(store.at(["other"], np.array([0]), np.array([3]))).all()
    with pytest.raises(UserError, match="start is 3 and end 81; chr1 has bases 0 to 80"):
        store.fetch("chr1", 3, 81)
    with pytest.raises(UserError, match="a.zarr has no scores of chr7$"):
        store.fetch("chr7")


def test_another_genome_is_refused_and_copies_are_not(tmp_path, store, genome):
    store.check_genome(genome, [0, 1])
    # The same bases in another file, in lower case, and as a prepared folder.
    lower = {name: text.lower() for name, text in RECORDS.items()}
    store.check_genome(Genome(fasta(tmp_path / "b.fa", **lower)), [0, 1])
    store.check_genome(Genome(prepared(tmp_path, **RECORDS).path), [0, 1])
    changed = Genome(fasta(tmp_path / "c.fa", **RECORDS | {"chr1": "ACGA" * 20}))
    store.check_genome(changed, [1])
    with pytest.raises(UserError) as error:
        store.check_genome(changed, [1, 0])
    assert str(error.value) == (
        f"{store.path} has the scores of another genome than {changed.path}: its chr1 differs"
    )


def test_another_model_or_option_is_refused(store):
    store.check_run({"model": "m"}, {"context_length": 31})
    with pytest.raises(UserError, match="has the scores of another model, or of another dtype"):
        store.check_run({"model": "n"}, {})
    with pytest.raises(UserError) as error:
        store.check_run({"model": "m"}, {"context_length": 1023})
    assert str(error.value) == (
        f"context_length is 1023, and {store.path} was computed with 31: pass that, or compute the "
        "scores again"
    )


def test_damaged_scores_are_found(store):
    store.verify()
    path = store.path / "chr1/c/0/0"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is not what was written there"):
        ScoreStore(store.path).verify()


def test_what_is_not_a_store(tmp_path, store):
    assert is_store(store.path) and not is_store(tmp_path)
    with pytest.raises(UserError, match="is not a store of scores, which caduceus-jax likelihood"):
        ScoreStore(tmp_path / "none.zarr")
    group = store.path / "zarr.json"
    content = json.loads(group.read_text())
    content["attributes"]["caduceus_jax"]["version"] = 2
    group.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is of version 2 of the format, and this program reads"):
        ScoreStore(store.path)
    group.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(UserError, match="is not a store of scores"):
        ScoreStore(store.path)


def test_folders_of_contigs():
    assert folder_of("chr1", 0) == "chr1" and folder_of("HLA/A*01:01", 5) == "HLA%2FA%2A01%3A01"
    for name in ("..", ".a", "__init__", "zarr.json", "é" * 100):
        assert folder_of(name, 5) == "contig%5"
    assert folder_of("contig%5", 1) == "contig%255"
