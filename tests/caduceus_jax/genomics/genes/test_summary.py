"""Sums of scores by gene and by region, from frames and from files."""

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError

TABLE = polars.DataFrame(
    {
        "chrom": ["1"] * 7,
        "pos": range(7),
        "status": ["ok", "ok", "ok", "ok", "indel", "ok", "ok"],
        "llr": [-1.0, -2.0, -4.0, None, 50.0, 3.0, 7.0],
        "l2": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        "gene": ["B", "B", "B", "B", "B", "A", None],
        "region": ["exon", "CDS", "CDS", "exon", "CDS", "intergenic", "upstream"],
        "tss_distance": [1, 2, 3, 4, 5, 6, 7],
    }
)


def test_by_gene():
    found = cj.summarise(TABLE)
    assert found.columns == [
        "gene", "score", "n", "mean", "q05", "q25", "median", "q75", "q95",
    ]  # fmt: skip
    assert found.select("gene", "score", "n").rows() == [
        ("A", "llr", 1), ("A", "l2", 1), ("B", "llr", 3), ("B", "l2", 4),
    ]  # fmt: skip
    row = found.row(2, named=True)
    values = [-1.0, -2.0, -4.0]
    assert row["mean"] == pytest.approx(np.mean(values))
    for name, q in (("q05", 5), ("q25", 25), ("median", 50), ("q75", 75), ("q95", 95)):
        assert row[name] == pytest.approx(np.percentile(values, q))


@pytest.mark.parametrize("name", ["a.tsv", "a.parquet", "a.csv"])
def test_files_by_region_in_their_order(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        TABLE.write_parquet(path)
    else:
        TABLE.write_csv(path, separator="\t" if name.endswith("tsv") else ",")
    found = cj.summarise(path, "region", scores=["llr"])
    assert found.select("region", "n", "mean").rows() == [
        ("CDS", 2, -3.0), ("exon", 1, -1.0), ("upstream", 1, 7.0), ("intergenic", 1, 3.0),
    ]  # fmt: skip
    assert set(cj.summarise(path, "region")["score"]) == {"llr", "l2"}


def test_what_cannot_be_summed_up_is_one_sentence():
    with pytest.raises(UserError, match="by is 'chrom'; it is one of: gene, region"):
        cj.summarise(TABLE, "chrom")
    with pytest.raises(UserError, match="the table has no column gene: score-variants writes it"):
        cj.summarise(TABLE.drop("gene"))
    with pytest.raises(UserError, match="the table has no column pllr; it has"):
        cj.summarise(TABLE, scores=["pllr"])
    with pytest.raises(UserError, match="no column of scores"):
        cj.summarise(TABLE.drop("llr", "l2"))
