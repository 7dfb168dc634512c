"""Tables of text as spreadsheets, other programs and people write them."""

import gzip
import os

import pandas
import polars
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.tables import (
    Table,
    checked_bases,
    is_frame,
    of_frame,
    read_table,
)

BOM = b"\xef\xbb\xbf"


def read(path, data: bytes) -> Table:
    path.write_bytes(data)
    return read_table(path)


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("a.tsv", b"x\ty\n1\t2\n", [("1", "2")]),
        ("a.tsv", b"#x\ty\r\n1\t2\r\n", [("1", "2")]),
        ("a.csv", b"x,y\n1,2\n", [("1", "2")]),
        ("a.csv", BOM + b'x,y\r\n"a, b","say ""hi"""\r\n', [("a, b", 'say "hi"')]),
        ("a.csv", b'x,y\n"two\nlines",2\n3,4\n', [("two\nlines", "2"), ("3", "4")]),
        ("a.tsv", BOM + b"x\ty\n1\t2\n", [("1", "2")]),
        ("a.tsv", b"x\ty\n\n1\t2\n\n \n", [("1", "2")]),
        ("a.tsv", b"x\ty\n1\t\n\t2\n", [("1", ""), ("", "2")]),
        # The mark of inches is not that of a quotation.
        ("a.tsv", b'x\ty\n5" end\t2\n', [('5" end', "2")]),
        ("a.tsv", b'x\ty\n"a quoted\tfield"\t2\n', [("a quoted\tfield", "2")]),
        ("a.tsv", b'x\ty\n"\t2\n', [('"', "2")]),
        ("a.tsv", "x\ty\nM\u00fcller\t2\n".encode(), [("M\u00fcller", "2")]),
        ("a.tsv", "x\ty\nM\u00fcller\t2\n".encode("latin-1"), [("M\u00fcller", "2")]),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_text(tmp_path, name, data, rows, compressed):
    if compressed:
        name, data = f"{name}.gz", gzip.compress(data)
    table = read(tmp_path / name, data)
    assert table.frame.columns == ["x", "y"]
    assert table.frame.rows() == rows


@pytest.mark.parametrize("data", [b"x\ty\n1\t2\n", b"x,y\n1,2\n"])
def test_a_pipe_is_read_by_its_first_line(data):
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    assert read_table(f"/dev/fd/{read_end}").frame.rows() == [("1", "2")]
    os.close(read_end)


def test_latin_1_is_remembered(tmp_path):
    assert read(tmp_path / "a.tsv", b"x\ty\nM\xfcller\t2\n").encoding == "latin-1"
    assert read(tmp_path / "a.tsv", "x\ty\nM\u00fcller\t2\n".encode()).encoding == "utf-8"


def test_rows_know_their_lines(tmp_path):
    table = read(tmp_path / "a.csv", b'x,y\n\n"two\nlines",2\n\n3,4\n')
    assert [table.where(i) for i in range(2)] == [f"{tmp_path}/a.csv:3", f"{tmp_path}/a.csv:6"]
    assert Table(polars.DataFrame({"x": [1, 2]})).where(1) == "the table: row 2"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", b"x,y\n1,2\n1,2,3\n", ":3: 3 columns, where the first line names 2; they are"),
        ("a.csv", b'x,y\n1,2\n"a,2\n', ":3: unexpected end of data: a quotation mark is missing"),
        ("a.csv", b"x,y,x\n1,2,3\n", ":1: two columns have the same name, x: rename one of them"),
        ("a.tsv", b"x\ty\n1\n", ":2: 1 columns, where the first line names 2; they are separated"),
        ("a.txt", b"x\ty\n", " is read by its name's ending, and that is none of .csv, .tsv (wit"),
        ("a.tsv", b"\n\n", " is empty: its first line names the columns"),
        ("a.tsv", b"x\ty\n1\t\0", ":2: a zero byte: this is not text, so not a table"),
        ("a.csv", "x,y\n1,2\n".encode("utf-16"), ":1: a zero byte: this is not text, so not a t"),
    ],
)
def test_what_does_not_fit_names_its_line(tmp_path, name, data, says):
    with pytest.raises(UserError) as error:
        read(tmp_path / name, data)
    assert str(error.value).startswith(f"{tmp_path / name}{says}")


def test_parquet_is_told_by_its_first_bytes(tmp_path):
    polars.DataFrame({"x": [1]}).write_parquet(tmp_path / "fd")
    assert read_table(tmp_path / "fd").frame.rows() == [(1,)]


@pytest.mark.parametrize("text", ["x\ty\n1\t2,3\n", '\nx,y\n1,"2,3"\n'])
def test_a_name_without_an_ending_leaves_the_separator_to_the_first_line(tmp_path, text):
    (tmp_path / "stdin").write_text(text)
    assert read_table(tmp_path / "stdin").frame.rows() == [("1", "2,3")]


def test_frames_of_other_kinds():
    expected = polars.DataFrame({"x": [1, 2], "y": ["a", "b"]})
    forms = [expected, expected.lazy(), expected.to_dict(as_series=False)]
    forms.append(pandas.DataFrame({"x": [1, 2], "y": ["a", "b"]}))
    for form in forms:
        assert is_frame(form) and of_frame(form).equals(expected)
    assert not is_frame([1]) and not is_frame("a.tsv")
    with pytest.raises(UserError, match="^a list is not a table"):
        of_frame([1])


def test_bases_of_a_cell():
    assert checked_bases("a:1", " acgR ") == b"acgN"
    for cell, says in {
        None: "a:1: the sequence is missing",
        "  ": "a:1: the sequence is missing",
        "AC!": "a:1: '!' is not a nucleotide code: sequence lines hold A, C, G, T, N",
    }.items():
        with pytest.raises(UserError, match=f"^{says}"):
            checked_bases("a:1", cell)
