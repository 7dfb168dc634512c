"""What `implementation=None` stands for, with stand-ins for a GPU's kernels on a CPU."""

import json
import logging
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.export
import jax.numpy as jnp
import pytest

from caduceus_jax.kernels import (
    Chunked,
    MosaicTPU,
    PallasTriton,
    Triton,
    causal_conv1d,
    default,
    self_check,
)
from caduceus_jax.kernels.options import for_platform, resolve
from caduceus_jax.kernels.selective_scan import selective_scan
from tests.kernels.scan_cases import cast, example

SCRIPT = pathlib.Path(__file__).with_name("two_choices.py")
# A stand-in that compiles quickly: known by its chunk, which no default has.
GOOD = Chunked(40, "associative")
# Does not compile on a CPU, as a kernel may not on a GPU.
BROKEN = PallasTriton(interpret=False)


@pytest.fixture
def candidates(monkeypatch, tmp_path):
    """Sets the candidates of this machine; nothing is known of them yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(default, "_choices", {})
    # A run of another test in this process may have agreed.
    monkeypatch.setattr(default, "_agreed", threading.Event())

    def offer(*options):
        default._choices.clear()
        monkeypatch.setitem(default.CANDIDATES, "cpu", options)

    return offer


@pytest.fixture
def no_check(monkeypatch):
    """Counts checks, and passes all implementations but those that do not compile here."""
    checked = []

    def check(options):
        checked.append(options)
        if options == BROKEN:
            raise ValueError("Only interpret mode is supported on CPU backend.")

    monkeypatch.setattr(self_check, "check", check)
    return checked


def test_on_a_cpu_nothing_is_checked(monkeypatch):
    monkeypatch.setattr(self_check, "check", None)
    assert resolve(None) == Chunked() and default.name() == "chunked"
    assert "GPUs and TPUs" in default.choose().why


def test_the_first_that_passes_is_chosen_once(candidates, no_check, caplog):
    candidates(BROKEN, GOOD, MosaicTPU())
    with caplog.at_level(logging.INFO, "caduceus_jax.kernels"):
        assert resolve(None) == resolve(None) == GOOD
    assert no_check == [BROKEN, GOOD]
    (line,) = caplog.messages
    assert line.startswith("not the default: pallas_triton: Only interpret mode")
    assert caplog.records[0].levelno == logging.INFO


def test_one_warning_where_none_passes(candidates, no_check, caplog):
    candidates(BROKEN)
    assert resolve(None) == resolve(None) == Chunked()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.name.startswith("caduceus_jax.")
    assert "10 to 30 times slower" in record.getMessage()
    assert "pallas_triton: Only interpret mode is supported" in record.getMessage()


def test_the_verdict_is_kept_for_the_same_machine_and_software(candidates, no_check, tmp_path):
    candidates(BROKEN, GOOD)
    resolve(None)
    (path,) = tmp_path.rglob("*.json")
    kept = json.loads(path.read_text())
    assert kept["implementation"] == "chunked" and kept["machine"]["jax"] == jax.__version__
    default._choices.clear()
    choice = default.choose()
    assert choice.options == GOOD and choice.failures[0].startswith("pallas_triton: Only")
    assert "checked here" in choice.why and no_check == [BROKEN, GOOD]
    # Another machine, and a damaged file: checked again.
    path.write_text("{")
    default._choices.clear()
    assert resolve(None) == GOOD and len(no_check) == 4


def test_another_driver_or_other_kernels_are_another_machine(monkeypatch):
    files = {default._verdict_file("cpu")}
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0")
    files.add(default._verdict_file("cpu"))
    machine = default._machine("cpu")
    monkeypatch.setattr(default, "_machine", lambda platform: machine | {"kernels": "other"})
    files.add(default._verdict_file("cpu"))
    assert len(files) == 3


def test_a_failure_is_not_kept(candidates, no_check, tmp_path):
    candidates(BROKEN)
    resolve(None)
    assert not list(tmp_path.rglob("*.json"))


def test_a_disk_that_cannot_be_written_changes_nothing(candidates, no_check, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    candidates(GOOD)
    assert resolve(None) == GOOD


TRANSFORMATIONS = {
    "eagerly": lambda f, x: f(x),
    "jit": lambda f, x: jax.jit(f)(x),
    "grad": lambda f, x: jax.grad(lambda x: f(x).sum())(x),
    "jit of grad": lambda f, x: jax.jit(jax.grad(lambda x: f(x).sum()))(x),
    "vmap": lambda f, x: jax.vmap(f)(x[None]),
    "eval_shape": lambda f, x: jax.eval_shape(f, x),
    "checkpoint": lambda f, x: jax.grad(lambda x: jax.checkpoint(f)(x).sum())(x),
    "scan": lambda f, x: jax.lax.scan(lambda x, _: (f(x), None), x, None, length=2),
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,))[1],
    "hvp": lambda f, x: jax.jvp(jax.grad(lambda x: f(x).sum()), (x,), (x,))[1],
    "export": lambda f, x: jax.export.export(jax.jit(f))(x).call(x),
    "shard_map": lambda f, x: jax.jit(
        jax.shard_map(
            f,
            mesh=jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,)),
            in_specs=jax.P("d"),
            out_specs=jax.P("d"),
            check_vma=False,
        )
    )(x),
}


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_the_check_runs_inside_every_transformation(candidates, monkeypatch, transformation):
    """It compiles and runs a program of its own: no tracer reaches it."""
    checked = []

    def check(options):
        total = jax.jit(lambda x: jnp.sum(x) + 1)(jnp.ones(3))
        checked.append(float(total))

    monkeypatch.setattr(self_check, "check", check)
    candidates(GOOD)
    weight = jnp.ones((4, 3))
    TRANSFORMATIONS[transformation](lambda x: causal_conv1d(x, weight), jnp.ones((2, 5, 3)))
    assert checked == [4.0]


# A stand-in for a GPU's kernels, which takes a minute to compile interpreted; and kernels that do
# not compile. The check itself runs, inside of every transformation.
@pytest.mark.slow
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(PallasTriton(), PallasTriton()), (BROKEN, Chunked())],
    ids=["interpreted", "broken"],
)
def test_the_choice_in_every_transformation(
    candidates, caplog, transformation, offered, chosen, tmp_path
):
    candidates(offered)
    arguments = cast(example(8, batch=2))

    def scan(u):
        return selective_scan(**arguments | {"u": u, **rows(u)})

    def rows(u):  # inside of `jax.shard_map` there is one sequence
        names = [n for n in ("delta", "B", "C", "z") if n in arguments]
        return {n: arguments[n][: u.shape[0]] for n in names} | {"initial_state": None}

    with caplog.at_level(logging.WARNING, "caduceus_jax.kernels"):
        TRANSFORMATIONS[transformation](scan, arguments["u"])
        begun = time.monotonic()
        TRANSFORMATIONS[transformation](scan, arguments["u"])
    choice = default.choose()
    assert choice.options == chosen
    assert len(caplog.records) == (offered == BROKEN)
    print(f"{transformation}: {choice.why}; again in {time.monotonic() - begun:.1f} s")


def test_nothing_of_the_check_is_traced(candidates):
    candidates(GOOD)
    arguments = cast(example(8))
    before = str(jax.make_jaxpr(lambda: selective_scan(**arguments, implementation=GOOD))())
    assert str(jax.make_jaxpr(lambda: selective_scan(**arguments))()) == before


def test_what_a_kernel_does_not_take_falls_to_chunked(candidates, no_check):
    candidates(PallasTriton(chunk_length=4))
    with jax.enable_x64(True):
        selective_scan(**cast(example(8), jnp.float64))
        causal_conv1d(jnp.ones((1, 5, 3)), jnp.ones((4, 3)))
    text = str(jax.make_jaxpr(lambda: selective_scan(**cast(example(8, state=3))))())
    assert "pallas_call" not in text
    text = str(jax.make_jaxpr(lambda: selective_scan(**cast(example(8, state=4))))())
    assert "pallas_call" in text
    with pytest.raises(NotImplementedError, match="3 states; supported: powers of two"):
        selective_scan(**cast(example(8, state=3)), implementation="pallas_triton")


def test_a_device_that_is_asked_for_is_respected(monkeypatch):
    """On a machine with a GPU, within `jax.default_device` of a CPU, or for arrays on a CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    of = {"gpu": BROKEN, "cpu": Chunked()}
    monkeypatch.setattr(default, "choose", lambda platform: default.Choice(of[platform], ""))
    assert resolve(None) == BROKEN
    assert resolve(None, jnp.ones(3)) == Chunked()
    with jax.default_device(jax.devices("cpu")[0]):
        assert resolve(None) == Chunked()


def test_the_default_of_a_platform_that_is_not_here(monkeypatch):
    assert for_platform(None, "tpu") == MosaicTPU(interpret=False)
    monkeypatch.setattr(default, "_installed", lambda package: False)
    assert for_platform(None, "gpu") == PallasTriton(interpret=False)
    monkeypatch.setattr(default, "_installed", lambda package: True)
    assert for_platform(None, "gpu") == Triton(interpret=False)


def test_one_of_several_processes_does_not_choose_alone(candidates, no_check, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    candidates(GOOD)
    assert resolve(None) == GOOD
    candidates(BROKEN, MosaicTPU())
    message = "process 1 of 2 would compute the scan as 'mosaic_tpu'.* pass implementation="
    with pytest.raises(RuntimeError, match=message):
        resolve(None)
    # Which one it would be can be compared, and named.
    assert default.name() == "mosaic_tpu" and resolve("chunked") == Chunked()


def test_two_processes_that_disagree(tmp_path):
    """Each can tell which one it would take; the second refuses to go on as if they agreed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    paths = os.pathsep.join([*sys.path, str(SCRIPT.parents[2])])
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), port, str(i)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path / str(i))},
        )
        for i in range(2)
    ]
    first, second = (
        [line for line in process.communicate(timeout=120)[0].splitlines() if "Gloo" not in line]
        for process in processes
    )
    assert first == ["pallas_triton", "PallasTriton", "Chunked", "PallasTriton"]
    assert second[0] == "chunked" and second[2:] == ["Chunked", "Chunked"]
    assert second[1].startswith("process 1 of 2 would compute the scan as 'chunked', and the oth")
    assert "pallas_triton: no driver" in second[1]


def test_importing_the_package_imports_no_kernels():
    code = (
        "import sys, caduceus_jax.kernels.default; print('jax.experimental.pallas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
