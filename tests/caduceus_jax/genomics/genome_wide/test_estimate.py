"""Estimates: passes as they will be, and a time where the work is worth it."""

from caduceus_jax.genomics.genome_wide import estimate as module
from caduceus_jax.genomics.genome_wide.estimate import Estimate, estimate
from caduceus_jax.genomics.interval import Interval, Intervals
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.scoring.per_base import PerBase, PerBaseWork
from tests.genomes import genome as write_genome
from tests.models import pretrained


def test_an_estimate(tmp_path, monkeypatch):
    m = pretrained(n_layer=1)
    genome = write_genome(tmp_path / "a.fa", {"a": "ACGT" * 500, "n": "N" * 500})
    places = Intervals.of([Interval("a", 0, 2000), Interval("n", 0, 500)])
    options = Masking(context_length=31, masks_per_pass=4, batch_size=4)
    work = PerBaseWork(PerBase(places, genome), m, options)
    found = estimate(m.model, work, range(len(work.parts)))
    # 167 groups of 3 passes, of 12 bases each but the last.
    assert (found.passes, found.seconds, found.megabytes) == (501, None, 501 * 4 * 8 / 1e6)
    monkeypatch.setattr(module, "_FEWEST_BATCHES", 10)
    monkeypatch.setattr(module, "_MOST_BATCHES", 5)
    timed = estimate(m.model, work, range(len(work.parts)))
    assert timed.seconds is not None and 0 < timed.seconds < 600 and work.padded == 0


def test_it_is_said_in_words():
    assert str(Estimate(1234, 3725.4, 1234.5)) == (
        "about 1,234 passes, about 1:02:05 on this machine, 1,234.5 MB of scores"
    )
    assert str(Estimate(5, None, 0.1)) == "about 5 passes, 0.1 MB of scores"
