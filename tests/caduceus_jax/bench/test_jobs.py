import importlib.util
import time

import jax
import jax.numpy as jnp
import pytest

from caduceus_jax.bench import jobs


def test_nothing_is_begun_when_the_time_is_up():
    begun = lambda *_: pytest.fail("begun")  # noqa: E731
    job = jobs.Job("cases", {"what": "scan"}, begun, begun)
    row = {"what": "scan", "error": "left out: the time was up"}
    assert list(jobs.run([job], deadline=0.0)) == [(job, row)]


def test_a_job_that_fails_harms_no_other():
    def fails():
        raise RuntimeError("no memory\nand pages more")

    lower = lambda: jax.jit(jnp.sin).lower(1.0)  # noqa: E731
    works = lambda compiled, cost: {"y": float(compiled(0.0))}  # noqa: E731
    work = [
        jobs.Job("cases", {"n": 1}, works, fails),
        jobs.Job("cases", {"n": 2}, fails),
        jobs.Job("cases", {"n": 3}, works, lower),
    ]
    rows = [row for _, row in jobs.run(work, time.monotonic() + 60)]
    message = "RuntimeError: no memory"
    assert rows == [{"n": 1, "error": message}, {"n": 2, "error": message}, {"n": 3, "y": 0.0}]


def test_an_implementation_is_there_with_its_packages(monkeypatch):
    assert jobs.is_there("chunked") and not jobs.is_there("unheard_of")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert jobs.is_there("chunked") and not jobs.is_there("triton")
