"""Tiles cover a sequence symmetrically, and their stitched vectors are those of their middles."""

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from caduceus_jax import (
    CaduceusConfig,
    CaduceusForMaskedLM,
    Pretrained,
    Tokenizer,
    UserError,
    inference,
)
from caduceus_jax.genomics.embed import embed
from caduceus_jax.genomics.scoring.tiles import cut, middle
from caduceus_jax.inference import batches
from tests.models import randomised


@pytest.fixture(scope="module")
def model() -> CaduceusForMaskedLM:
    config = CaduceusConfig(d_model=8, n_layer=1, rcps=True, initializer_range=1.0)
    return randomised(lambda: CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))


def embed_tiled(model, sequences, **options):
    """The vectors of `embed` as arrays."""
    vectors = embed(Pretrained(model, Tokenizer()), sequences, **options)["embedding"].to_list()
    return [np.array(vector, np.float32) for vector in vectors]


def draw(*lengths: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.choice(np.frombuffer(b"ACGT", np.uint8), length).tobytes() for length in lengths]


def reverse_complement(bases: bytes) -> bytes:
    return bases.translate(bytes.maketrans(b"ACGT", b"TGCA"))[::-1]


def spans(length: int, tile: int, overlap: int) -> tuple[list, list]:
    tiles = cut(np.array([length]), tile, overlap)
    return list(zip(tiles.start.tolist(), tiles.end.tolist(), strict=True)), tiles.share.tolist()


def test_cuts_by_hand():
    # Neighbours share 2 bases and meet between them: 5 | 5.
    assert spans(10, 6, 2) == ([(0, 6), (4, 10)], [[0, 10], [10, 20]])
    # They share base 3, half of which, the half-base 6, is each one's.
    assert spans(7, 4, 1) == ([(0, 4), (3, 7)], [[0, 7], [7, 14]])
    # An even number of bases is left over: the tile in the middle has room.
    assert spans(12, 6, 2) == ([(0, 6), (3, 9), (6, 12)], [[0, 9], [9, 15], [15, 24]])
    # An odd number: it is one base shorter, so that it lies in the middle.
    assert spans(11, 6, 2) == ([(0, 6), (3, 8), (5, 11)], [[0, 9], [9, 13], [13, 22]])
    assert spans(6, 6, 2) == ([(0, 6)], [[0, 12]])
    assert spans(1, 6, 2) == ([(0, 1)], [[0, 2]])


def test_cutting_several_sequences_and_none():
    tiles = cut(np.array([3, 7, 1]), 4, 1)
    assert tiles.sequence.tolist() == [0, 1, 1, 2]
    assert tiles.start.tolist() == [0, 0, 3, 0] and tiles.end.tolist() == [3, 4, 7, 1]
    assert len(cut(np.zeros(0, np.int64), 4, 1).start) == 0


@settings(derandomize=True, deadline=None)
@given(length=st.integers(1, 5_000), tile=st.integers(1, 300), fraction=st.floats(0, 0.99))
def test_any_cut_covers_everything_once_and_symmetrically(length, tile, fraction):
    overlap = int(fraction * tile)
    _, start, end, share = cut(np.array([length]), tile, overlap)
    assert (start[0], end[-1]) == (0, length)
    np.testing.assert_array_equal(start, length - end[::-1])
    np.testing.assert_array_equal(share, 2 * length - share[::-1, ::-1])
    assert share[0, 0] == 0 and share[-1, 1] == 2 * length
    np.testing.assert_array_equal(share[1:, 0], share[:-1, 1])
    assert (share[:, 0] < share[:, 1]).all()
    assert ((2 * start <= share[:, 0]) & (share[:, 1] <= 2 * end)).all()
    lengths = sorted((end - start).tolist())
    if length > tile:
        # As many as are needed, all of the same length but one.
        assert len(start) == -(-(length - overlap) // (tile - overlap))
        assert lengths[0] in (tile - 1, tile) and lengths[1:] == [tile] * (len(start) - 1)
        assert (end[:-1] - start[1:] >= overlap).all()


def test_the_tile_in_the_middle():
    tiles = middle(np.array([10, 11, 4, 3]), 4)
    assert tiles.start.tolist() == [3, 4, 0, 0] and tiles.end.tolist() == [7, 7, 4, 3]


POOLINGS = {"mean": {}, "center": {}, "window": {"window": 5}}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_tile_that_holds_everything_changes_nothing(model, pooling):
    sequences, options = draw(24, 9), {"pooling": pooling, **POOLINGS[pooling]}
    expected = inference.embed(model, sequences, **options)
    for tile in (None, 24, 1_000):
        got = embed_tiled(model, sequences, **options, tile=tile)
        np.testing.assert_array_equal(got, expected)


def test_stitched_vectors_by_hand(model):
    """39 bases in tiles of 16 that share 4: 0-16, 12-27 and 23-39, which meet at 14 and at 25."""
    (bases,) = draw(39)
    (got,) = embed_tiled(model, [bases], pooling="none", tile=16, overlap=4)
    tiles = [
        inference.embed_tokens(model, [bases[a:b]])[0] for a, b in ((0, 16), (12, 27), (23, 39))
    ]
    expected = np.concatenate([tiles[0][:14], tiles[1][2:13], tiles[2][2:]])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    mean = embed_tiled(model, [bases], tile=16, overlap=4)
    np.testing.assert_allclose(mean[0], expected.mean(axis=0), atol=1e-5)
    for pooling, span in {"center": (19, 20), "window": (17, 22)}.items():
        pooled = embed_tiled(model, [bases], pooling=pooling, **POOLINGS[pooling], tile=16)
        # Their tile is the one in the middle.
        np.testing.assert_allclose(
            pooled[0], tiles[1][span[0] - 12 : span[1] - 12].mean(axis=0), atol=1e-5
        )


def test_a_base_in_the_middle_of_an_overlap_is_of_both_tiles(model):
    (bases,) = draw(27)
    (got,) = embed_tiled(model, [bases], pooling="none", tile=16, overlap=5)
    left, right = inference.embed_tokens(model, [bases[:16], bases[11:]])
    np.testing.assert_allclose(got[:13], left[:13], atol=1e-5)
    np.testing.assert_allclose(got[13], (left[13] + right[2]) / 2, atol=1e-5)
    np.testing.assert_allclose(got[14:], right[3:], atol=1e-5)
    assert np.abs(left[13] - right[2]).max() > 1e-3
    mean = embed_tiled(model, [bases], tile=16, overlap=5)
    np.testing.assert_allclose(mean[0], got.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 3, 4])
def test_the_other_strand_is_tiled_alike(model, overlap):
    """Of even and odd lengths, in even and odd numbers of tiles."""
    sequences = draw(31, 32, 33, 34, 45, 46, 47, 48, 49)
    others = [reverse_complement(bases) for bases in sequences]
    options = {"tile": 16, "overlap": overlap, "batch_size": 8}
    for pooling in ("mean", "none"):
        got = embed_tiled(model, sequences, pooling=pooling, **options)
        other = embed_tiled(model, others, pooling=pooling, **options)
        for one, two in zip(got, other, strict=True):
            np.testing.assert_allclose(two[::-1] if pooling == "none" else two, one, atol=1e-5)
    odd = [number for number, bases in enumerate(sequences) if len(bases) % 2]
    for pooling in ("center", "window"):
        window = {"window": 5} if pooling == "window" else {}
        got, other = (
            np.stack(embed_tiled(model, strand, pooling=pooling, **window, **options))[odd]
            for strand in (sequences, others)
        )
        np.testing.assert_allclose(other, got, atol=1e-5)


def test_pooled_vectors_need_no_tokens(model, monkeypatch):
    """What comes from the device is one vector per tile."""
    seen, fetched = [], batches._fetched

    def spy(batch, results):
        seen.append(fetched(batch, results)[1].shape)
        return fetched(batch, results)

    monkeypatch.setattr(batches, "_fetched", spy)
    embed_tiled(model, draw(39), tile=16, overlap=4)
    assert sum(rows for rows, _ in seen) == 3 and {channels for _, channels in seen} == {8}


def test_tiles_that_make_no_sense(model):
    for options, says in {
        (("tile", 0),): r"^tile is 0; it must be at least 1$",
        (("overlap", 3),): r"^overlap is what tiles share: pass their length, `tile`, too$",
        (("tile", 8), ("overlap", 8)): r"^overlap is 8; it must be from 0 to 7, below `tile`$",
        (("pooling", "none"), ("window", 8)): r"^pooling window and a window, its length",
        (
            ("tile", 8),
            ("pooling", "window"),
            ("window", 9),
        ): r"^window is 9, which does not fit into a tile of 8$",
    }.items():
        with pytest.raises(UserError, match=says):
            embed_tiled(model, draw(4), **dict(options))
