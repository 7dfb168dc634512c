"""The public names: complete, imported when first used, and the same for type checkers."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import caduceus_jax as cj

PLACES = cj._PLACES


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PLACES)
def test_every_name_is_what_stands_at_its_place(name):
    module, _, attribute = PLACES[name].partition(":")
    found = importlib.import_module(module)
    assert getattr(cj, name) is (getattr(found, attribute) if attribute else found)
    assert name in dir(cj) and name in cj.__all__


def test_type_checkers_see_the_same_names():
    tree = ast.parse(pathlib.Path(cj.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name  # a re-export
            place = f"{node.module}.{alias.name}"
            if place != PLACES[alias.name]:
                place = f"{node.module}:{alias.name}"
            seen[alias.name] = place
    assert seen == PLACES
    assert set(cj.__all__) == {*PLACES, "UserError", "__version__"}


def test_importing_the_package_imports_no_dependency():
    done = run("import sys, caduceus_jax; print({'jax', 'flax', 'numpy', 'rich'} & {*sys.modules})")
    assert done.stdout == "set()\n"


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'caduceus_jax' has no attribute 'embedd'"):
        cj.embedd  # noqa: B018


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['polars'] = None; import caduceus_jax as cj; "
    done = run(code + "cj._PLACES['embed'] = 'polars'; cj.embed")
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: caduceus_jax.embed needs polars: pip install 'caduceus-jax[genomics]'"
    )
