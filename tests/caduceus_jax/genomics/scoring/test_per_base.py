"""What is known at a base, in bits; and regions merged into bases that are computed once."""

import numpy as np
import polars

from caduceus_jax.genomics.interval import Interval, Intervals
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.scoring.per_base import PerBase, PerBaseWork, entropy, information
from tests.genomes import genome as write_genome
from tests.models import pretrained


def test_entropy_by_hand():
    halves, quarters = np.log([0.5, 0.25, 0.125, 0.125]), np.log([0.25] * 4)
    np.testing.assert_allclose(entropy(halves), 1.75, atol=1e-6)
    np.testing.assert_allclose(entropy(quarters), 2.0, atol=1e-6)
    # Tokens that are no base take a part: the four are made to sum to 1.
    np.testing.assert_allclose(entropy(halves - 3), 1.75, atol=1e-6)
    certain = np.array([[0.0, -np.inf, -np.inf, -np.inf]])
    assert entropy(certain).tolist() == [0.0]
    np.testing.assert_allclose(information(np.stack([halves, quarters])), [0.25, 0], atol=1e-6)
    assert np.isnan(entropy(np.full((2, 4), np.nan))).all()


def test_regions_become_bases_that_are_computed_once(tmp_path):
    genome = write_genome(tmp_path / "a.fa", {"a": "ACGT" * 10, "b": "ACGT" * 5})
    places = [("b", 3, 9), ("a", 0, 5), ("a", 4, 8), ("c", 0, 3), ("a", 8, 10), ("b", 15, 99)]
    results = PerBase(Intervals.of(Interval(*place) for place in places), genome)
    merged = results.merged
    assert merged.contig.tolist() == [0, 1, 1]
    assert list(zip(merged.start.tolist(), merged.end.tolist(), strict=True)) == [
        (0, 10),
        (3, 9),
        (15, 20),
    ]
    assert merged.offset.tolist() == [0, 10, 16] and merged.bases == 21
    assert results.status.tolist() == ["ok", "ok", "ok", "unknown_chrom", "ok", "ok"]
    results.log_probabilities = np.tile(np.arange(21, dtype=np.float32)[:, None], 4)
    chunks = [(c.chrom, c.start, c.log_probabilities[:, 0].tolist()) for c in results.chunks()]
    assert chunks[0] == ("b", 3, [10, 11, 12, 13, 14, 15])
    assert chunks[2] == ("a", 4, [4, 5, 6, 7])
    assert chunks[3][0] == "c" and np.isnan(chunks[3][2]).all()
    assert chunks[5] == ("b", 15, [16, 17, 18, 19, 20])
    assert [(c.chrom, c.start, len(c.base)) for c in results.merged_chunks()] == [
        ("a", 0, 10),
        ("b", 3, 6),
        ("b", 15, 5),
    ]
    tables = list(results.tables({"n": polars.Int64}, lambda chunk, known: {"n": [int(known)]}))
    assert [frame["n"].to_list() for frame in tables] == [[], [1], [1], [1], [0], [1], [1]]


def test_blocks_cover_all_bases_in_order(tmp_path):
    genome = write_genome(tmp_path / "a.fa", {"a": "ACGTN" * 200})
    for masks in (1, 3):
        results = PerBase(Intervals.of([Interval("a", 5, 995)]), genome)
        options = Masking(context_length=31, masks_per_pass=masks, batch_size=2)
        work = PerBaseWork(results, pretrained(), options)
        assert [part.start for part in work.parts[1:]] == [part.stop for part in work.parts[:-1]]
        assert (work.parts[0].start, work.parts[-1].stop) == (0, 990) and len(work.parts) > 8
        # Four of five bases are known; shards are cut by these.
        known = [sum((5 + base) % 5 != 4 for base in part) for part in work.parts]
        assert list(work.weights) == known and sum(known) == 792
