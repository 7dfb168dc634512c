"""Who may import whom: train -> caduceus_jax -> kernels -> jax, and torch nowhere.

A module that is named in a string, or started in a subprocess, counts as imported.
"""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {
    "kernels": "caduceus_jax.kernels",
    "caduceus_jax": "caduceus_jax",
    "train": "caduceus_jax.train",
}
FORBIDDEN = {"torch", "transformers", "mamba_ssm", "tensorflow", "pandas"}
# The front door names the commands' modules, and imports one when its command is called.
DOOR = [ROOT / "caduceus_jax" / "cli" / name for name in ("main.py", "commands.py")]
# What more a file may use where it is installed; torch only inside the function that needs it: to
# read files that torch wrote, to time another kernel beside ours, to interpret Triton's kernels.
USES = {
    ROOT / "caduceus_jax" / "bench" / "cuda_kernel.py": {"torch", "mamba_ssm"},
    ROOT / "kernels" / "gpu" / "triton_kernels.py": {"triton"},
    ROOT / "kernels" / "gpu" / "triton_conv_kernel.py": {"triton"},
    ROOT / "kernels" / "gpu" / "triton_call.py": {"jax_triton", "torch", "triton"},
    ROOT / "kernels" / "gpu" / "triton_math.py": {"triton"},
    ROOT / "kernels" / "ahead_of_time" / "machine_code.py": {"triton"},
}
_NAMED = re.compile(r"(?<![\w.'/-])caduceus[_-]jax(?:\.\w+)*")
_COMMAND = re.compile(r"caduceus[_-]jax")


def sources():
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def module_of(path):
    """The dotted name under which a file is imported."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((FOLDERS[folder], *(part for part in rest if part != "__init__")))


MODULES = {module_of(path): path for path in sources()}


def imports(tree, path):
    """(module, line, at the top level of the file) of each import."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module, node.lineno, id(node) in top
            if node.module.split(".")[0] == "caduceus_jax":
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from ((x, node.lineno, id(node) in top) for x in names if x in MODULES)


def named(tree):
    """(module, line) of each of our modules that a string names, docstrings included.

    The package alone is only a name. As a whole string it is a command that something starts; and
    in an `import` of code in a string it is a module.
    """
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        if _COMMAND.fullmatch(node.value.strip()):
            yield "caduceus_jax.cli", node.lineno
        for match in _NAMED.finditer(node.value):
            name = match[0].replace("-", "_").removesuffix(".")
            before = node.value[: match.start()].split()
            if name != "caduceus_jax":
                yield name, node.lineno
            elif before and before[-1] in ("-m", "import", "from"):
                yield "caduceus_jax.cli", node.lineno


def rank(module):
    """0 for kernels, 1 for models, 2 for training, None for what is not ours."""
    if module.split(".")[0] != "caduceus_jax":
        return None
    if f"{module}.".startswith("caduceus_jax.kernels."):
        return 0
    return 2 if f"{module}.".startswith("caduceus_jax.train.") else 1


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    own, tree = rank(FOLDERS[folder]), ast.parse(path.read_text())
    for module, line, top in imports(tree, path):
        where = f"{path.relative_to(ROOT)}:{line} imports {module}"
        other = rank(module)
        assert other is None or other <= own, where
        root = module.split(".")[0]
        if root in FORBIDDEN:
            assert root in USES.get(path, ()) and not top, where
        if folder == "kernels" and other is None:
            allowed = set(sys.stdlib_module_names) | {"jax", "jaxtyping", "numpy"}
            assert root in allowed | USES.get(path, set()), where
    if path in DOOR:
        return
    for module, line in named(tree):
        assert rank(module) <= own, f"{path.relative_to(ROOT)}:{line} names {module}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('importlib.import_module("caduceus_jax.train.step")', "caduceus_jax.train.step"),
        ('f"caduceus_jax.model.{name}"', "caduceus_jax.model"),
        ('subprocess.run([python, "-m", "caduceus_jax", "plan"])', "caduceus_jax.cli"),
        ('subprocess.run(["caduceus-jax", "plan"])', "caduceus_jax.cli"),
        ('subprocess.run("python -m caduceus_jax plan", shell=True)', "caduceus_jax.cli"),
        ('exec("import caduceus_jax")', "caduceus_jax.cli"),
        ('"pip install caduceus-jax[gpu]"', None),
    ],
)
def test_what_strings_name_is_found(code, found):
    assert [module for module, _ in named(ast.parse(code))] == ([] if found is None else [found])


def test_imports_have_no_circles():
    """Imports inside functions and for type checkers count too."""
    graph = {}
    for module, path in MODULES.items():
        if path.name != "__init__.py":  # it gathers what is below it
            found = {name for name, _, _ in imports(ast.parse(path.read_text()), path)}
            graph[module] = sorted(found & MODULES.keys() - {module})
    circles, finished = [], set()

    def visit(module, above):
        if module in above:
            circles.append((*above[above.index(module) :], module))
        elif module not in finished:
            for other in graph.get(module, ()):
                visit(other, (*above, module))
            finished.add(module)

    for module in graph:
        visit(module, ())
    assert not circles, "\n".join(" -> ".join(circle) for circle in circles)


def test_importing_the_package_stays_light():
    """No training or genomics package, and nothing of torch, comes along."""
    code = "import sys, caduceus_jax; print(*sorted(m for m in sys.modules if '.' not in m))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert not loaded & (FORBIDDEN | {"grain", "matplotlib", "polars", "pysam", "tensorboardX"})


def test_importing_the_operations_brings_no_kernel_language():
    """Pallas and Triton are imported where a scan uses them."""
    code = "import sys, caduceus_jax.kernels; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = out.stdout.split()
    assert not [name for name in loaded if name.startswith(("jax.experimental.pallas", "triton"))]
