"""`caduceus-jax predict`: tables beside the sequences that they are about."""

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from tests.genomes import fasta, genome, write_bed
from tests.models import classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("classifier") / "model")
    classifier(num_labels=2).save_pretrained(path)
    return path


def test_a_table_comes_out_with_predictions(tmp_path, folder, run):
    (tmp_path / "a.csv").write_text("id,sequence\n1,ACGTTGCA\n2,GGCATTA\n")
    out = tmp_path / "a.tsv"
    status, shown, log = run("predict", folder, tmp_path / "a.csv", "--out", out)
    assert status == 0 and "rows: 2 ok" in log
    found = polars.read_csv(out, separator="\t")
    assert found.columns == ["id", "sequence", "status", "predicted", "p_LABEL_0", "p_LABEL_1"]
    assert found["status"].to_list() == ["ok", "ok"]
    expected = cj.predict(cj.load(folder), ["ACGTTGCA", "GGCATTA"])
    np.testing.assert_allclose(found["p_LABEL_1"], expected["p_LABEL_1"], atol=1e-5)
    counted = dict(line.split("\t") for line in shown.splitlines())
    assert sum(map(int, counted.values())) == 2 and set(counted) == set(found["predicted"])


def test_regions_that_are_not_there_are_written_and_end_with_status_2(tmp_path, folder, run):
    genome(tmp_path / "a.fa", {"chr1": "ACGTTGCA" * 4})
    bed = write_bed(tmp_path / "a.bed", "chr1\t0\t12", "chr9\t0\t12")
    words = ("predict", folder, bed, "--genome", tmp_path / "a.fa", "--out", tmp_path / "a.parquet")
    assert run(*words)[0] == 2
    found = polars.read_parquet(tmp_path / "a.parquet")
    assert found["status"].to_list() == ["ok", "unknown_chrom"]
    assert found["p_LABEL_0"].is_null().to_list() == [False, True]
    assert run(*words, "--skip-bad")[0] == 0


def test_a_model_that_is_not_there_is_one_sentence(tmp_path, folder, run):
    reads = fasta(tmp_path / "a.fa", one="ACGT")
    status, _, log = run("predict", tmp_path / "nowhere", reads, "--out", tmp_path / "a.tsv")
    assert status == 2 and len(log.strip().splitlines()) == 1
