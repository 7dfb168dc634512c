"""Compiles whole training steps for TPU pods, with either scan, for the tables of docs/pods.md.

    pip install "jax[tpu]"
    python tests/benchmarks/tpu_steps.py

No TPU is needed: libtpu holds the whole compiler. Each step is compiled by `caduceus-jax plan` in a
process of its own, which takes minutes. Prints a Markdown table: memory of each chip, what the
chips send each other, compile time and memory of the host.
"""

import json
import subprocess
import sys

# Recipes on pods: one window per chip, and one window split over 8 and over 32 chips.
STEPS = (
    ("caduceus_ps_131k", "--topology", "v5e:16x16", "--batch_size", "256"),
    ("caduceus_ps_131k", "--topology", "v5p:8x8x4", "--batch_size", "256"),
    ("caduceus_ps_1m", "--topology", "v5e:2x4"),
    ("caduceus_ps_1m", "--topology", "v5e:4x8", "--sequence", "32"),
)
HEAD = ("step", "scan", "needed, GiB", "of", "peak", "compiling, s", "host, GiB", "sent, MiB")


def planned(step: tuple[str, ...], scan: str) -> tuple[str, ...]:
    """Returns the cells of a step compiled with a scan; of one that failed, its last line."""
    command = [sys.executable, "-m", "caduceus_jax", "plan", "--config", *step]
    done = subprocess.run(
        [*command, "--scan", scan, "--json", "true"], capture_output=True, text=True
    )
    if done.returncode:
        return (" ".join(step), scan, done.stderr.strip().splitlines()[-1])
    report = json.loads(done.stdout)
    memory, sent = report["memory"] or {"peak": 0}, {}
    for row in report["collectives"]:
        sent[row["kind"]] = sent.get(row["kind"], 0) + row["bytes"] / 2**20
    figures = (
        *((report["needed_bytes"] or 0) / 2**30, report["available_bytes"] / 2**30),
        *(memory["peak"] / 2**30, report["compile_seconds"], report["host_bytes"] / 2**30),
    )
    kinds = ", ".join(f"{kind} {size:.1f}" for kind, size in sent.items())
    return (" ".join(step), scan, *(f"{figure:.2f}" for figure in figures), kinds)


def main() -> None:
    """Prints the table."""
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for step in STEPS:
        for scan in ("chunked", "mosaic_tpu"):
            print(f"| {' | '.join(planned(step, scan))} |", flush=True)


if __name__ == "__main__":
    main()
