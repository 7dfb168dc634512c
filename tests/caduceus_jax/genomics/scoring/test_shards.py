"""Which shard a process computes, and what shards are of one run."""

import pathlib

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.options import Embedding
from caduceus_jax.genomics.scoring.shards import joined, open_shard, shard_of, write_joined
from caduceus_jax.inference.blocks import shard

VARIABLES = (
    *("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    *("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "SLURM_PROCID", "SLURM_NTASKS"),
)


def test_a_shard_is_named_or_taken_from_the_cluster(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert shard_of(None, "embed", {}, []) is None
    shard = shard_of("2/4", "embed", {"out": pathlib.Path("a"), "options": Embedding()}, [])
    assert shard.numbers == (2, 4) and shard.path(pathlib.Path("x/a.npz")).name == (
        "a.npz.shard-2-of-4"
    )
    assert shard.command["verb"] == "embed" and shard.command["arguments"]["out"] == "a"
    assert shard.command["arguments"]["options"]["pooling"] == "mean"
    for wrong in ("0/4", "5/4", "2", "2/4/1", "-1/4"):
        with pytest.raises(UserError, match="it is I/N, from 1/N to N/N, or auto"):
            shard_of(wrong, "embed", {}, [])
    with pytest.raises(UserError, match="tells which process this is: pass I/N"):
        shard_of("auto", "embed", {}, [])
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "8")
    assert shard_of("auto", "embed", {}, []).numbers == (4, 8)
    for name, value in zip(VARIABLES[:3], ("12", "10", "5"), strict=True):
        monkeypatch.setenv(name, value)
    assert shard_of("auto", "embed", {}, []).numbers == (3, 5)


def test_shards_have_about_the_same_work_and_every_block_once():
    weights = [5, 1, 1, 1, 8, 0, 2, 2, 4, 8]
    for count in (1, 2, 3, 4, 20):
        parts = [shard(weights, i, count) for i in range(1, count + 1)]
        assert [number for part in parts for number in part] == list(range(10))
    assert [sum(weights[i] for i in shard(weights, j, 2)) for j in (1, 2)] == [16, 16]


def test_joined_shards_are_a_journal(tmp_path):
    out = tmp_path / "a.npz"
    for index in (2, 1):
        shard = shard_of(f"{index}/2", "embed", {"out": out}, [])
        with open_shard(shard, out, {"model": "m"}, restart=False) as journal:
            assert journal.next() is None
            journal._file.write(f"entry {index}".encode())
    paths = [tmp_path / f"a.npz.shard-{i}-of-2" for i in (2, 1)]
    run, command = joined(paths)
    assert run == {"model": "m"} and command == {"verb": "embed", "arguments": {"out": str(out)}}
    write_joined(paths, run, tmp_path / "journal")
    lines = (tmp_path / "journal").read_bytes().split(b"\n")
    assert lines[1] == b"entry 1entry 2"
    with pytest.raises(UserError, match="shard 1 of 2 is missing"):
        joined(paths[:1])
