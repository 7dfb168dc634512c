"""Tables as they are written: the same bytes however they come, and read by others."""

import pandas
import polars
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files import table_files
from caduceus_jax.genomics.files.table_files import check_columns, table_writer
from caduceus_jax.genomics.files.tables import read_table

ROWS = polars.DataFrame(
    {
        "text": ["plain", "a\tb", "two\nlines", '"quoted"', 'say "hi"', None, "", "cr\r"],
        "number": [0.1, None, -1.5e-7, 3.0, 4.0, 5.0, 6.0, 7.0],
    }
)


def written(path, ending, *frames, **options) -> bytes:
    with table_writer(path, ending, **options) as write:
        for frame in frames:
            write(frame)
    return path.read_bytes()


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz"])
def test_no_field_tears_a_row(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    written(path, ending, ROWS[:3], ROWS[3:])
    expected = ["" if text is None else text for text in ROWS["text"].to_list()]
    assert read_table(path).frame["text"].to_list() == expected
    frame = pandas.read_csv(path, sep="\t", keep_default_na=False, lineterminator="\n")
    assert frame["text"].to_list() == expected


def test_what_needs_no_quotation_marks_gets_none(tmp_path):
    frame = polars.DataFrame({"x": ['5" end', "a b", "a,b"], "y": [1, 2, 3]})
    assert written(tmp_path / "a.tsv", ".tsv", frame) == b'x\ty\n5" end\t1\na b\t2\na,b\t3\n'


def test_the_encoding_is_that_of_the_input(tmp_path):
    frame = polars.DataFrame({"x": ["M\u00fcller"]})
    assert written(tmp_path / "a", ".tsv", frame, encoding="latin-1") == b"x\nM\xfcller\n"


@pytest.mark.parametrize("ending", [".parquet", ".tsv", ".tsv.gz"])
def test_parts_do_not_show(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(table_files, "_GROUP_ROWS", 3)
    whole = written(tmp_path / "a", ending, ROWS)
    for parts in ([0, 8], [1, 7], [3, 5], [2, 2, 2, 2], [1] * 8):
        ends = [sum(parts[: i + 1]) for i in range(len(parts))]
        frames = [ROWS[end - part : end] for part, end in zip(parts, ends, strict=True)]
        assert written(tmp_path / "b", ending, *frames) == whole


def test_parquet_groups_hold_few_numbers(tmp_path, monkeypatch):
    import pyarrow.parquet

    monkeypatch.setattr(table_files, "_GROUP_NUMBERS", 10)
    vectors = polars.Series("v", [[[1.0] * 2] * n for n in (3, 1, 4, 9)])
    frame = polars.DataFrame(vectors.cast(polars.List(polars.Array(polars.Float32, 2))))
    written(tmp_path / "a.parquet", ".parquet", frame[:1], frame[1:], metadata={"k": "v"})
    file = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [3, 1]  # 6 + 2 + 8 numbers, then 18
    assert file.schema_arrow.metadata[b"k"] == b"v"
    assert polars.read_parquet(tmp_path / "a.parquet").equals(frame)


def test_no_row_is_a_table_all_the_same(tmp_path):
    written(tmp_path / "a.parquet", ".parquet", ROWS[:0])
    assert polars.read_parquet(tmp_path / "a.parquet").schema == ROWS.schema
    assert written(tmp_path / "a.tsv", ".tsv", ROWS[:0], ROWS[:0]) == b"text\tnumber\n"


def test_columns_that_text_cannot_hold_are_refused(tmp_path):
    frame = polars.DataFrame({"a": [1], "b": [[1, 2]]})
    check_columns(frame, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"^the column b is List\(Int64\), which text cannot hold"):
        check_columns(frame, tmp_path / "a.tsv")
    with pytest.raises(UserError, match="^the column a is Binary"):
        check_columns(polars.DataFrame({"a": [b"x"]}), tmp_path / "a.tsv.gz")
