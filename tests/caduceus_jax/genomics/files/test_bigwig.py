import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.bigwig import BigWig, write_bigwig


def test_what_is_written_is_read_and_nothing_is_zero_and_counted(tmp_path):
    path = tmp_path / "t.bw"
    track = np.array([1, 3, np.nan, 5, np.nan, np.nan, np.nan, np.nan, 2, 4], float)
    write_bigwig(path, [("a", 20), ("b", 8)], [("a", 2, track)])
    file = BigWig(path)
    assert file.lengths == {"a": 20, "b": 8}
    # Bases 0 to 12: nothing, nothing, 1, 3 | nothing, 5, ...
    found = file.bins("a", 0, 12, 4)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1.0, 1.25, 1.5])
    assert file.missing == 7
    np.testing.assert_array_equal(file.bins("b", 0, 8, 8), [0.0])
    assert file.missing == 15


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "t.bw"
    write_bigwig(path, [("a", 20)], [("a", 0, np.ones(4))])
    file = BigWig(path)
    with pytest.raises(UserError, match="t.bw has no contig chr1; it has a"):
        file.bins("chr1", 0, 4, 4)
    with pytest.raises(UserError, match="has 20 bases of a, and 16 to 24 .0-based. are asked for"):
        file.bins("a", 16, 24, 4)
    with pytest.raises(UserError, match="nowhere.bw does not exist"):
        BigWig(tmp_path / "nowhere.bw")
    (tmp_path / "no.bw").write_text("chr1 0 5 1.0\n")
    with pytest.raises(UserError, match="no.bw is not a bigWig file"):
        BigWig(tmp_path / "no.bw")
