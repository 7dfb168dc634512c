"""Packaging: metadata, recipes for containers, Bioconda and workflows agree with each other."""

import gzip
import pathlib
import re
import subprocess
import tomllib

import pytest
import yaml

import caduceus_jax

ROOT = pathlib.Path(__file__).parents[1]
REPOSITORY = "https://github.com/caduceus-jax/caduceus-jax"


@pytest.fixture
def project():
    """The [project] table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_metadata(project):
    assert {"Documentation", "Repository", "Issues", "Changelog"} <= project["urls"].keys()
    assert project["urls"]["Repository"] == REPOSITORY and project["authors"]
    minors = [c.rpartition(".")[2] for c in project["classifiers"] if ":: 3." in c]
    assert minors == ["11", "12", "13"]
    assert "Operating System :: POSIX :: Linux" in project["classifiers"]


def test_one_address_of_the_repository_everywhere():
    files = [ROOT / "mkdocs.yml", ROOT / "CITATION.cff", ROOT / "Dockerfile"]
    files += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for path in files:
        for owner in re.findall(r"github\.com/([\w-]+)/caduceus-jax", path.read_text()):
            assert owner == "caduceus-jax", path


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == caduceus_jax.__version__
    assert citation["repository-code"] == REPOSITORY
    assert all("title" in r and "authors" in r for r in citation["references"])


def test_dockerfile_follows_the_rules_of_hadolint():
    text = (ROOT / "Dockerfile").read_text()
    joined = text.replace("\\\n", " ")
    images = re.findall(r"^FROM (\S+)", joined, re.M)
    assert images and all(":" in image and "latest" not in image for image in images)
    runs = re.findall(r"^RUN (.*)$", joined, re.M)
    for run in runs:
        assert "sudo" not in run and not re.search(r"\bcd ", run)
        if "apt-get install" in run:
            assert "--no-install-recommends" in run and "--yes" in run
            assert "apt-get update" in run and "rm -rf /var/lib/apt/lists" in run
        if re.search(r"pip (install|wheel)", run):
            assert "--no-cache-dir" in run
    users = re.findall(r"^USER (\S+)", joined, re.M)
    assert users and users[-1] not in ("root", "0")
    assert re.search(r'^ENTRYPOINT \["caduceus-jax"\]', joined, re.M)
    assert "ADD " not in joined and "MAINTAINER" not in joined


def test_apptainer_recipe():
    text = (ROOT / "docs/workflows/apptainer.def").read_text()
    header, sections = text.split("\n\n", 1)
    assert header.splitlines()[0] == "Bootstrap: docker"
    image = re.search(r"^From: (\S+)$", header, re.M)[1]
    assert image in (ROOT / "Dockerfile").read_text().replace("${PYTHON}", "3.13-slim-bookworm")
    found = re.findall(r"^%(\w+)", sections, re.M)
    assert {"files", "post", "runscript", "test", "help", "arguments"} <= set(found)
    listed = sections.split("%files")[1].split("%post")[0].split()[::2]
    for path in listed:
        assert (ROOT / path).exists()
    assert "{{ extras }}" in sections and "extras=train,genomics" in sections


def test_bioconda_recipe_has_the_dependencies_of_the_package(project):
    text = (ROOT / "docs/workflows/bioconda/meta.yaml").read_text()
    assert f'version = "{caduceus_jax.__version__}"' in text
    plain = re.sub(r"{%.*?%}", "", text)
    plain = re.sub(r"{{[^}]*}}", "x", plain)
    recipe = yaml.safe_load(plain)
    there = {}
    for line in recipe["requirements"]["run"]:
        name, _, bounds = line.partition(" ")
        there[_plain_name(name)] = bounds
    wanted = project["dependencies"] + project["optional-dependencies"]["genomics"]
    for requirement in wanted:
        name, bounds = re.match(r"([\w-]+)(?:\[[\w,]+\])?(.*)", requirement).groups()
        assert there.pop(_plain_name(name)) == bounds, requirement
    assert there == {"python": ">=3.11"}


def _plain_name(name):
    """A name as PyPI has it; Conda writes some otherwise."""
    name = name.lower().replace("_", "-")
    return {"matplotlib-base": "matplotlib", "jsonargparse-with-signatures": "jsonargparse"}.get(
        name, name
    )


def test_workflows_of_the_repository():
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert any(step.get("run") == ".ci/run" for step in ci["jobs"]["checks"]["steps"])
    matrix = release["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert matrix["versions"] == ["lowest", "highest"]
    publish = release["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "test"
    assert "password" not in str(publish)


def test_snakefile_and_nextflow_call_the_command():
    for name in ("Snakefile", "main.nf"):
        text = (ROOT / "docs/workflows" / name).read_text()
        joined = re.sub(r'\\\n\s*|"\n\s*"', "", text)
        command = re.search(r"caduceus-jax score-variants.*--genome.*--out", joined)
        assert command, name


def _script(process):
    """The shell script of a process of main.nf, as Nextflow would run it."""
    text = (ROOT / "docs/workflows/main.nf").read_text()
    body = text.split(f"process {process} ")[1].split('"""')[1]
    for name, value in {"vcf": "calls.vcf.gz", "params.pieces": "3"}.items():
        body = body.replace(f"${{{name}}}", value)
    return body.replace("\\$", "$")


@pytest.mark.parametrize("records", [7, 2, 0])
def test_the_pieces_of_the_nextflow_workflow_are_the_whole(tmp_path, records):
    header = "##fileformat=VCFv4.3\n#CHROM\tPOS\n"
    lines = [f"chr1\t{i}\n" for i in range(records)]
    whole = header + "".join(lines)
    (tmp_path / "calls.vcf.gz").write_bytes(gzip.compress(whole.encode()))
    run = {"cwd": tmp_path, "check": True}
    subprocess.run(["bash", "-euc", _script("SPLIT")], **run)
    pieces = sorted(tmp_path.glob("piece-*.vcf"))
    assert len(pieces) == 3 and all(p.read_text().startswith(header) for p in pieces)
    for piece in pieces:
        piece.rename(tmp_path / f"{piece.stem}.scored.vcf")
    subprocess.run(["bash", "-euc", _script("GATHER")], **run)
    assert (tmp_path / "scored.vcf").read_text() == whole
