"""The test session is stricter than production: shapes are checked, surprises are errors."""

import gc
import os
import pathlib
import shutil
import tempfile

import jax
import jaxtyping
import pytest
from flax import nnx

# Shapes are checked where arrays are passed around. Elsewhere what users pass is checked by the
# code itself, and it is those errors that the tests are about.
CHECKED = (
    "caduceus_jax.inference",
    "caduceus_jax.kernels",
    "caduceus_jax.model.backbone",
    "caduceus_jax.model.heads",
    "caduceus_jax.model.losses",
    "caduceus_jax.model.mamba",
    "caduceus_jax.model.rcps",
)
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

from caduceus_jax.devices import use_cores  # noqa: E402  (its imports are checked too)

COMPILED = None


def pytest_configure(config):
    """Sets JAX up before anything is computed, for the commands that tests start too."""
    config.option.loadscopereorder = False  # or xdist begins with the files of most tests
    if config.getoption("--optimised"):
        use_cores()
    else:
        os.environ["XLA_FLAGS"] = _compiled_quickly(os.getenv("XLA_FLAGS", ""))
    _share_compiled_programs()
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.devices()  # from here on no test changes their number
    jax.config.update("jax_numpy_rank_promotion", "raise")
    nnx.set_graph_mode(False)
    # Tracing makes so many objects that the collector, at its defaults, takes a tenth of the time.
    gc.set_threshold(100_000, 50, 100)


def _compiled_quickly(flags):
    """XLA's flags, with those that spare optimisations: few calls are long enough to earn them.

    LLVM's take half of a test's time; the emitter of fusions in jax 0.10, half of what is left; to
    divide a program among threads, a sixth of compiling it, where each core has tests of its own.
    """
    spared = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
    if jax.__version_info__ < (0, 11):
        spared.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join([flags, *(x for x in spared if x.partition("=")[0] not in flags)]).strip()


def _share_compiled_programs():
    """What is compiled once is read again by other workers and by the commands that tests start.

    A folder for each session, so that no session depends on another one.
    """
    global COMPILED
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    COMPILED = tempfile.mkdtemp(prefix="caduceus-jax-compiled-")
    for name, value in {
        "jax_compilation_cache_dir": COMPILED,
        "jax_persistent_cache_min_compile_time_secs": 0.3,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


TESTS = pathlib.Path(__file__).parent
SHARED = TESTS.parents[1] / "shared"


def pytest_unconfigure():
    if COMPILED is not None:
        shutil.rmtree(COMPILED, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run longer tests and cases")
    parser.addoption("--optimised", action="store_true", help="compile as users do; takes longer")


# The files that take longest, in CPU seconds: begun first, so that all workers end together.
LONGEST = {
    "train/test_two_machines.py": 95,
    "kernels/test_selective_scan.py": 65,
    "kernels/test_transformations.py": 60,
    "train/test_finetune.py": 45,
    "caduceus_jax/model/test_packing.py": 25,
    "caduceus_jax/model/test_heads.py": 25,
    "train/finetuning/test_seed.py": 25,
    "train/test_sharding.py": 25,
    "train/test_sharding_eight_devices.py": 25,
}


def pytest_collection_modifyitems(config, items):
    seconds = {TESTS / name: -seconds for name, seconds in LONGEST.items()}
    items.sort(key=lambda item: seconds.get(item.path, 0))
    reasons = {"slow": "takes longer", "optimised": "needs LLVM's optimisations"}
    for name, reason in reasons.items():
        skip = pytest.mark.skip(reason=f"{reason}: run with --{name}")
        for item in items:
            if name in item.keywords and not config.getoption(f"--{name}"):
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    """Prints the tables whose rows tests recorded: `record_property("table", (title, row))`."""
    tables = {}
    reports = [x for kind in ("passed", "failed") for x in terminalreporter.stats.get(kind, ())]
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == "table" and report.when == "call":
                tables.setdefault(value[0], []).append(value[1])
    for title, rows in tables.items():
        terminalreporter.write_sep("-", title)
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            terminalreporter.write_line("  ".join(cells).rstrip())


@pytest.fixture
def golden():
    """Folder of small cases written by the original implementation."""
    return TESTS / "golden"


@pytest.fixture
def shared():
    """Folder of real genomes and more golden cases; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared data folder beside the repository")
    return SHARED


@pytest.fixture(autouse=True)
def shown():
    """The library's log goes to standard error, as in a command, where `capsys` reads it."""
    from caduceus_jax.cli.log import shown_log

    with shown_log():
        yield


@pytest.fixture
def checked_modules():
    """Names of the modules whose shapes are checked in this session."""
    return CHECKED


@pytest.fixture
def shapes_unchecked():
    """Calls the code as users do, whose mistakes meet its own checks and not the session's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Compiled programs of earlier files are given up before they fill a small machine."""
    yield
    statm = pathlib.Path("/proc/self/statm")
    if statm.is_file() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 2**31:
        jax.clear_caches()
