import jax
import jax.numpy as jnp

from caduceus_jax.bench import measure


def test_short_calls_are_timed_several_at_a_time():
    calls, waited = [], []
    results = {"large": jnp.zeros(8), "small": jnp.zeros(2)}

    def call():
        calls.append(1)
        return results

    found = measure.timed_within(call, waited.append, 0.0)
    in_flight = found["calls_in_flight"]
    assert 10 < in_flight <= 64 and found["repeats"] == 2
    assert len(calls) == 1 + 1 + 2 * in_flight
    # Only the small result of each call is held.
    assert [leaf.shape for leaf in waited[-1]] == [(2,)] * in_flight


def test_errors_are_one_line():
    assert measure.one_line(RuntimeError("RESOURCE_EXHAUSTED: no\nmore | text")) == (
        "RuntimeError: RESOURCE_EXHAUSTED: no"
    )
    assert measure.one_line(MemoryError()) == "MemoryError"


def test_rates_are_what_this_machine_can_do():
    rates = measure.rates(("float32",))
    assert set(rates) == {"bytes", "exponentials", "float32"}
    # Any machine since 2000, and none before 2050.
    assert all(1e7 < rate < 1e16 for rate in rates.values())


def test_a_call_is_timed_apart_from_its_compilation():
    found = measure.timed(lambda x: x + 1, (jnp.zeros(4),), repeats=3)
    assert 0 < found["min_ms"] <= found["median_ms"] <= found["max_ms"] < found["compile_ms"]
    assert found["temporary_bytes"] >= 0


def test_programs_are_compiled_for_abstract_arguments():
    compiled, cost = measure.compile_for(jnp.sin, (jax.ShapeDtypeStruct((3,), jnp.float32),))
    assert compiled(jnp.zeros(3)).shape == (3,) and cost["compile_ms"] > 0


def test_the_machine_is_described(monkeypatch):
    monkeypatch.setattr(measure.sys, "argv", ["caduceus-jax", "bench", "scan", "--out", "a b"])
    found = measure.machine()
    assert found["command"] == "caduceus-jax bench scan --out 'a b'"
    assert (found["jax"], found["platform"]) == (jax.__version__, "cpu")
