import hashlib
import json
import pathlib

import pytest

from caduceus_jax import files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old\n")
    with pytest.raises(RuntimeError), files.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old\n"
    files.write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_has_no_numbers_that_are_not_finite(tmp_path):
    value = {"a": float("nan"), "b": (1, float("inf"), 0.5), "c": None, "d": True}
    files.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {"a": None, "b": [1, None, 0.5], "c": None, "d": True}


def test_digests_are_those_of_hashlib(tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(content)
    seen = []
    expected = hashlib.sha256(content).hexdigest()
    assert files.file_digest(tmp_path / "a") == expected
    assert files.file_digest(tmp_path / "a", seen.append) == expected
    assert b"".join(seen) == content


@pytest.mark.parametrize("path", ["gs://b/x.npz", "s3://b", pathlib.Path("gs://b/x.npz")], ids=str)
def test_addresses_are_not_paths(path):
    address = str(path).replace(":/b", "://b")
    with pytest.raises(files.UserError, match=f"^out is {address}: buckets are not read"):
        files.check_local("out", path)


@pytest.mark.parametrize("path", ["C:/x", "a/b:c", "out.npz", "chr1:5"])
def test_paths_are_not_addresses(path):
    files.check_local("out", path)
