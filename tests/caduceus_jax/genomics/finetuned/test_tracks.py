"""Tracks over regions and sequences: bins of the model, in the genome's coordinates."""

import numpy as np
import polars
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.finetuned.tracks import TrackWork, track_bins, track_places
from caduceus_jax.genomics.options import Prediction
from caduceus_jax.model.files.task import TaskDescription
from tests.genomes import genome, reverse_complement
from tests.models import SMALL, kinds, randomised

BASES = "".join(np.random.default_rng(0).choice(list("ACGT"), 150))
BIN = 4


@pytest.fixture(scope="module")
def m() -> cj.Pretrained:
    return cj.Pretrained(kinds()["tracks"], cj.Tokenizer())


@pytest.fixture(scope="module")
def trained():
    """The same model, which records that it was trained on 24 bases, and units."""
    model = kinds()["tracks"]
    task = TaskDescription(
        kind="tracks", bin_size=BIN, max_length=24, scale=(2.0, 3.0), centre=(1.0, 0.0),
        labels=("a", "b"),
    )  # fmt: skip
    config = cj.CaduceusConfig(**SMALL, rcps=True)
    other = randomised(
        lambda: cj.CaduceusForTracks(
            config, num_tracks=2, bin_size=BIN, labels=("a", "b"), task=task, rngs=nnx.Rngs(0)
        )
    )
    nnx.update(other, nnx.state(model, nnx.Param))
    return cj.Pretrained(other, cj.Tokenizer())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return genome(tmp_path_factory.mktemp("genome") / "a.fa", {"chr1": BASES})


def of_model(m, text: str) -> np.ndarray:
    return np.asarray(m.model(m.tokenizer.encode(text)[None]).logits[0])


def values(frame) -> np.ndarray:
    return frame.select("^predicted.*$").to_numpy()


def test_a_region_is_read_as_it_is(m, reference):
    found = cj.predict(m, [("chr1", 10, 30), ("chr2", 5, 9), ("chr1", 40, 46)], genome=reference)
    assert found.columns == [
        "name", "chrom", "start", "end", "status", "predicted_LABEL_0", "predicted_LABEL_1",
    ]  # fmt: skip
    first = found[:5]
    assert first["start"].to_list() == [10, 14, 18, 22, 26] and first["end"][-1] == 30
    np.testing.assert_allclose(values(first), of_model(m, BASES[10:30]), atol=1e-5)
    assert found.row(5) == ("chr2:5-9", "chr2", 5, 9, "unknown_chrom", None, None)
    # The last bin is completed with the genome's bases, and ends with the region.
    assert found[6:].select("start", "end").rows() == [(40, 44), (44, 46)]
    np.testing.assert_allclose(values(found[6:]), of_model(m, BASES[40:48]), atol=1e-5)


def test_sequences_have_bins_of_their_own(m):
    found = cj.predict(m, [BASES[:12], BASES[20:25]])
    assert found.select("name", "start", "end").rows() == [
        ("0", 0, 4), ("0", 4, 8), ("0", 8, 12), ("1", 0, 4), ("1", 4, 5),
    ]  # fmt: skip
    np.testing.assert_allclose(values(found[:3]), of_model(m, BASES[:12]), atol=1e-5)
    np.testing.assert_allclose(values(found[3:]), of_model(m, BASES[20:25] + "NNN"), atol=1e-5)


def test_values_are_in_their_units(trained, m):
    found = cj.predict(trained, [BASES[:12]])
    expected = of_model(m, BASES[:12]) * [2, 3] + [1, 0]
    np.testing.assert_allclose(values(found), expected, atol=1e-5)


def test_long_regions_are_read_in_windows_that_overlap_by_half(trained, reference):
    found = cj.predict(trained, [("chr1", 10, 71)], genome=reference)
    # Windows of 24 begin at 10, 22, 34, 46 and 50; cuts are in the middles of their overlaps.
    assert found["start"].to_list() == list(range(10, 71, BIN)) and found["end"][-1] == 71
    pieces = [(10, 10, 26), (22, 26, 38), (34, 38, 50), (46, 50, 58), (50, 58, 74)]
    expected = np.concatenate(
        [
            of_model(trained, BASES[s : s + 24])[(a - s) // BIN : (b - s) // BIN]
            for s, a, b in pieces
        ]
    )
    np.testing.assert_allclose(values(found), expected * [2, 3] + [1, 0], atol=1e-5)


def test_a_context_around_the_middle(m, reference):
    found = cj.predict(m, [("chr1", 50, 60)], genome=reference, context_length=32)
    # The window is 39 to 71: its bins do not begin with the region.
    assert found.select("start", "end").rows() == [(50, 51), (51, 55), (55, 59), (59, 60)]
    np.testing.assert_allclose(values(found), of_model(m, BASES[39:71])[2:6], atol=1e-5)
    with pytest.raises(UserError, match="not a multiple of the model's bins of 4"):
        cj.predict(m, [("chr1", 50, 60)], genome=reference, context_length=30)


def test_edges_and_strands(m, reference, tmp_path):
    at_edge = cj.predict(m, [("chr1", 0, 8)], genome=reference, context_length=16)
    np.testing.assert_allclose(values(at_edge), of_model(m, "NNNN" + BASES[:12])[1:3], atol=1e-5)
    dropped = cj.predict(m, [("chr1", 0, 8)], genome=reference, context_length=16, edge="drop")
    assert dropped.select("start", "end", "status").rows() == [(0, 8, "crosses_edge")]
    beyond = cj.predict(m, [("chr1", 142, 170)], genome=reference)
    assert beyond.select("start", "end").rows() == [(142, 146), (146, 150)]
    centred = cj.predict(m, [("chr1", 142, 154)], genome=reference, context_length=12)
    assert centred.select("start", "end").rows() == [(142, 146), (146, 150)]
    np.testing.assert_allclose(values(centred), of_model(m, BASES[142:] + "NNNN")[:2], atol=1e-5)
    # A record of a VCF is read as the bases around it.
    around = cj.predict(m, [cj.Variant("chr1", 5, "A", "C")], genome=reference, context_length=16)
    assert around.select("start", "end").rows() == [(0, 4), (4, 8), (8, 12)]
    np.testing.assert_allclose(values(around), of_model(m, "NNNN" + BASES[:12])[1:], atol=1e-5)
    # An equivariant model's tracks of the other strand are the same, in the same place.
    minus = cj.predict(m, [cj.Interval("chr1", 20, 40, "-")], genome=reference)
    plus = cj.predict(m, [cj.Interval("chr1", 20, 40, "+")], genome=reference)
    np.testing.assert_allclose(values(minus), values(plus), atol=1e-5)
    turned = genome(tmp_path / "b.fa", {"chr1": reverse_complement(BASES)})
    there = cj.predict(m, [("chr1", 110, 130)], genome=turned)
    np.testing.assert_allclose(values(there)[::-1], values(plus), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_and_blocks_change_nothing(m, reference, batch_size):
    rng = np.random.default_rng(1)
    starts = rng.integers(0, 100, 20).tolist()
    lengths = rng.integers(1, 49, 20).tolist()
    regions = [("chr1", s, s + n) for s, n in zip(starts, lengths, strict=True)]
    outputs, options = Outputs.of(m), Prediction(batch_size=batch_size)
    places = track_places(regions, reference, outputs, options)
    assert sum(map(len, TrackWork(m, places, outputs, batch_size).parts)) == 20
    one = cj.predict(m, regions, genome=reference, batch_size=batch_size)
    many = cj.predict(m, regions, genome=reference)
    assert one.drop("^predicted.*$").equals(many.drop("^predicted.*$"))
    np.testing.assert_allclose(values(one), values(many), atol=1e-5)


def test_a_base_that_several_bins_lie_over_has_their_mean(reference):
    rows = [("chr1", 0, 4, 1.0), ("chr1", 4, 8, 2.0), ("1", 2, 6, 6.0), ("chr1", 9, 12, None)]
    frame = polars.DataFrame(rows, schema=["chrom", "start", "end", "x"], orient="row")
    ((name, start, end, value),) = track_bins(frame, reference, "x")
    assert name == "chr1"
    assert list(zip(start.tolist(), end.tolist(), value.tolist(), strict=True)) == [
        (0, 2, 1.0), (2, 4, 3.5), (4, 6, 4.0), (6, 8, 2.0),
    ]  # fmt: skip
    assert list(track_bins(frame[3:].drop_nulls(), reference, "x")) == []
