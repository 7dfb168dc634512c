"""Which sequences run together, and where."""

import os
import subprocess
import sys

import numpy as np
import pytest

from caduceus_jax import inference
from caduceus_jax.inference import batches
from caduceus_jax.inference.batches import plan


def test_a_batch_that_divides_is_spread_over_all_devices(ps, monkeypatch, draw):
    seen, fetched = [], batches._fetched
    monkeypatch.setattr(
        batches,
        "_fetched",
        lambda batch, out: seen.append(len(out.devices())) or fetched(batch, out),
    )
    inference.embed(ps, draw(*[24] * 8), batch_size=8)
    inference.embed(ps, draw(*[24] * 3), batch_size=3)
    assert seen == [4, 1]


def test_cores_share_one_long_sequence(ps, monkeypatch, draw):
    """By its channels, with the numbers of one device."""
    devices, compiled = [], batches._compiled
    monkeypatch.setattr(
        batches,
        "_compiled",
        lambda forward, those, axis, **static: (
            devices.append((len(those), axis)) or compiled(forward, those, axis, **static)
        ),
    )
    sequences = draw(24)
    alone = inference.embed(ps, sequences, batch_size=1)
    monkeypatch.setattr(batches, "_SHARED_TOKENS", 16)
    shared = inference.embed(ps, sequences, batch_size=1)
    assert devices == [(1, "batch"), (4, "channels")]
    np.testing.assert_allclose(shared, alone, rtol=0, atol=2e-6)


def test_few_shapes_are_compiled(monkeypatch):
    monkeypatch.setattr(batches, "_TOKENS_PER_SHAPE", {"cpu": 0})
    lengths = np.random.default_rng(0).integers(1, 5_000, 2_000)
    planned = plan(lengths, batch_size=8)
    assert sorted(row for batch in planned for row in batch.rows) == list(range(2_000))
    shapes = {(batch.size, batch.length) for batch in planned}
    assert len(shapes) <= 18
    assert all(batch.length >= lengths[batch.rows].max() for batch in planned)
    long = [batch for batch in planned if batch.length > 32]
    assert all(batch.length < 2 * lengths[batch.rows].min() for batch in long)
    assert plan(np.full(5, 77), batch_size=None)[0].length == 77


def test_padding_replaces_a_shape_where_it_costs_less(monkeypatch):
    """Up to 64 for two rows are 32 tokens more, up to 200 for four rows are 544 more."""
    lengths = np.array([40, 64, 200, 60, 48])
    for most, expected in {100: [64, 64, 200, 64, 64], 10: [48, 64, 200, 64, 48]}.items():
        monkeypatch.setattr(batches, "_TOKENS_PER_SHAPE", {"cpu": most})
        planned = {row: batch.length for batch in plan(lengths, 2) for row in batch.rows.tolist()}
        assert [planned[row] for row in range(5)] == expected


@pytest.mark.parametrize(("setting", "told"), [("", 1), ("jax_num_cpu_devices", 0)])
def test_idle_cores_are_named_once(setting, told):
    """In a process of its own: devices are chosen once."""
    code = """if True:
        import sys
        import jax
        import numpy as np
        from caduceus_jax.inference import batches
        if sys.argv[1]:
            jax.config.update(sys.argv[1], 1)
        plan = batches.plan(np.full(6, 40), 1)
        batches._MANY_BATCHES = 3
        inputs = lambda batch: (batch.rows, batch.rows)
        for _ in range(2):
            list(batches.run(lambda model, x, y: x + y, None, plan, inputs))
    """
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, "-c", code, setting]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    several = len(os.sched_getaffinity(0)) > 1
    assert done.stderr.count("call use_cores() before anything is computed") == told * several
