"""`caduceus-jax embed`: a row for each FASTA record, region and record, in its place."""

import gzip
import json
import pathlib

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax import CaduceusForMaskedLM, UserError, inference
from caduceus_jax.cli.genomics.embed import embed as command
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.options import Embedding
from tests import genomes
from tests.models import pretrained

D_MODEL = 16


@pytest.fixture(scope="module")
def model() -> CaduceusForMaskedLM:
    return pretrained().model


@pytest.fixture
def folder(tmp_path, model) -> str:
    model.save_pretrained(str(tmp_path / "model"))
    return str(tmp_path / "model")


@pytest.fixture(scope="module")
def chr1() -> str:
    return "".join(np.random.default_rng(0).choice(list("ACGT"), 100))


@pytest.fixture
def genome(tmp_path, chr1) -> pathlib.Path:
    path = tmp_path / "genome.fa"
    path.write_text(f">chr1\n{chr1}\n>chr2\nACGT\n")
    return path


def write_bed(tmp_path, *lines: str) -> pathlib.Path:
    return genomes.write_bed(tmp_path / "regions.bed", *lines)


def run(folder, path, out, genome=None, skip_bad=False, **options) -> None:
    given = None if genome is None else str(genome)
    command(
        folder, str(path), out=out, genome=given, options=Embedding(**options), skip_bad=skip_bad
    )


def test_fasta_to_npz(tmp_path, folder, model, chr1, capsys):
    path, out = tmp_path / "reads.fa.gz", tmp_path / "reads.npz"
    sequences = [chr1[:24], chr1[3:20].lower(), chr1[30:54]]
    text = "".join(f">read{i} of 3\n{s[:10]}\n{s[10:]}\n" for i, s in enumerate(sequences))
    path.write_bytes(gzip.compress(text.encode()))
    words = ["embed", folder, str(path), "--out", str(out), "--concatenate"]
    assert main(words) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"sequences: 3 ok; written to {out}"
    with np.load(out) as file:
        assert list(file) == ["name", "length", "status", "embedding"]
        assert file["name"].tolist() == ["read0", "read1", "read2"]
        assert file["length"].tolist() == [24, 17, 24]
        assert file["status"].tolist() == ["ok"] * 3
        expected = inference.embed(model, sequences, concatenate=True)
        np.testing.assert_allclose(file["embedding"], expected, atol=1e-5)


REGIONS = (
    "chr1\t10\t34\tinside",
    "chr9\t0\t24\tnowhere",
    "1\t90\t114",
    "chr1\t100\t124\tbeyond",
)


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_regions_to_parquet(tmp_path, folder, model, genome, chr1, pooling, capsys):
    polars = pytest.importorskip("polars")
    path, out = write_bed(tmp_path, *REGIONS), tmp_path / "regions.parquet"
    words = ["embed", folder, str(path), "--genome", str(genome), "--out", str(out)]
    assert main([*words, "--pooling", pooling]) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"regions: 2 ok, 1 unknown_chrom, 1 out_of_range; written to {out}",
        f"caduceus-jax embed: 2 of 4 regions are not on {genome}, first nowhere: they have the "
        f"status unknown_chrom or out_of_range in {out}; --skip-bad accepts that",
    ]
    frame = polars.read_parquet(out)
    assert frame.drop("embedding").columns == [
        *("name", "chrom", "start", "end", "window_start", "window_end", "padding", "status")
    ]
    assert frame.drop("embedding").rows() == [
        ("inside", "chr1", 10, 34, 10, 34, 0, "ok"),
        ("nowhere", "chr9", 0, 24, 0, 24, 0, "unknown_chrom"),
        ("1:90-114", "1", 90, 114, 90, 114, 14, "ok"),
        ("beyond", "chr1", 100, 124, 100, 124, 0, "out_of_range"),
    ]
    embeddings = frame["embedding"].to_list()
    assert embeddings[1] is None and embeddings[3] is None
    bases = [chr1[10:34], chr1[90:] + "N" * 14]
    expected = inference.embed_tokens(model, bases)
    for got, states in zip((embeddings[0], embeddings[2]), expected, strict=True):
        assert np.shape(states) == (24, D_MODEL)
        if pooling == "mean":
            states = states.mean(axis=0)
        np.testing.assert_allclose(got, states, atol=1e-5)


def test_vectors_of_each_base_in_npz(tmp_path, folder, model, genome, chr1):
    path = write_bed(tmp_path, "chr1\t10\t34", "chr9\t0\t24", "chr1\t60\t77")
    out = tmp_path / "regions.npz"
    run(folder, path, out, genome=genome, pooling="none", skip_bad=True)
    with np.load(out) as file:
        assert file["offsets"].tolist() == [0, 24, 24, 41]
        expected = inference.embed_tokens(model, [chr1[10:34], chr1[60:77]])
        np.testing.assert_allclose(file["embedding"], np.concatenate(expected), atol=1e-5)


EDGES = {
    # edge: window_start, padding and status of a window of 24 around base 95 of 100
    "pad": (83, 7, "ok"),
    "shift": (76, 0, "ok"),
    "drop": (83, 0, "crosses_edge"),
}


@pytest.mark.parametrize("edge", EDGES)
def test_windows_around_regions(tmp_path, folder, model, genome, chr1, edge):
    """The middle of a region, rounded down, is base 12 of a window of 24."""
    path = write_bed(tmp_path, "chr1\t40\t51\ta", "chr1\t94\t97\tb", "chr1\t99\t400\tc")
    out = tmp_path / "windows.npz"
    run(folder, path, out, genome=genome, context_length=24, edge=edge, skip_bad=True)
    start, padding, status = EDGES[edge]
    with np.load(out) as file:
        assert file["start"].tolist() == [40, 94, 99]
        assert file["window_start"].tolist()[:2] == [33, start]
        assert file["window_end"].tolist()[:2] == [57, start + 24]
        assert file["padding"].tolist() == [0, padding, 0]
        # Around the middle of the third region, base 249, there is nothing to be read.
        assert file["status"].tolist() == ["ok", status, "out_of_range"]
        bases = [chr1[33:57], (chr1 + "N" * 24)[start : start + 24]]
        expected = inference.embed(model, bases)
        np.testing.assert_allclose(file["embedding"][0], expected[0], atol=1e-5)
        if status == "ok":
            np.testing.assert_allclose(file["embedding"][1], expected[1], atol=1e-5)
        assert np.isnan(file["embedding"][[1, 2]]).all(axis=1).tolist() == [status != "ok", True]
    with pytest.raises(UserError) as error:
        run(folder, path, out, genome=genome, context_length=24, edge="error")
    assert str(error.value) == (
        f"{path}:2 needs bases 83 to 107 (0-based) of a contig of 100: choose edge pad, shift or "
        "drop"
    )


@pytest.mark.parametrize(
    ("ending", "pooling"),
    [
        *((e, "mean") for e in ("npz", "parquet", "h5", "h5ad")),
        ("npz", "none"),
        ("parquet", "none"),
    ],
)
def test_no_region_in_no_row_out(tmp_path, folder, genome, ending, pooling):
    out = tmp_path / f"none.{ending}"
    run(folder, write_bed(tmp_path, "#"), out, genome=genome, pooling=pooling)
    if ending == "npz":
        with np.load(out) as file:
            assert file["embedding"].shape == (0, D_MODEL) and file["status"].shape == (0,)
    elif ending == "parquet":
        frame = pytest.importorskip("polars").read_parquet(out)
        assert frame.height == 0 and frame.columns[-2:] == ["status", "embedding"]
    elif ending == "h5":
        with pytest.importorskip("h5py").File(out) as file:
            assert file["embedding"].shape == (0, D_MODEL) and file["status"].shape == (0,)
    else:
        assert pytest.importorskip("anndata").read_h5ad(out).shape == (0, D_MODEL)


def test_records_of_a_vcf(tmp_path, folder, model, genome, chr1, capsys):
    """A window around the first base of REF for each record, whatever its ALTs."""
    anndata = pytest.importorskip("anndata")
    ref = chr1[49]
    other = "ACGT"["ACGT".index(ref) - 1]
    path, out = tmp_path / "calls.vcf", tmp_path / "calls.h5ad"
    path.write_text(
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"chr1\t50\trs1\t{ref}\t*,<DEL>\t.\t.\t.\n"
        f"chr1\t50\t.\t{other}\tN\t.\t.\t.\n"
        f"chr7\t50\trs1\t{ref}\t.\t.\t.\t.\n"
        f"chr1\t101\tbeyond\t{ref}\t.\t.\t.\t.\n"
    )
    words = ["embed", folder, str(path), "--genome", str(genome), "--out", str(out), "--skip-bad"]
    assert main([*words, "--context-length", "17", "--layer", "1", "--pooling", "center"]) == 0
    assert capsys.readouterr().err.splitlines()[-3::2] == [
        f"1 of 4 records have another REF than {genome}, first chr1:50: is it the assembly that "
        "they were called on?",
        f"records: 2 ok, 1 unknown_chrom, 1 out_of_range; written to {out}",
    ]
    read = anndata.read_h5ad(out)
    assert list(read.obs_names) == ["rs1", "chr1:50", "rs1-1", "beyond"]
    assert read.obs.values.tolist() == [
        ["rs1", "chr1", 50, 41, 58, 0, "ok"],
        ["chr1:50", "chr1", 50, 41, 58, 0, "ok"],
        ["rs1", "chr7", 50, 41, 58, 0, "unknown_chrom"],
        ["beyond", "chr1", 101, 92, 109, 0, "out_of_range"],
    ]
    assert list(read.obs.columns) == [
        *("name", "chrom", "pos", "window_start", "window_end", "padding", "status")
    ]
    expected = inference.embed(model, [chr1[41:58]], pooling="center", layer=1)
    np.testing.assert_allclose(read.X[:2], expected.repeat(2, axis=0), atol=1e-5)
    assert read.X.dtype == np.float32 and np.isnan(read.X[2:]).all()
    provenance = read.uns["caduceus-jax"]
    assert (provenance["layer"], provenance["pooling"]) == (1, "center")
    assert (provenance["rc_mode"], provenance["tile"]) == ("none", "none")
    assert (provenance["model"], provenance["version"]) == (folder, cj.__version__)


def test_a_contig_in_tiles_to_hdf5(tmp_path, folder, model, genome, chr1):
    h5py = pytest.importorskip("h5py")
    out = tmp_path / "tiles.h5"
    tiling = {"tile": 48, "overlap": 8}
    run(folder, genome, out, pooling="none", **tiling, max_length=48)
    with h5py.File(out) as file:
        assert list(file) == sorted(["name", "length", "status", "offsets", "embedding"])
        assert file["name"].asstr()[:].tolist() == ["chr1", "chr2"]
        assert file["length"][:].tolist() == [100, 4]
        assert file["status"].asstr()[:].tolist() == ["ok", "ok"]
        assert file["offsets"][:].tolist() == [0, 100, 104]
        m = cj.Pretrained(model, cj.Tokenizer())
        frame = cj.embed(m, [chr1, "ACGT"], pooling="none", **tiling)
        expected = [np.array(vectors) for vectors in frame["embedding"].to_list()]
        np.testing.assert_allclose(file["embedding"][:], np.concatenate(expected), atol=1e-5)
        assert (file.attrs["tile"], file.attrs["genome"]) == (48, "none")
    run(folder, genome, out, **tiling)
    with h5py.File(out) as file:
        assert "offsets" not in file
        expected = [states.mean(axis=0) for states in expected]
        np.testing.assert_allclose(file["embedding"][:], expected, atol=1e-5)


def test_provenance_of_a_parquet_file(tmp_path, folder, genome):
    polars = pytest.importorskip("polars")
    out = tmp_path / "o.parquet"
    run(folder, genome, out, layer=-1)
    provenance = json.loads(polars.read_parquet_metadata(out)["caduceus-jax"])
    assert (provenance["model"], provenance["layer"]) == (folder, 2)
    assert provenance["version"] == cj.__version__ and provenance["tile"] is None


def fails(capsys, *words: str | pathlib.Path) -> str:
    assert main(["embed", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("caduceus-jax embed: ")


def test_misuse_is_one_sentence(tmp_path, genome, capsys):
    bed, out = write_bed(tmp_path, "chr1\t0\t50", "chr1\t0\t90\tlong"), tmp_path / "o.npz"
    assert fails(capsys, "no-model", bed, "--out", out) == (
        f"{bed} is a BED file: pass --genome, where its regions lie"
    )
    absent = tmp_path / "absent.bed"
    assert fails(capsys, "no-model", absent, "--out", out) == f"{absent} does not exist"
    assert fails(capsys, "no-model", genome, "--out", out, "--genome", genome) == (
        f"{genome} is a FASTA file, where a BED file of regions is needed"
    )
    assert fails(capsys, "no-model", genome, "--out", out, "--context-length", "9") == (
        "--context-length is for regions and variants, which need a --genome"
    )
    arguments = ("no-model", bed, "--out", out, "--genome", genome)
    assert fails(capsys, *arguments, "--context-length", "0") == (
        "--context-length is 0; it must be at least 1"
    )
    assert fails(capsys, *arguments, "--max-length", "60") == (
        f"{bed}:2 has 90 bases, more than --max-length, 60: read windows of it with a BED file, "
        "cut it with --tile, or allow more"
    )
    assert fails(capsys, "no-model", genome, "--out", out, "--max-length", "60") == (
        f"{genome}: record chr1 has 100 bases, more than --max-length, 60: read windows of it with "
        "a BED file, cut it with --tile, or allow more"
    )
    assert fails(capsys, "no-model", genome, "--out", tmp_path / "o.csv") == (
        f"cannot write {tmp_path / 'o.csv'}: the name must end in .parquet or .npz or .h5 or "
        ".hdf5 or .h5ad"
    )
    vcf = tmp_path / "calls"
    vcf.write_text("##fileformat=VCFv4.2\n")
    assert fails(capsys, "no-model", vcf, "--out", out) == (
        f"{vcf} is a VCF file: pass --genome, where its records lie, and --context-length to set "
        "how many bases to read"
    )
    assert fails(capsys, "no-model", vcf, "--out", out, "--genome", genome) == (
        f"{vcf} ends within its header: there is no #CHROM line"
    )
    genomes.write_vcf(vcf)
    assert fails(capsys, "no-model", vcf, "--out", out, "--genome", genome) == (
        f"{vcf} is a VCF file: pass --context-length, how many bases around each record's position "
        "to read"
    )
    assert fails(
        capsys, "no-model", genome, "--out", out, "--tile", "64", "--max-length", "60"
    ) == ("--tile is 64, more than --max-length, 60: allow more")
    annotated = tmp_path / "o.h5ad"
    assert fails(capsys, "no-model", genome, "--out", annotated, "--pooling", "none") == (
        "an AnnData file holds one vector per row: write pooling none to .h5"
    )
    assert not out.exists()
