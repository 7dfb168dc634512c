"""Compiles a whole training step for a device that is not there, and writes what XLA made of it.

    python tests/benchmarks/accounting/step.py h200 long triton step.hlo

Prints one line: windows, seconds of the compiler, and memory in GiB.
"""

import argparse
import dataclasses
import pathlib
import time

import jax
from jax.sharding import NamedSharding

from caduceus_jax.kernels.options import BY_NAME, for_platform
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.bench import step as bench
from caduceus_jax.train.planning.topology import SMALLEST, find_topology
from caduceus_jax.train.sharding import BATCH, abstract, make_mesh
from caduceus_jax.train.step import make_program

STEPS = {"long": bench._LONG, "short": bench._SHORT}


def main() -> None:
    """Compiles the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", help="as `caduceus-jax plan` calls it, without a number")
    parser.add_argument("step", choices=STEPS, help="PS 256 x 16 at 131k, or 128 x 4 at 1k tokens")
    parser.add_argument("implementation", choices=BY_NAME, help="of the scan")
    parser.add_argument("out", type=pathlib.Path, help="file for the compiled program")
    parser.add_argument("--windows", type=int, help="per step; by default 8 long or 1,024 short")
    parser.add_argument("--remat", default="blocks", help="what is computed again")
    given = parser.parse_args()
    topology = find_topology(f"{given.device}:{SMALLEST.get(given.device, '1')}")
    mesh = make_mesh(topology.devices[:1])
    config = dataclasses.replace(STEPS[given.step], remat=given.remat)
    config = dataclasses.replace(config, batch_size=given.windows or config.batch_size)
    options = for_platform(given.implementation, topology.platform)
    with topology.compiling(mesh):
        program = make_program(config, mesh, Tokenizer(), options)
        state = abstract(program.init, mesh)
        place = NamedSharding(mesh, BATCH)
        batch = {
            name: jax.ShapeDtypeStruct(rows.shape, rows.dtype, sharding=place)
            for name, rows in bench._batch(config).items()
        }
        begun = time.monotonic()
        compiled = program.train_step.lower(state, batch).compile()
    given.out.write_text(compiled.as_text())
    memory = compiled.memory_analysis()
    print(
        f"{given.device} {given.step} {given.implementation}, {config.batch_size} windows: "
        f"compiled in {time.monotonic() - begun:.0f} s; "
        f"temporary {memory.temp_size_in_bytes / 2**30:.2f} GiB, "
        f"arguments {memory.argument_size_in_bytes / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    main()
