import pickle

import numpy as np
import pytest

from caduceus_jax.train.data.splits import Block
from caduceus_jax.train.data.windows import Windows
from tests.genomes import prepared


@pytest.fixture
def windows(tmp_path):
    def make(text, *, length=4, stride=None, block=None, **options):
        store = prepared(tmp_path, before="N" * 7, c=text, after="N" * 7)
        block = block or (0, len(text))
        blocks = [Block(0, "c", *block)]
        return Windows([store], blocks, length=length, stride=stride or length, **options)

    return make


def texts(found):
    return [found[i].tobytes().decode() for i in range(len(found))]


def test_windows_tile_and_n_completes_the_last(windows):
    assert texts(windows("ACGTAAccGG")) == ["ACGT", "AAcc", "GGNN"]
    assert texts(windows("ACGTAACC")) == ["ACGT", "AACC"]
    assert texts(windows("AC")) == ["ACNN"]


def test_windows_overlap_by_the_stride_and_stop_at_the_end(windows):
    assert texts(windows("ACGTAACC", stride=2)) == ["ACGT", "GTAA", "AACC"]
    assert texts(windows("ACGTAAC", stride=2)) == ["ACGT", "GTAA", "AACN"]


def test_windows_stay_within_their_block(windows):
    assert texts(windows("ACGTAACCGG", block=(3, 9))) == ["TAAC", "CGNN"]


def test_the_last_window_is_shifted_inward_where_asked(windows):
    assert texts(windows("ACGTAACCGG", inward=True)) == ["ACGT", "AACC", "CCGG"]
    assert texts(windows("ACGTAACCGG", block=(1, 8), inward=True)) == ["CGTA", "AACC"]
    # Nothing to shift where the block is shorter than a window, or ends with one.
    assert texts(windows("AC", inward=True)) == ["ACNN"]
    assert texts(windows("ACGTAACC", inward=True)) == ["ACGT", "AACC"]


@pytest.mark.parametrize("unknown", ["N", "n"])
def test_windows_of_n_alone_are_left_out(windows, unknown):
    text = "ACGT" + unknown * 8 + unknown * 3 + "A" + "CCCC" + unknown * 5
    assert texts(windows(text)) == ["ACGT", unknown * 3 + "A", "CCCC"]
    assert len(windows(unknown * 9)) == 0
    assert len(windows(unknown * 9, inward=True)) == 0


def test_windows_that_touch_what_is_avoided_are_left_out(windows):
    text = "AAAACCCCGGGGTTTTACGT"
    for avoid, left in (
        ((8, 12), ["AAAA", "CCCC", "TTTT", "ACGT"]),
        ((7, 8), ["AAAA", "GGGG", "TTTT", "ACGT"]),
        ((7, 13), ["AAAA", "ACGT"]),
        ((0, 20), []),
    ):
        assert texts(windows(text, avoid=[Block(0, "c", *avoid)])) == left
    # The same positions of another contig, or of another genome, are nothing to avoid.
    elsewhere = [Block(0, "before", 0, 7), Block(0, "after", 0, 7), Block(1, "c", 0, 20)]
    assert len(windows(text, avoid=elsewhere)) == 5


def test_windows_of_chance_are_those_found_one_by_one(tmp_path):
    """Gaps, a stride, blocks, two genomes: against the definition."""
    rng = np.random.default_rng(0)
    texts_ = ["".join(rng.choice(list("ANNNNnA"), 400)) for _ in range(3)]
    stores = [prepared(tmp_path, a=texts_[0], b=texts_[1]), prepared(tmp_path, a=texts_[2])]
    blocks = [Block(0, "b", 3, 390), Block(1, "a", 0, 400), Block(0, "a", 10, 111)]
    avoid = [Block(0, "b", 50, 60), Block(1, "a", 200, 201), Block(0, "b", 55, 80)]
    found = Windows(stores, blocks, length=5, stride=3, avoid=avoid)
    expected = []
    for genome, text, start, end in ((0, 1, 3, 390), (0, 0, 10, 111), (1, 2, 0, 400)):
        away = {0: {}, 1: set(range(50, 80)), 2: {200}}[text]
        for first in range(start, end - 5 + 3, 3):
            last = min(first + 5, end)
            piece = texts_[text][first:last]
            if set(piece.upper()) != {"N"} and not any(i in away for i in range(first, last)):
                expected.append((genome, piece.ljust(5, "N")))
    assert texts(found) == [piece for _, piece in expected]
    first_genome = sum(genome == 0 for genome, _ in expected)
    assert found.of_genome(0) == range(first_genome)
    assert found.of_genome(1) == range(first_genome, len(expected))


def test_a_copy_in_another_process_maps_the_same_files(windows):
    found = windows("ACGT" * 50_000)
    sent = pickle.dumps(found)
    assert len(sent) < 5_000
    np.testing.assert_array_equal(pickle.loads(sent)[49_999], found[49_999])
