"""Random access to bgzip, against the whole file decompressed."""

import gzip

import numpy as np
import pysam
import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.reference import bgzip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of four blocks and the empty one at its end."""
    path = tmp_path_factory.mktemp("bgzip") / "a.txt.gz"
    text = np.random.default_rng(0).choice(np.frombuffer(b"ACGT\n", np.uint8), 200_000).tobytes()
    with pysam.BGZFile(str(path), "w") as out:
        out.write(text)
    return path


@pytest.fixture(scope="module")
def text(file):
    return gzip.decompress(file.read_bytes())


def test_any_part_of_the_content_is_read(file, text):
    source = Input(file)
    opened = bgzip.Bgzip(source, bgzip.scan_blocks(source))
    assert opened.size == len(text) == 200_000
    for start, end in [(0, 5), (65_000, 66_000), (0, 200_000), (199_999, 200_000), (7, 7)]:
        assert opened.read(start, end) == text[start:end]


def test_the_index_is_that_of_bgzip(file, tmp_path):
    blocks = bgzip.scan_blocks(Input(file))
    bgzip.write_gzi(tmp_path / "ours", blocks)
    np.testing.assert_array_equal(bgzip.read_gzi(tmp_path / "ours"), blocks)
    assert bgzip.fits(Input(file), blocks)
    assert not bgzip.fits(Input(file), blocks[:-1])  # what follows the last one is not empty
    assert not bgzip.fits(Input(file), blocks + [[0, 0], *[[1, 0]] * (len(blocks) - 1)])
    (tmp_path / "cut").write_bytes((tmp_path / "ours").read_bytes()[:-3])
    with pytest.raises(ValueError, match="is not an index of blocks"):
        bgzip.read_gzi(tmp_path / "cut")


def test_a_damaged_block_is_named(file, tmp_path):
    blocks = bgzip.scan_blocks(Input(file))
    data = bytearray(file.read_bytes())
    data[int(blocks[1, 0]) + 100] ^= 0xFF
    (tmp_path / "a.gz").write_bytes(data)
    source = Input(tmp_path / "a.gz")
    with pytest.raises(UserError, match=f"the block at byte {int(blocks[1, 0]):,} does not"):
        bgzip.Bgzip(source, blocks).read(0, 200_000)
