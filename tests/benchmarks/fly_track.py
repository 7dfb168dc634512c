"""A bigWig track small enough to learn on two cores: fly RNA-seq coverage, from the shared data.

    python tests/benchmarks/fly_track.py ../shared/data OUT
    cd OUT && caduceus-jax finetune --data.task tracks --data.tracks.bigwig fly.bw \\
        --data.tracks.genome dm3.fa --data.tracks.regions fly.bed --architecture.d_model 32 \\
        --architecture.n_layer 2 --optimizer.lr 3e-3 --epochs 5 --batch_size 8 --seeds [1] --out run

The first writes OUT/fly.bw, OUT/fly.bed and OUT/dm3.fa, and prints what the mean of the training
bins and linear models of the bases reach on the test windows of the second.
"""

import argparse
import gzip
import pathlib
import shutil

import numpy as np

from caduceus_jax.genomics.files.bigwig import write_bigwig
from caduceus_jax.train.evaluation.linear import baselines
from caduceus_jax.train.finetuning.config import LabelledConfig, TracksConfig
from caduceus_jax.train.finetuning.metrics import score
from caduceus_jax.train.tasks import find_task

CONTIG, LENGTH = "chr2R", 21_146_708
START, END = 7_000_000, 8_000_000
FASTA = "genome_fly_dm3_chr2R/dm3_chr2R.fa.gz"
COVERAGE = "tracks_fly_chr2R/dm3_chr2R_7000000_8000000_rnaseq.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True)
    with np.load(arguments.data / COVERAGE) as arrays:
        coverage = arrays["coverage"].astype(float)
    write_bigwig(out / "fly.bw", [(CONTIG, LENGTH)], [(CONTIG, START, coverage)])
    (out / "fly.bed").write_text(f"{CONTIG}\t{START}\t{END}\n")
    with gzip.open(arguments.data / FASTA) as packed, open(out / "dm3.fa", "wb") as fasta:
        shutil.copyfileobj(packed, fasta)
    settings = TracksConfig(
        bigwig=str(out / "fly.bw"), genome=str(out / "dm3.fa"), regions=str(out / "fly.bed")
    )
    task = find_task(LabelledConfig(task="tracks", tracks=settings))
    truth = task.test.labels.reshape(-1, 1)
    mean = np.full_like(truth, task.train.labels.mean())
    found = {"mean of the training bins": score(mean, truth, "regression")} | baselines(task)
    for name, scores in found.items():
        print(f"{name}: Pearson {scores['pearson']:.3f}, MSE {scores['mse']:.3f}")


if __name__ == "__main__":
    main()
