"""A prepared folder in place of a FASTA file: the same bytes from every command."""

import pytest

from caduceus_jax.cli.main import main
from tests.genomes import prepared

COMMANDS = [
    "score-variants LM VCF --out out.tsv --context-length 21",
    "embed LM BED --out out.npz",
    "predict CLASSIFIER BED --out out.tsv",
    "likelihood LM BED --out out.tsv out.bw --context-length 21",
    "likelihood LM all --out out.zarr --context-length 21 --masks-per-pass 4",
    "mutagenesis LM BED --out out.bw --context-length 21",
    "attribute LM BED --out out.tsv",
]


def written(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # What a store says of itself tells its genome's identity.
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != "zarr.json"}


@pytest.mark.parametrize("text", COMMANDS)
def test_the_same_bytes(tmp_path, inputs, monkeypatch, text):
    with open(inputs["GENOME"]) as file:
        bases = file.read().split("\n")[1]
    folder = prepared(tmp_path, **{"1": bases}).path
    outputs = []
    for name, genome in (("one", inputs["GENOME"]), ("two", str(folder))):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        words = [inputs.get(word, word) for word in text.split()]
        assert main([*words, "--genome", genome, "--batch-size", "2"]) == 0
        outputs.append(written(tmp_path / name))
    assert outputs[0] == outputs[1] and outputs[0]
