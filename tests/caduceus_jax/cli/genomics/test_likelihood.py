"""`caduceus-jax likelihood`: tables and tracks of what is predicted at every base."""

import numpy as np
import polars
import pytest

from caduceus_jax import CaduceusForMaskedLM, UserError
from caduceus_jax.cli.arguments import parse
from caduceus_jax.cli.genomics.likelihood import likelihood as command
from caduceus_jax.cli.signature import signature
from caduceus_jax.genomics.likelihood import likelihood
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring import per_base
from tests.genomes import drawn, write_bed
from tests.genomes import genome as write_genome
from tests.models import language_model

CONTEXT = 31
OPTIONS = Masking(context_length=CONTEXT)
LOGP = ["logp_A", "logp_C", "logp_G", "logp_T"]


@pytest.fixture(scope="module")
def sequences() -> dict[str, str]:
    return drawn({"chr1": 90, "b": 40}, unknown=30)


@pytest.fixture
def genome(tmp_path, sequences) -> Genome:
    return write_genome(tmp_path / "genome.fa", sequences)


def build(rcps: bool) -> CaduceusForMaskedLM:
    return language_model(d_model=16, n_layer=1, rcps=rcps, initializer_range=1.0)


@pytest.fixture(scope="module")
def ps() -> CaduceusForMaskedLM:
    return build(rcps=True)


@pytest.fixture
def folder(tmp_path, ps) -> str:
    ps.save_pretrained(str(tmp_path / "model"))
    return str(tmp_path / "model")


def numbers(frame) -> np.ndarray:
    return frame.select([*LOGP, "logp", "entropy"]).to_numpy()


def test_command(tmp_path, folder, genome, ps, monkeypatch, capsys):
    """Tables equal the function's; a bigWig file has each base once, and no N."""
    pybigwig = pytest.importorskip("pyBigWig")
    monkeypatch.setattr(per_base, "_CHUNK", 16)
    bed = write_bed(tmp_path / "a.bed", ("b", 30, 40), ("1", 20, 50), ("chr1", 25, 60), ("z", 0, 5))
    out = [tmp_path / name for name in ("a.parquet", "a.tsv", "a.bw")]
    with pytest.raises(UserError) as error:
        command(folder, str(bed), genome=str(genome.path), out=out, track="all", options=OPTIONS)
    tracks = [tmp_path / f"a.{name}.bw" for name in ("logp", "entropy", "information")]
    files = ", ".join(map(str, [*out[:2], *tracks]))
    assert str(error.value) == (
        f"1 of 4 regions are not on {genome.path}, first z:0-5: they have the status unknown_chrom "
        f"in {files}; `skip_bad` accepts that"
    )
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        f"regions: 3 ok, 1 unknown_chrom; 50 bases, 2 ambiguous; written to {files}"
    )
    expected = likelihood(ps, bed, genome, options=OPTIONS)
    frame = polars.read_parquet(out[0])
    assert frame.schema == expected.schema
    assert frame.drop(*LOGP, "logp", "entropy").equals(expected.drop(*LOGP, "logp", "entropy"))
    np.testing.assert_allclose(numbers(frame), numbers(expected), atol=1e-5)
    text = polars.read_csv(out[1], separator="\t", schema=expected.schema)
    assert text.equals(frame)
    for path, column in zip(tracks, ("logp", "entropy", "information"), strict=True):
        frame = frame.with_columns(information=2 - polars.col("entropy"))
        with pybigwig.open(str(path)) as file:
            assert file.chroms() == {"chr1": 90, "b": 40}
            rows = frame.filter(polars.col(column).is_not_null()).with_columns(
                chrom=polars.col("chrom").replace("1", "chr1")
            )
            rows = rows.unique(["chrom", "pos"])
            assert len(rows) == file.header()["nBasesCovered"] == 48
            for chrom, length in (("chr1", 90), ("b", 40)):
                track = np.full(length, np.nan)
                some = rows.filter(polars.col("chrom") == chrom)
                track[some["pos"].to_numpy() - 1] = some[column].to_numpy()
                np.testing.assert_allclose(file.values(chrom, 0, length), track, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir() if "partial" in p.name) == []


def test_no_region_is_an_output_without_rows(tmp_path, folder, genome, capsys):
    pybigwig = pytest.importorskip("pyBigWig")
    bed = write_bed(tmp_path / "a.bed")
    out = [tmp_path / name for name in ("a.parquet", "a.tsv", "a.bw")]
    command(folder, str(bed), genome=str(genome.path), out=out, options=OPTIONS)
    files = ", ".join(map(str, out))
    assert capsys.readouterr().err == f"regions: none; 0 bases; written to {files}\n"
    assert polars.read_parquet(out[0]).shape == (0, 10)
    assert out[1].read_text() == "\t".join(polars.read_parquet(out[0]).columns) + "\n"
    with pybigwig.open(str(out[2])) as file:
        assert file.chroms() == {"chr1": 90, "b": 40}
        assert file.intervals("chr1") is None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a.csv"], "cannot write {0}: the name must end in .parquet or .tsv or .tsv.gz or .bw"),
        (["a.tsv", "a.tsv"], "{0} is named twice: give each output a name of its own"),
        (["regions.tsv"], "{0} is the input: choose another name for the output"),
    ],
)
def test_outputs_are_checked_before_the_work(tmp_path, genome, names, says):
    write_bed(tmp_path / "regions.tsv", ("b", 0, 5))
    out = [tmp_path / name for name in names]
    with pytest.raises(UserError) as error:
        command("no model", str(tmp_path / "regions.tsv"), genome=str(genome.path), out=out)
    assert str(error.value) == says.format(*out)


def test_the_command_line_takes_several_outputs():
    words = ["m", "r", "--genome", "g", "--out", "a.tsv", "b.bw", "--track", "all"]
    parsed = parse("likelihood", signature(command), [*words, "--masks-per-pass", "8"]).keywords
    assert list(map(str, parsed["out"])) == ["a.tsv", "b.bw"] and parsed["track"] == "all"
    assert parsed["options"] == Masking(masks_per_pass=8)
    # The name it had before.
    same = parse("likelihood", signature(command), [*words, "--together", "8"]).keywords
    assert same == parsed
