"""What a model learns on two cores in an hour, from the shared data: everything by one command.

    python tests/benchmarks/learning.py ../shared/data OUT

writes OUT/chr22, OUT/yeast and OUT/human_windows (tokens), OUT/splits.bed and OUT/recipe.yaml;
pretrains on them into OUT/run; draws the small tasks (small_tasks.py) into OUT/tasks; and probes
the model and its untrained twin on these into OUT/probes. What is there already stays: the same
command continues.

Of chr22 every fifth megabase is for tests and every tenth for validation, of yeast chromosomes IV
and XIII for tests and II for validation; the human windows are of other chromosomes, and all to
train on.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys

from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.train.data.prepare import write_store

GENOMES = {
    "chr22": "genome_human_hg19_chr22/hg19_chr22_masked.fa.gz",
    "yeast": "genome_yeast_saccer3/saccer3.fa.gz",
    "human_windows": "genome_human_hg19_windows/hg19_windows.fa.gz",
}
MEGABASE = 1_000_000
YEAST = {"chrII": "valid", "chrIV": "test", "chrXIII": "test"}
ARCHITECTURE = {"d_model": 128, "n_layer": 4}
RECIPE = """\
out: run
model: {d_model: %(d_model)d, n_layer: %(n_layer)d, rcps: true}
data:
  fasta: [chr22, yeast, human_windows]
  intervals: splits.bed
  interval_length: null
  validation_windows: 256
optimizer: {name: muon, lr: 8.0e-3}
steps: 3400
batch_size: 4
max_length: 1024
log_every: 20
eval_every: 340
checkpoint_every: 340
"""


def splits(genome: str, contig: str, length: int) -> list[str]:
    """The BED lines of one contig."""
    if genome != "chr22":
        return [f"{contig}\t0\t{length}\t{YEAST.get(contig, 'train')}"]
    lines = []
    for index, start in enumerate(range(0, length, MEGABASE)):
        part = "test" if index % 5 == 0 else "valid" if index % 10 == 3 else "train"
        lines.append(f"{contig}\t{start}\t{min(start + MEGABASE, length)}\t{part}")
    return lines


def prepare(data: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the genomes, which parts of them are for what, and the recipe."""
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for genome, fasta in GENOMES.items():
        # It is there whole or not at all.
        store = (
            Store(out / genome)
            if (out / genome).exists()
            else write_store(data / fasta, out / genome)
        )
        for contig in store.contigs.values():
            lines += splits(genome, contig.name, contig.length)
    (out / "splits.bed").write_text("\n".join(lines) + "\n")
    (out / "recipe.yaml").write_text(RECIPE % ARCHITECTURE)


def run(out: pathlib.Path, *words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=out, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out
    if not (out / "recipe.yaml").exists():
        prepare(data, out)
    command = ("-P", "-m", "caduceus_jax")
    run(out, *command, "pretrain", "--config", "recipe.yaml")
    tasks = out / "tasks"
    if not tasks.exists():
        partial = out / "tasks.part"
        shutil.rmtree(partial, ignore_errors=True)
        script = pathlib.Path(__file__).resolve().with_name("small_tasks.py")
        run(out, str(script), str(data), partial.name)
        partial.rename(tasks)
    architecture = [f"--tuning.architecture.{name}={n}" for name, n in ARCHITECTURE.items()]
    run(
        out,
        *(*command, "evaluate", *architecture, "--tuning.method", "probe"),
        *("--tasks", f"[{','.join(f'tasks/{path.name}' for path in sorted(tasks.iterdir()))}]"),
        *("--models", "[pretrained=run,scratch]", "--tuning.seeds", "[1,2,3]"),
        *("--out", "probes"),
    )


if __name__ == "__main__":
    main()
