"""The shape of the sources: rooms, circles, sizes, types, docstrings, and a test for each.

`test_imports.py` has the directions of imports.
"""

import ast
import inspect
import pathlib
import re
from collections import Counter

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {
    "kernels": "caduceus_jax.kernels",
    "caduceus_jax": "caduceus_jax",
    "train": "caduceus_jax.train",
    "configs": "caduceus_jax.configs",
}
# Phrases that a native writer of the field would not use.
ODD = re.compile(
    r"\bis no [a-z]+(?<!longer)\b(?! than)|\bare no [a-z]|say with --|\bhidden bases|the way out"
    r"|are neither there nor|Those that there are|\band say --|mend the disk"
    r"|, no (?:whole )?number\b|where N is read|\bhave one name"
    # "tokens a step" for "tokens per step"
    r"|\b(?:batches|bytes|channels|elements|operations|sequences|steps|tokens|variants"
    r"|windows|[GMk]i?B|ms|one|two|three|four|\d) (?:a|an) (?:base|chip|core|device|group|layer"
    r"|round|row|second|step|tile|token|window)\b"
)
# How the description of an argument or attribute does not begin: as a piece of a sentence.
_PIECE = re.compile(
    r"(?:as|at|by|for|how|in|of|that|those|to|what|where|whose|with|it|they)\b", re.I
)
_SECTION = re.compile(r"^( *)(?:Args|Attributes|Raises):$")
_ENTRY = re.compile(r"^( *)([\w*]+): (.*)$")


def sources():
    """Every file of the package, but the links to the folders beside it."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents):
                yield path


SOURCES = list(sources())
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}


def module_of(path):
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((FOLDERS[folder], *(part for part in rest if part != "__init__")))


MODULES = {module_of(path): path for path in SOURCES}


def functions():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def imported(path):
    """The modules of ours that a file imports anywhere, under TYPE_CHECKING too."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name and MODULES[name] != path and MODULES[name].name != "__init__.py":
                yield name


def test_a_folder_holds_at_most_14_files():
    files = Counter(path.parent for path in SOURCES if path.name != "__init__.py")
    assert {str(f.relative_to(ROOT)): n for f, n in files.items() if n > 14} == {}


def test_no_circle_of_imports():
    left = {name: set(imported(path)) for name, path in MODULES.items()}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert sorted(left) == []


def test_every_source_has_a_test_of_its_name():
    missing = []
    for path in SOURCES:
        if path.name == "__init__.py":
            continue
        name = f"test_{path.stem.strip('_')}.py"
        test = ROOT / "tests" / path.relative_to(ROOT).parent / name
        if not test.exists() or "\ndef test_" not in test.read_text():
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_no_test_imports_another_test():
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                parts = (node.module or "").split(".")
                names = (
                    [*parts, *(alias.name for alias in node.names)] if parts[0] == "tests" else []
                )
                assert not [name for name in names if name.startswith("test_")], path


def test_functions_say_what_they_return_and_what_they_do():
    every = [node for _, node in functions()]
    returns = [node.returns is not None or node.name == "__init__" for node in every]
    assert sum(returns) / len(returns) >= 0.95
    documented = [bool(ast.get_docstring(n)) for n in every if not n.name.startswith("_")]
    assert sum(documented) / len(documented) >= 0.9


def test_functions_and_files_are_short():
    long = []
    for path, node in functions():
        docstring = (ast.get_docstring(node) or "").count("\n") + 1
        if node.end_lineno - node.lineno + 1 - docstring > 60:
            long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert len(long) <= 5, long


def test_nobody_imports_relatively():
    for path, tree in TREES.items():
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level], path


def described(docstring):
    """The arguments, attributes and errors that a docstring lists, with the first line of each."""
    indent = None
    for line in inspect.cleandoc(docstring).splitlines():
        if section := _SECTION.match(line):
            indent = len(section[1]) + 4
        elif line and indent and not line.startswith(" " * indent):
            indent = None
        elif indent and (entry := _ENTRY.match(line)) and len(entry[1]) == indent:
            yield entry[2], entry[3]


def test_descriptions_do_not_begin_in_mid_sentence():
    places = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    odd = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}: {text}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, places)
        for name, text in described(ast.get_docstring(node) or "")
        if _PIECE.match(text)
    ]
    assert odd == []


def test_plain_english():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    odd = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*SOURCES, *pages]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ODD.search(line)
    ]
    assert odd == []
