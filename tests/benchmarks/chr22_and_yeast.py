"""A pretraining that two cores manage: chromosome 22 of hg19 and yeast, from the shared data.

    python tests/benchmarks/chr22_and_yeast.py ../shared/data OUT
    cd OUT && caduceus-jax pretrain --config recipe.yaml

The first writes OUT/chr22 and OUT/yeast (tokens), OUT/splits.bed and OUT/recipe.yaml. Of chr22
every fifth megabase is for tests and every tenth for validation, of yeast chromosomes IV and XIII
for tests and II for validation.
"""

import argparse
import pathlib

from caduceus_jax.train.data.prepare import write_store

GENOMES = {
    "chr22": "genome_human_hg19_chr22/hg19_chr22_masked.fa.gz",
    "yeast": "genome_yeast_saccer3/saccer3.fa.gz",
}
MEGABASE = 1_000_000
YEAST = {"chrII": "valid", "chrIV": "test", "chrXIII": "test"}
RECIPE = """\
out: run
model: {d_model: 128, n_layer: 4, rcps: true}
data:
  fasta: [chr22, yeast]
  intervals: splits.bed
  interval_length: null
  validation_windows: 256
optimizer: {lr: 4.0e-3}
steps: 1000
batch_size: 8
max_length: 1024
log_every: 10
eval_every: 200
checkpoint_every: 200
"""


def splits(genome: str, contig: str, length: int) -> list[str]:
    """The BED lines of one contig."""
    if genome == "yeast":
        return [f"{contig}\t0\t{length}\t{YEAST.get(contig, 'train')}"]
    lines = []
    for index, start in enumerate(range(0, length, MEGABASE)):
        part = "test" if index % 5 == 0 else "valid" if index % 10 == 3 else "train"
        lines.append(f"{contig}\t{start}\t{min(start + MEGABASE, length)}\t{part}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    lines = []
    for genome, fasta in GENOMES.items():
        store = write_store(arguments.data / fasta, arguments.out / genome)
        for contig in store.contigs.values():
            lines += splits(genome, contig.name, contig.length)
    (arguments.out / "splits.bed").write_text("\n".join(lines) + "\n")
    (arguments.out / "recipe.yaml").write_text(RECIPE)


if __name__ == "__main__":
    main()
