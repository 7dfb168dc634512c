"""The commands of docs/pods.md, as they are printed there, on as many devices as they name."""

import dataclasses
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import caduceus_jax as cj
from caduceus_jax.cli.arguments import read_config
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.data.inputs import Inputs
from caduceus_jax.train.planning.plan import PlanConfig
from caduceus_jax.train.sharding import check_batch_size, make_mesh, share_of_rows

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "pods.md"
COMMAND = re.compile(r"caduceus-jax (pretrain|plan) ([^;\"'#|&\]`\n]*--[^;\"'#|&\]`\n]*)")


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that is not there."""

    id: int
    process_index: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"
    client: None = None


def sections():
    """(title, text) of every section of the page."""
    parts = re.split(r"^#+ (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text):
    """The indented blocks of a section."""
    return "\n".join(line for line in text.splitlines() if line.startswith("    "))


def commands(kind):
    """(title, text of the section, words) of every command in a block."""
    return [
        (title, text, shlex.split(found[2]))
        for title, text in sections()
        for found in COMMAND.finditer(blocks(text))
        if found[1] == kind
    ]


def machines(title, text):
    """(machines, devices of each, processes of each, slices) that a section names."""
    if found := re.search(r"v5litepod-(\d+)", text):
        slices = int((re.search(r"--num-slices=(\d+)", text) or [0, 1])[1])
        return int(found[1]) // 8, 8, 1, slices
    if found := re.search(r"--nodes=(\d+) --ntasks-per-node=(\d+) --gpus-per-node=(\d+)", text):
        nodes, tasks, gpus = map(int, found.groups())
        return nodes, gpus, tasks, nodes
    each = int(re.search(r"(?:With|with) (\d+) GPUs", f"{title} {text}")[1])
    count = int((re.search(r"--processes (\d+)", text) or [0, 1])[1])
    return count, each, 1, count


def mesh_of(config, title, text):
    count, each, processes, slices = machines(title, text)
    devices = [
        Device(i, i * processes // each, i * slices // (count * each)) for i in range(count * each)
    ]
    mesh = make_mesh(devices, fsdp=config.fsdp, sequence=config.sequence, tensor=config.tensor)
    return mesh, count * processes


@pytest.fixture
def files(tmp_path):
    """A genome and intervals as the commands name them, but small."""
    (tmp_path / "hg38.ml.fa").write_text(f">chr1\n{'ACGT' * 300_000}\n")
    rows = [(0, 131_072, "train"), (400_000, 531_072, "valid"), (800_000, 931_072, "test")]
    text = "".join(f"chr1\t{start}\t{end}\t{name}\n" for start, end, name in rows)
    (tmp_path / "sequences_human.bed").write_text(text)
    return tmp_path


def localised(words, files):
    """The words, with the page's files and folders in a temporary folder."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "--out":
            word = str(files / "out")
        elif before in ("--data.fasta", "--data.intervals"):
            word = str(files / pathlib.Path(word).name)
        found.append(word)
    return found


def test_the_page_has_the_launches_that_it_is_about():
    titles = [title for title, _, _ in commands("pretrain")]
    assert [sum(title.startswith(name) for title in titles) for name in ("A TPU", "SLURM")] == [
        2,
        1,
    ]
    assert len(titles) == 6 and len(commands("plan")) >= 2


@pytest.mark.parametrize(
    ("title", "text", "words"), commands("pretrain"), ids=lambda value: str(value)[:30]
)
def test_a_launch_fits_its_devices_and_finds_its_data(title, text, words, files):
    config = read_config(PretrainConfig, localised(words, files))
    mesh, processes = mesh_of(config, title, text)
    check_batch_size(config.batch_size, mesh, config.microbatches)
    shares = [share_of_rows(mesh, process) for process in range(processes)]
    assert len({of for _, of in shares}) == 1
    # The paper's batch, whatever the number of devices.
    assert config.batch_size * config.max_length == 2**20
    inputs = Inputs(config, mesh, cj.Tokenizer(), files / "data")
    assert len(inputs.train) and len(inputs.held_out)
    given = [int(v) for n, v in zip(words, words[1:], strict=False) if n == "--process"]
    assert all(process < math.prod(machines(title, text)[::2]) for process in given)


@pytest.mark.parametrize(("title", "text", "words"), commands("plan"), ids=lambda v: str(v)[:30])
def test_a_plan_is_for_devices_that_share_its_batch(title, text, words):
    config = read_config(PlanConfig, words)
    count = int(re.search(r"-(\d+)$", config.topology)[1])
    devices = [Device(i, i // 8, 0) for i in range(count)]
    mesh = make_mesh(devices, fsdp=config.fsdp, sequence=config.sequence, tensor=config.tensor)
    check_batch_size(config.batch_size, mesh, config.microbatches)


@pytest.mark.slow
def test_the_launch_on_one_box_compiles_its_step(files):
    """As printed, but for a model and windows that a CPU compiles in seconds."""
    ((_, _, words),) = [c for c in commands("pretrain") if c[0].startswith("One box")]
    small = "--model.d_model 8 --model.n_layer 1 --model.d_state 4 --max_length 1024 --dry-run"
    command = [sys.executable, "-P", "-m", "caduceus_jax", "pretrain"]
    done = subprocess.run(
        [*command, *localised(words, files), *small.split()],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8 " + os.getenv("XLA_FLAGS", ""),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert done.returncode == 0, done.stderr
    assert "was compiled for 8 devices" in done.stdout
