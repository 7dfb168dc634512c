import pytest

from caduceus_jax.train.planning.bounds import PEAKS, Peaks, bounds
from caduceus_jax.train.planning.collectives import Collective
from caduceus_jax.train.planning.step_costs import Cost

COSTS = {"matrix products": Cost(600, 0, 40), "scans": Cost(500, 90, 20)}
SENT = [
    Collective("all-reduce", "f32[2]", "backward psum", 1, 8),
    Collective("all-gather", "f32[4]", "forward all_gather", 2, 16),
]


def test_bounds_by_hand():
    found = bounds(Peaks(100, 10, 20, 4), COSTS, SENT)
    assert found["matrix products"] == (6, 0, 2, None)
    # The sums of a scan are no matrix products: nobody publishes how fast they are.
    assert found["scans"] == (None, 9, 1, None)
    # What is added up is sent twice.
    assert found["between devices"] == (None, None, None, (2 * 8 + 16) / 4)
    assert [bound.least for bound in found.values()] == [6, 9, 8]


def test_what_is_not_known_bounds_nothing():
    found = bounds(Peaks(100, None, 20, 4), COSTS, [])
    assert found["scans"] == (None, None, 1, None)
    assert found["scans"].least == 1


@pytest.mark.parametrize(("chip", "clock"), [("v5e", 1.5e9), ("v5p", 2 * 1.75e9)])
def test_exponentials_of_a_tpu_are_a_thousand_a_cycle(chip, clock):
    assert PEAKS[chip].exponentials == pytest.approx(1024 * clock, rel=0.01)
