"""Outputs of every format on a disk that is full at any byte: one sentence, and nothing half."""

import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, CaduceusForTracks
from caduceus_jax.cli.main import FAILED, main
from tests.disks import files_of_at_most
from tests.genomes import fasta, write_bed, write_vcf

SMALL = ["--context-length", "21", "--batch-size", "64"]
FORMATS = {
    "score-variants LM VCF": (".vcf", ".vcf.gz", ".tsv", ".tsv.gz", ".parquet"),
    "embed LM BED": (".npz", ".h5", ".h5ad", ".parquet"),
    "likelihood LM BED": (".bw",),
    "mutagenesis LM REGION": (".png",),
    "predict TRACKS BED": (".bw",),
}
CASES = [(text, ending) for text, endings in FORMATS.items() for ending in endings]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    config = CaduceusConfig(d_model=8, n_layer=1, initializer_range=1.0)
    CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)).save_pretrained(folder / "lm")
    tracks = CaduceusForTracks(config, num_tracks=1, bin_size=3, rngs=nnx.Rngs(0))
    tracks.save_pretrained(folder / "tracks")
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 700))
    turned = bases.translate(str.maketrans("ACGT", "CATG"))
    records = [f"1\t{p + 1}\t.\t{bases[p]}\t{turned[p]}\t.\t.\t." for p in range(100, 600, 2)]
    return {
        "LM": str(folder / "lm"),
        "TRACKS": str(folder / "tracks"),
        "GENOME": str(fasta(folder / "genome.fa", **{"1": bases})),
        "VCF": str(write_vcf(folder / "in.vcf", *records)),
        "BED": str(write_bed(folder / "in.bed", *(("1", p, p + 9) for p in range(0, 600, 5)))),
        "REGION": "1:1-60",
    }


@pytest.mark.parametrize(("text", "ending"), CASES)
def test_a_full_disk_leaves_the_old_file(tmp_path, inputs, capsys, text, ending):
    out = tmp_path / f"out{ending}"
    words = [inputs.get(word, word) for word in text.split()]
    words += ["--out", str(out), "--genome", inputs["GENOME"], *SMALL]
    assert main(words) == 0
    size, whole = out.stat().st_size, out.read_bytes()
    out.write_text("of yesterday")
    journal = tmp_path / f"out{ending}.journal"
    rng = np.random.default_rng(len(ending))
    for limit in (0, 1, 700, *rng.integers(2, size, 4).tolist(), size - 1):
        capsys.readouterr()
        with files_of_at_most(limit):
            status = main(words)
        lines = [line for line in capsys.readouterr().err.splitlines() if "caduceus-jax " in line]
        assert status == FAILED, (limit, size)
        assert len(lines) == 1 and "cannot be " in lines[0] and "File too large" in lines[0]
        assert str(tmp_path) in lines[0] or "TMPDIR" in lines[0]
        assert out.read_text() == "of yesterday"
        assert {path.name for path in tmp_path.iterdir()} <= {out.name, journal.name}
    assert main(words) == 0
    if ending != ".png":
        assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
