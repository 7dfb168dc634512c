import gzip

import pytest

import caduceus_jax as cj
from caduceus_jax.train.evaluation.eqtl_table import read_table


def test_names_of_columns_and_both_ways_of_counting(tmp_path):
    one = "CHROM,POS,REF,ALT,label,tissue,split,distance_to_nearest_TSS\n"
    one += "chr1,5,A,C,1,lung,train,-40\nchr2,6,G,T,0,brain,test,\n"
    other = "chromosome\tpos0\tref\talt\tlabel\tsplit\nchr1\t4\tA\tC\t1\ttrain\n"
    other += "chr2\t5\tG\tT\t0\ttest\n"
    (tmp_path / "a.csv").write_text(one)
    with gzip.open(tmp_path / "b.tsv.gz", "wt") as file:
        file.write(other)
    for name in ("a.csv", "b.tsv.gz"):
        table = read_table(tmp_path / name, [])
        assert table.chrom == ["chr1", "chr2"] and table.position.tolist() == [4, 5]
        assert table.ref == ["A", "G"] and table.alt == ["C", "T"]
        assert table.label.tolist() == [1, 0] and table.test.tolist() == [False, True]
    table = read_table(tmp_path / "a.csv", [])
    assert table.tissue == ["lung", "brain"] and table.distance[0] == 40
    assert table.distance[1] != table.distance[1]


def test_contigs_divide_what_no_column_does(tmp_path):
    (tmp_path / "t.csv").write_text("chrom,pos,alt,label\nchr1,5,A,1\nchr9,6,A,0\n")
    assert read_table(tmp_path / "t.csv", ["chr9"]).test.tolist() == [False, True]
    with pytest.raises(cj.UserError, match="no rows are for testing"):
        read_table(tmp_path / "t.csv", ["chr7"])
