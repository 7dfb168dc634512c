"""The pages: commands that exist, examples that run, and every public name."""

import pathlib
import re
import shlex

import pytest

import caduceus_jax as cj
from caduceus_jax.cli.arguments import parse
from caduceus_jax.cli.commands import COMMANDS, signature_of
from docs.tools import outputs
from tests.models import language_model

ROOT = pathlib.Path(__file__).parents[2]
SITE = "https://caduceus-jax.github.io/caduceus-jax/"
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
API = sorted((ROOT / "docs/api").glob("*.md"))
_SHELL = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([\w./-]*\.md)?#([^)\s]+)\)")
_SCRIPT = "draw_mutagenesis"  # is in that script alone


def _name(path):
    return str(path.relative_to(ROOT))


def _commands(text):
    """The words after `caduceus-jax` of each command in the shell blocks of a page."""
    typed = [command for block in outputs.transcripts(text) for command in outputs.commands(block)]
    for block in (*_SHELL.findall(text), *typed):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip()
            for part in re.split(r"&&|\|\||[|;]", line.partition(" #")[0]):
                part = re.sub(r"\d?>+ *\S+", "", part).strip()
                if part.startswith("caduceus-jax "):
                    yield shlex.split(part)[1:]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_exist_with_their_options(page):
    for words in _commands(page.read_text()):
        if words[0].startswith("-"):
            continue
        count = 2 if " ".join(words[:2]) in COMMANDS else 1
        name, rest = " ".join(words[:count]), words[count:]
        assert name in COMMANDS, words
        if "--help" in rest or name in ("bench", "COMMAND", "VERB"):
            continue
        if name == "pretrain":
            rest = [word for word in rest if word != "my.yaml"]
        parse(f"caduceus-jax {name}", signature_of(COMMANDS[name]), rest)


def _parts(page):
    """The names that links to parts of a page may have, as the site makes them of headings."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?)(?: *\{ *#[^}]*\})? *$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    names = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", x)).strip("-") for x in plain}
    return names | set(re.findall(r"""(?:\{ *#|id=")([^}" ]+)""", text))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_parts_that_pages_have(page):
    for target, part in _LINK.findall(page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert part.startswith("cj.") or part in _parts(path), f"{target}#{part}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a clone of the repository, with a small random model in runs/quickstart."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "configs").symlink_to(ROOT / "configs")
    language_model(d_model=16, n_layer=1).save_pretrained(str(folder / "runs/quickstart"))
    return folder


@pytest.mark.parametrize("page", API, ids=_name)
def test_examples_of_the_api_run(page, clone, monkeypatch, shapes_unchecked):
    monkeypatch.chdir(clone)
    blocks = _PYTHON.findall(page.read_text())
    assert blocks
    names = {}
    for block in blocks:
        if _SCRIPT not in block:
            exec(compile(block, _name(page), "exec"), names)


def test_the_whole_script_is_short_and_stands_alone(clone, monkeypatch, shapes_unchecked):
    monkeypatch.chdir(clone)
    blocks = _PYTHON.findall((ROOT / "docs/api/index.md").read_text())
    (script,) = [block for block in blocks if _SCRIPT in block]
    assert len(script.splitlines()) <= 25
    names = {}
    exec(compile(script, "docs/api/index.md", "exec"), names)
    assert names["scored"]["status"].to_list() == ["ok"] * 20
    assert names["changes"].height == 3 * 30
    assert (clone / "changes.png").stat().st_size
    logits = names["m"].model(names["masked"]).logits
    before = cj.masked_lm_loss(logits, names["labels"], 0.1 + (names["masked"] != names["labels"]))
    assert names["value"] < before


def test_every_public_name_is_documented():
    text = "\n".join(page.read_text() for page in API)
    shown = set(re.findall(r"^::: cj\.([\w.]+)$", text, re.MULTILINE))
    packages = {"genomics", "inference", "kernels", "model"}  # their public names have entries
    missing = set(cj.__all__) - shown - packages - {"__version__"}
    assert not missing
    assert {f"kernels.{name}" for name in _exported("kernels")} <= shown
    assert {name.partition(".")[0] for name in shown} <= set(cj.__all__)
    index = (ROOT / "docs/api/index.md").read_text()
    assert not [name for name in cj.__all__ if f"[`{name}`](" not in index]
    examples = "\n".join(_PYTHON.findall(text))
    assert not [name for name in set(cj.__all__) - packages if f"cj.{name}" not in examples]


def _exported(package):
    text = (ROOT / package / "__init__.py").read_text()
    return re.findall(r"import (\w+) as \1", text) + re.findall(r"^    (\w+) as \1", text, re.M)


@pytest.mark.parametrize("name", COMMANDS)
def test_manual_pages_name_pages_of_the_site_by_their_address(name, capsys):
    with pytest.raises(SystemExit):
        parse(f"caduceus-jax {name}", signature_of(COMMANDS[name]), ["--help-all"])
    page = "".join(capsys.readouterr().out.split())
    assert "docs/" not in page
    for link in re.findall(SITE + r"([\w-]+)/", page):
        assert (ROOT / f"docs/{link}.md").is_file()


def test_tutorials_link_to_pages_of_the_site_by_their_address():
    for path in sorted((ROOT / "docs/tutorials").glob("*.ipynb")):
        text = path.read_text()
        links = re.findall(SITE + r"([\w/-]+)/", text)
        assert links and all((ROOT / f"docs/{link}.md").is_file() for link in links)
        assert f"blob/main/docs/tutorials/{path.name}" in text  # opens itself in Colab
        assert "](../" not in text


def test_transcripts_start_with_a_command():
    for page in PAGES:
        for block in outputs.transcripts(page.read_text()):
            assert block.startswith("$ "), (page, block)
