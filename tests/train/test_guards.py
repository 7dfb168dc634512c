import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.train.config import SIGMA, OptimizerConfig
from caduceus_jax.train.guards import ENOUGH, WINDOW, init_guard, should_apply
from caduceus_jax.train.optimizer import make_optimizer, make_schedule
from caduceus_jax.train.step import init_state, make_train_step

TOKENIZER = cj.Tokenizer()
CONFIG = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
SETTINGS = OptimizerConfig(warmup_fraction=0.2)


def after(rows, sigma=None):
    """Which of these (loss, gradient norm) were taken, and the guard after them."""

    def one(guard, step_and_row):
        step, row = step_and_row
        good, guard = should_apply(guard, step, row[0], row[1], sigma)
        return guard, good

    rows = jnp.asarray(rows, jnp.float32)
    steps = jnp.arange(1, len(rows) + 1, dtype=jnp.int32)
    guard, good = jax.jit(lambda s, r: jax.lax.scan(one, init_guard(), (s, r)))(steps, rows)
    return np.asarray(good), jax.device_get(guard)


def test_what_is_not_finite_is_counted_in_all_and_in_a_row():
    nan, inf = np.nan, np.inf
    rows = [(1, 1), (nan, 1), (1, 1), (1, nan), (inf, 1), (1, -inf)]
    good, guard = after(rows)
    assert good.tolist() == [True, False, True, False, False, False]
    assert (guard.skipped, guard.in_a_row, guard.last_good) == (4, 3, 3)
    assert np.isfinite(guard.recent).all()
    assert (guard.recent[0] == 1).sum() == 2  # of the two steps that were taken
    good, guard = after([*rows, (1, 1)])
    assert (guard.skipped, guard.in_a_row, guard.last_good) == (4, 0, 7)


@pytest.mark.parametrize("kind", [0, 1])  # the loss, the gradient norm
def test_a_spike_is_what_six_deviations_above_the_steps_before_say(kind):
    seen = np.tile([[1.0, 0.3], [2.0, -0.4]], (ENOUGH, 1))[: ENOUGH + 1]
    mean, spread = seen[:ENOUGH].mean(0), seen[:ENOUGH].std(0)
    for factor, taken in ((SIGMA * 1.01, False), (SIGMA * 0.99, True)):
        seen[ENOUGH] = mean
        seen[ENOUGH, kind] = mean[kind] + factor * spread[kind]
        rows = np.stack([seen[:, 0], np.exp(seen[:, 1])], axis=1)  # norms count as logarithms
        good, guard = after(rows, SIGMA)
        assert good[:ENOUGH].all() and good[ENOUGH] == taken
        assert guard.skipped == (not taken)
        # Nobody asked, too few steps before it to say so, or far below: taken.
        assert after(rows)[0].all()
        assert after(rows[1:], SIGMA)[0].all()
    rows[ENOUGH, kind] = (-100.0, 1e-20)[kind]
    assert after(rows, SIGMA)[0].all()


def test_a_norm_of_zero_neither_is_a_spike_nor_hides_one():
    rows = np.tile([[1.0, 1.0], [2.0, 2.0]], (WINDOW, 1))
    rows[[50, 100]] = 0.0  # nothing to predict
    rows[200, 1] = 1e4
    good, _ = after(rows, SIGMA)
    assert good.tolist() == [step != 200 for step in range(2 * WINDOW)]


def test_only_the_newest_steps_that_were_taken_are_remembered():
    # Rows far apart, each of which is a spike to those before: skipped, so forgotten at once.
    rows = np.tile([[1.0, 1.0], [2.0, 2.0]], (WINDOW, 1))
    rows[200] = 50.0
    good, guard = after(rows, SIGMA)
    assert good.tolist() == [step != 200 for step in range(2 * WINDOW)]
    assert set(guard.recent[0]) == {1.0, 2.0}
    # What was ordinary long ago is not any more: a level that rises slowly is followed.
    slowly = np.repeat(np.linspace(1.0, 50.0, 2000)[:, None], 2, axis=1)
    good, guard = after(slowly, SIGMA)
    assert good.all()
    newest = slowly[-WINDOW:, 0]
    np.testing.assert_allclose(np.sort(guard.recent), [newest, np.log(newest)], rtol=1e-6)


@pytest.fixture(scope="module")
def steps():
    """A tiny model's state, and its compiled step without and with spikes skipped."""
    optimizer, schedule = make_optimizer(SETTINGS, 1000), make_schedule(SETTINGS, 1000)
    graphdef, params = nnx.split(cj.CaduceusForMaskedLM(CONFIG, rngs=nnx.Rngs(0)), nnx.Param)
    state = jax.device_get(init_state(params, optimizer))
    return state, *(
        make_train_step(graphdef, optimizer, schedule, TOKENIZER, sigma) for sigma in (None, SIGMA)
    )


def batches(count, seed=0):
    """Repeats of one word with some noise, of which some is hidden."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        labels = np.resize(TOKENIZER.encode("AACAGATTTC"), (8, 32)).astype(np.int32)
        noise = rng.random(labels.shape) < 0.05
        labels = np.where(noise, rng.integers(7, 11, labels.shape), labels).astype(np.int32)
        asked = rng.random(labels.shape) < 0.15
        yield {
            "input_ids": np.where(asked, TOKENIZER.mask_id, labels).astype(np.int32),
            "labels": np.where(asked, labels, TOKENIZER.pad_id).astype(np.int32),
            "weights": np.ones(labels.shape, np.float32),
        }


def inner(state):
    """Everything that a step which is skipped leaves alone, as bytes."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((state.params, state.opt_state))]


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(steps, weight):
    state, step, _ = steps
    good, *more, last = batches(4)
    state, metrics = step(state, good)
    assert not metrics["skipped"] and int(state.guard.last_good) == 1
    before, rate = inner(state), []
    for count, batch in enumerate(more, start=1):
        bad = batch | {"weights": batch["weights"].copy()}
        bad["weights"][3, np.argmax(batch["labels"][3] != TOKENIZER.pad_id)] = weight
        state, metrics = step(state, bad)
        assert not np.isfinite(metrics["loss"])
        assert inner(state) == before
        assert int(state.step) == 1 + count
        counted = [int(metrics[f"skipped{name}"]) for name in ("", "_in_all", "_in_a_row")]
        assert counted == [1, count, count]
        rate.append(float(metrics["lr"]))
    state, metrics = step(state, last)
    assert inner(state) != before
    assert int(state.guard.last_good) == 4 and int(metrics["skipped_in_a_row"]) == 0
    assert int(metrics["skipped_in_all"]) == 2
    # The learning rate is the one that the optimizer really takes: of its own second step.
    schedule = make_schedule(SETTINGS, 1000)
    np.testing.assert_allclose([*rate, metrics["lr"]], float(schedule(1)), rtol=1e-6)


@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_clean_steps_have_no_spike_and_one_that_is_made_is_skipped(steps, count):
    state, plain, guarded = steps
    unguarded = state
    for batch in batches(count):
        state, metrics = guarded(state, batch)
    assert int(metrics["skipped_in_all"]) == 0
    assert float(metrics["masked_loss"]) < 1.0  # it has learnt on the way
    # Nothing but noise is asked, of a model that is sure of the word.
    (batch,) = batches(1)
    wrong = np.where(batch["labels"] == TOKENIZER.pad_id, batch["labels"], 10)
    before = inner(state)
    state, metrics = guarded(state, batch | {"labels": wrong.astype(np.int32)})
    assert int(metrics["skipped"]) == 1 and np.isfinite(metrics["loss"])
    assert inner(state) == before
    assert int(state.step) == count + 1 and int(state.guard.last_good) == count
    for batch in batches(3):
        unguarded, metrics = plain(unguarded, batch)
    assert int(metrics["skipped_in_all"]) == 0
