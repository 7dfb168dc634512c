"""Who may import whom: train -> caduceus_jax -> kernels -> jax, and torch nowhere."""

import ast
import pathlib
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
# What more a file may use where it is installed; torch only inside the function that needs it: to
# read files that torch wrote, to time another kernel beside ours, to interpret Triton's kernels.
USES = {
    ROOT / "caduceus_jax" / "model" / "checkpoint.py": {"torch"},
    ROOT / "caduceus_jax" / "bench" / "cuda_kernel.py": {"torch", "mamba_ssm"},
    ROOT / "kernels" / "gpu" / "triton_kernels.py": {"triton"},
    ROOT / "kernels" / "gpu" / "triton_scan.py": {"jax_triton", "torch", "triton"},
    ROOT / "kernels" / "gpu" / "triton_math.py": {"triton"},
    ROOT / "kernels" / "ahead_of_time" / "gpu.py": {"triton"},
}


def sources():
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path):
    """(module, line, at the top level of the file) of each import."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module, node.lineno, id(node) in top
            if node.module == "caduceus_jax":
                yield from (
                    (f"caduceus_jax.{alias.name}", node.lineno, id(node) in top)
                    for alias in node.names
                )


def rank(module):
    """0 for kernels, 1 for models, 2 for training, None for what is not ours."""
    if module.split(".")[0] != "caduceus_jax":
        return None
    if module.startswith("caduceus_jax.kernels"):
        return 0
    return 2 if f"{module}.".startswith("caduceus_jax.train.") else 1


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    own = rank(FOLDERS[folder])
    for module, line, top in imports(path):
        where = f"{path.relative_to(ROOT)}:{line} imports {module}"
        other = rank(module)
        assert other is None or other <= own, where
        root = module.split(".")[0]
        if root in FORBIDDEN:
            assert root in USES.get(path, ()) and not top, where
        if folder == "kernels" and other is None:
            allowed = set(sys.stdlib_module_names) | {"jax", "jaxtyping", "numpy"}
            assert root in allowed | USES.get(path, set()), where


def test_importing_the_package_stays_light():
    """No training or genomics package, and nothing of torch, comes along."""
    code = "import sys, caduceus_jax; print(*sorted(m for m in sys.modules if '.' not in m))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert not loaded & (FORBIDDEN | {"grain", "matplotlib", "polars", "pysam", "tensorboardX"})
