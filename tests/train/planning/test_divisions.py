import dataclasses
import math

import jax
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.train.config import StepConfig
from caduceus_jax.train.planning.collectives import Collective
from caduceus_jax.train.planning.divisions import (
    MOST_TRIED,
    Division,
    candidates,
    estimated_bytes,
    fastest,
    parameters,
    try_divisions,
)

LARGE = StepConfig(
    model=cj.CaduceusConfig(d_model=1024, n_layer=48, rcps=True),
    batch_size=32,
    max_length=131_072,
    remat="blocks",
)
V5E = int(15.75 * 2**30)


def test_nearly_all_parameters_are_in_projections():
    model = nnx.eval_shape(lambda: cj.CaduceusForMaskedLM(LARGE.model, rngs=nnx.Rngs(0)))
    whole = sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert 0.85 * whole < parameters(LARGE) < whole


def test_divisions_of_a_large_model_share_windows_and_parameters():
    """On 256 chips 32 windows need 8 chips each; less of everything is on a chip of more shards."""
    found = candidates(LARGE, 256, V5E)
    assert found
    for division in found:
        rows = 256 // (division.sequence * division.tensor)
        assert LARGE.batch_size % (rows * division.microbatches) == 0
        division.of(LARGE)  # is a step
    assert {d.sequence * d.tensor for d in found} <= {8, 16, 32, 64, 128, 256}
    need = [estimated_bytes(LARGE, Division(fsdp, 8, 1, 1), 256) for fsdp in (1, 8, 32)]
    assert need == sorted(need, reverse=True)
    assert candidates(dataclasses.replace(LARGE, batch_size=1), 256, 2**20) == []


def test_the_fastest_that_fits_is_the_one_that_sends_least():
    tried = []

    def attempt(division):
        tried.append(division)
        sent = [Collective("all-reduce", "f32[5]", "psum", 1, 1000 * (10 - len(tried)))]
        return len(tried) > 1, 2**30, sent, 1.0

    found = try_divisions(LARGE, 256, V5E, attempt)
    assert [d.fits for d in found] == [False, True, True]
    assert [d[:4] for d in found] == [d[:4] for d in tried]
    best = fastest(found)
    assert best is not None and best.sent == 2 * 7000 and best[:4] == tried[2][:4]
    assert fastest(found[:1]) is None
    assert Division(8, 4, 1, 1).words() == "fsdp 8, sequence 4"


def test_a_search_ends():
    found = try_divisions(LARGE, 256, V5E, lambda division: (False, None, [], 0.0))
    assert len(found) <= MOST_TRIED and not any(d.fits for d in found)
    own = found[0].of(LARGE)
    again = try_divisions(own, 256, V5E, lambda division: (False, None, [], 0.0))
    assert found[0][:4] not in [d[:4] for d in again]
