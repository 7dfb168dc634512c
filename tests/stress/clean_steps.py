"""No step of a healthy run is taken for a spike: with spikes skipped, none is.

    python -m tests.stress.clean_steps 1000 FOLDER [SEED ...]

The number is that of steps, on the shipped mitochondrial genome. One line for each seed, with how
far the most extraordinary step lay above the 128 before it, counted again from the metrics.
"""

import json
import pathlib
import sys

import numpy as np

from caduceus_jax.configs import resolve_data
from caduceus_jax.train.config import SIGMA
from caduceus_jax.train.guards import ENOUGH, WINDOW
from tests.stress.runs import Run


def deviations(values: np.ndarray) -> np.ndarray:
    """Of each value from those before it, in their standard deviations."""
    found = []
    for i in range(ENOUGH, len(values)):
        past = values[max(i - WINDOW, 0) : i]
        found.append((values[i] - past.mean()) / past.std())
    return np.array(found)


def main(steps: int, folder: pathlib.Path, seeds: list[int]) -> None:
    """One run for each seed."""
    for seed in seeds:
        run = Run(
            folder,
            f"seed_{seed}",
            steps=steps,
            seed=seed,
            model={"d_model": 32, "n_layer": 2, "rcps": True},
            data={"fasta": str(resolve_data("configs/data/yeast_mitochondrion.fa").absolute())},
            max_length=128,
            log_every=1,
            skip_spikes=True,
        ).finish()
        rows = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, steps + 1))
        assert rows[-1]["skipped_in_all"] == 0, "a clean step was skipped"
        losses, norms = (np.array([row[key] for row in rows]) for key in ("loss", "grad_norm"))
        largest = [deviations(values).max() for values in (losses, np.log(norms), norms)]
        assert max(largest[:2]) < SIGMA
        print(
            f"seed {seed}: {steps} steps, none skipped; standard deviations above those before: "
            f"loss {largest[0]:.1f}, logarithm of the gradient norm {largest[1]:.1f} (the norm "
            f"itself {largest[2]:.1f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]), [int(n) for n in sys.argv[3:]] or [0])
