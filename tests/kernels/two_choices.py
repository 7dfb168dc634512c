"""One of two processes, of which the second lacks the first choice: `two_choices.py PORT INDEX`."""

import sys

import jax

from caduceus_jax.kernels import Chunked, PallasTriton, default, self_check
from caduceus_jax.kernels.options import resolve

BROKEN, GOOD = PallasTriton(interpret=False), Chunked(40)


def check(options):
    if options == BROKEN and jax.process_index() == 1:
        raise ValueError("no driver")


if __name__ == "__main__":
    port, index = map(int, sys.argv[1:])
    jax.distributed.initialize(f"localhost:{port}", 2, index)
    self_check.check = check
    default.CANDIDATES["cpu"] = (BROKEN, GOOD)
    print(default.name())
    try:
        print(type(resolve(None)).__name__)
    except RuntimeError as error:
        print(error)
    print(type(resolve("chunked")).__name__)
    # As processes do that have compared their choices.
    default.agree()
    print(type(resolve(None)).__name__)
