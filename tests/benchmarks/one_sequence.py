"""Times one long sequence on one core and on all cores of a CPU.

python tests/benchmarks/one_sequence.py --length 131072 --d-model 256 --n-layer 16

It runs the scan of 1 x 1,024 x 1,024 x 16 with its gradients, and Caduceus-PS forward. For each it
prints the seconds by the clock and the seconds of processor time of every busy thread: on a machine
that is busy with other work the clock says little, and whether threads share the work evenly says
more.
"""

import argparse
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.devices import sharing_sequences, use_cores
from caduceus_jax.kernels import selective_scan

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


def compare(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int
) -> None:
    """Compiles a function for one device and for all, and prints what each run takes."""
    alone = jax.jit(function).lower(*arguments).compile()
    with sharing_sequences():
        shared = jax.jit(function).lower(*arguments).compile()
    for cores, program in (("one core's scans", alone), ("all cores", shared)):
        jax.block_until_ready(program(*arguments))
        for _ in range(repeats):
            seconds, threads = busy_threads(lambda program=program: program(*arguments))
            threads = [round(x, 2) for x in threads]
            print(f"{name}, {cores}: {seconds:.2f} s, threads {threads}", flush=True)


def forward(model: cj.CaduceusForMaskedLM, ids: jax.Array) -> jax.Array:
    """Computes the logits."""
    return model(ids).logits


def gradients(*arrays: jax.Array) -> tuple[jax.Array, Any]:
    """Computes the gradients of ten scans, one after the other."""

    def total(*arrays: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(selective_scan(*arrays)))

    def step(u: jax.Array, _: None) -> tuple[jax.Array, Any]:
        found = jax.grad(total, argnums=tuple(range(len(arrays))))(u, *arrays[1:])
        return u + 1e-3 * found[0], found[1:]

    return jax.lax.scan(step, arrays[0], None, length=10)


def scan_arrays(length: int, channels: int, states: int) -> tuple[jax.Array, ...]:
    """Draws u, delta, A, B, C, D, z and delta_bias of one sequence."""
    keys = iter(jax.random.split(jax.random.key(0), 7))
    draw = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    tokens, maps = (1, length, channels), (1, length, states)
    decay = -jnp.tile(jnp.arange(1.0, states + 1), (channels, 1))
    u, delta, b, c = draw(*tokens), draw(*tokens) - 3, draw(*maps), draw(*maps)
    return u, delta, decay, b, c, draw(channels), draw(*tokens), draw(channels)


def main() -> None:
    """Times both."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("length", 16_384), ("d-model", 256), ("n-layer", 2), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    use_cores()
    compare("scan and gradients x 10", gradients, scan_arrays(1024, 1024, 16), given.repeats)
    config = cj.CaduceusConfig(d_model=given.d_model, n_layer=given.n_layer, rcps=True)
    model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(0), (1, given.length), 7, 11)
    compare("model forward", forward, (model, ids), given.repeats)


if __name__ == "__main__":
    main()
