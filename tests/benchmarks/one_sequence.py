"""Times one long sequence on one core and on all cores of a CPU.

python tests/benchmarks/one_sequence.py --length 131072 --d-model 256 --n-layer 16

It prints, for each, the seconds by the clock and the seconds of processor time of every busy
thread: on a machine that is busy with other work the clock says little, and whether threads share
the work evenly says more.
"""

import argparse
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.devices import sharing_sequences, use_cores

_TICKS = os.sysconf("SC_CLK_TCK")


def busy_threads(call: Callable[[], Any]) -> tuple[float, list[float]]:
    """Returns the seconds that a call takes, and the processor time of each thread in it."""
    before, start = _processor_time(), time.perf_counter()
    jax.block_until_ready(call())
    seconds, after = time.perf_counter() - start, _processor_time()
    spent = [after[thread] - before.get(thread, 0.0) for thread in after]
    return seconds, sorted((x for x in spent if x > 0.01 * seconds), reverse=True)


def _processor_time() -> dict[str, float]:
    """Returns seconds of user and system time by thread (Linux)."""
    found = {}
    for thread in pathlib.Path("/proc/self/task").iterdir():
        fields = (thread / "stat").read_text().rsplit(")", 1)[1].split()
        found[thread.name] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def main() -> None:
    """Times the forward pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("length", 16_384), ("d-model", 256), ("n-layer", 2), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    use_cores()
    config = cj.CaduceusConfig(d_model=given.d_model, n_layer=given.n_layer, rcps=True)
    model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(0), (1, given.length), 7, 11)

    def forward(model: cj.CaduceusForMaskedLM, ids: jax.Array) -> jax.Array:
        return model(ids).logits

    alone = jax.jit(forward).lower(model, ids).compile()
    with sharing_sequences():
        shared = jax.jit(forward).lower(model, ids).compile()
    for name, program in (("one core's scans", alone), ("all cores", shared)):
        jax.block_until_ready(program(model, ids))
        for _ in range(given.repeats):
            seconds, threads = busy_threads(lambda program=program: program(model, ids))
            print(f"{name}: {seconds:.2f} s, threads {[round(x, 2) for x in threads]}", flush=True)


if __name__ == "__main__":
    main()
