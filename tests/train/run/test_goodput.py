import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax import CaduceusConfig
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.planning.step_costs import step_costs
from caduceus_jax.train.run.goodput import (
    IN_FLIGHT,
    KINDS,
    InFlightSteps,
    Speed,
    TimeLedger,
    carried,
    device_memory,
    time_lines,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self, time=0.0):
        self.time = time

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


def spend(timeline, clock, kind, seconds):
    with timeline.during(kind):
        clock.time += seconds


def spent(timeline):
    return {kind: seconds for kind, seconds in timeline.seconds.items() if seconds}


def test_what_the_host_does_beside_a_step_costs_nothing(clock):
    timeline = TimeLedger(0.0, now=clock)
    clock.time = 3.0
    spend(timeline, clock, "compile", 5.0)  # until 8
    dispatched = clock.time
    spend(timeline, clock, "input", 2.0)  # until 10, beside the step
    clock.time = 11.0
    timeline.step(dispatched, done=11.0)
    assert spent(timeline) == {"start": 3.0, "compile": 5.0, "step": 3.0}
    timeline.count_until(11.0)
    assert sum(timeline.seconds.values()) == 11.0


def test_the_device_waits_for_an_input_that_takes_longer_than_a_step(clock):
    timeline = TimeLedger(0.0, now=clock)
    timeline.begin("host")
    for _ in range(3):
        dispatched = clock.time
        spend(timeline, clock, "input", 5.0)  # a step takes 2 of it
        timeline.step(dispatched, dispatched + 2.0)
    timeline.count_until(clock.time)
    assert spent(timeline) == {"step": 6.0, "input": 9.0}


def test_steps_in_flight_follow_each_other(clock):
    timeline = TimeLedger(0.0, now=clock)
    timeline.begin("host")
    # Dispatched at once, computed one after the other, with validation after the second.
    for dispatched, done in ((0.0, 4.0), (0.5, 8.0)):
        timeline.step(dispatched, done)
    clock.time = 8.0
    spend(timeline, clock, "validate", 2.0)
    timeline.step(10.5, 12.0)
    assert spent(timeline) == {"step": 9.5, "validate": 2.0, "host": 0.5}
    assert timeline.goodput()["goodput"] == pytest.approx(9.5 / 12)
    assert timeline.goodput()["seconds_validate"] == 2.0


def test_every_second_counts_once_whatever_happens(clock):
    rng = np.random.default_rng(0)
    timeline, done, waiting = TimeLedger(0.0, now=clock), 0.0, []
    for _ in range(200):
        for kind in rng.choice(["input", "save", "validate"], rng.integers(0, 3)):
            spend(timeline, clock, str(kind), rng.random())
        clock.time += rng.random() / 4
        done = max(done, clock.time) + rng.random()
        waiting.append((clock.time, done))
        while len(waiting) > rng.integers(0, 3):
            ended = waiting.pop(0)
            clock.time = max(clock.time, ended[1])
            timeline.step(*ended)
    for ended in waiting:
        clock.time = max(clock.time, ended[1])
        timeline.step(*ended)
    timeline.count_until(clock.time)
    assert sum(timeline.seconds.values()) == pytest.approx(clock.time)
    assert all(seconds >= 0 for seconds in timeline.seconds.values())


def test_a_run_that_continues_counts_all_of_its_parts():
    rows = [
        {"step": 10, "seconds_step": 5.0, "seconds_start": 1.0, "goodput": 5 / 6},
        {"step": 12, "loss": 1.0},  # of a version that did not count
        {"step": 20, "seconds_step": 9.0, "seconds_start": 1.0, "goodput": 0.9},
    ]
    assert sum(carried([], 0).values()) == 0
    before = carried(rows, first_step=12)
    assert before == dict.fromkeys(KINDS, 0.0) | {"step": 5.0, "start": 1.0, "lost": 4.0}
    timeline = TimeLedger(100.0, before, now=Clock(102.0))
    timeline.count_until(102.0)
    assert timeline.seconds["start"] == 3.0
    assert timeline.goodput()["goodput"] == pytest.approx(5 / 12)


def test_a_few_steps_may_be_in_flight_and_each_is_told_once():
    @jax.jit
    def step(state, batch):
        return state + batch, {"batch": batch, "half": batch / 2}

    timeline, state, told = TimeLedger(0.0), jnp.int32(0), []
    flight = InFlightSteps(timeline)
    for number in (1, 2, 3, 4):
        state = flight.run(number, step, state, jnp.int32(number))
        told.append([done for done, _ in flight.finished(wait=False)])
        assert len(told) - sum(map(len, told)) <= IN_FLIGHT
    assert told == [[], [], [1], [2]]
    rest = list(flight.finished(wait=True))
    assert rest == [(3, {"batch": 3, "half": 1.5}), (4, {"batch": 4, "half": 2.0})]
    assert isinstance(rest[0][1]["batch"], int)
    assert int(state) == 1 + 2 + 3 + 4
    assert timeline.seconds["compile"] > 0 and timeline.seconds["step"] > 0


def test_a_step_that_fails_says_so():
    def fail(_):
        raise ValueError("no device any more")

    def step(state, batch):
        failing = batch > 1
        found = jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.int32), batch)
        return state, {"found": found if failing else batch}

    flight = InFlightSteps(TimeLedger(0.0))
    with pytest.raises(jax.errors.JaxRuntimeError, match="no device any more"):
        flight.run(1, step, jnp.int32(0), jnp.int32(2))
        list(flight.finished(wait=True))


def test_speed_is_of_the_device_and_tokens_of_the_loop(clock):
    config = PretrainConfig(
        model=CaduceusConfig(d_model=8, n_layer=1, rcps=True), batch_size=2, max_length=50
    )
    timeline = TimeLedger(0.0, now=clock)
    speed = Speed(config, timeline)
    speed.begin(1)
    assert speed.since_last(1) == {"tokens_per_second": 0.0}
    timeline.seconds |= {"step": 8.0, "input": 1.0, "host": 1.0, "validate": 90.0}
    row = speed.since_last(5)
    flops = sum(cost.flops for cost in step_costs(config).values())
    moved = sum(cost.bytes for cost in step_costs(config).values())
    assert row == {
        "tokens_per_second": 4 * 100 / 10,
        "step_seconds": 2.0,
        "flops_per_second": flops / 2,
        "bytes_per_second": moved / 2,
    }
    timeline.seconds |= {"step": 9.0}
    assert speed.since_last(6)["tokens_per_second"] == 100.0


def test_memory_is_the_fullest_devices_where_devices_tell(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    stats = [{"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 7}]
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(found) for found in stats])
    assert device_memory() == {"device_peak_bytes": 7}
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(None), Device({})])
    assert device_memory() == {}


def test_the_end_of_a_run_says_where_its_time_went():
    lines = time_lines(dict.fromkeys(KINDS, 0.0) | {"step": 90.0, "compile": 1010.0})
    assert [" ".join(line.split()) for line in lines] == [
        "where 1,100.0 s went:",
        "in steps 90.0 s 8.2%",
        "compiling, with the first step 1,010.0 s 91.8%",
    ]
