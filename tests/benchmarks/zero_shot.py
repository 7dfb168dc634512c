"""How well scores tell labelled variants apart, without training on labels, beside trivial scores.

    pip install scikit-learn scipy
    caduceus-jax score-variants MODEL labelled.tsv genome.fa --out scored.parquet
    python tests/benchmarks/zero_shot.py scored.parquet genome.fa

`labelled.tsv` has the columns chrom, pos (from 1), ref, alt and label (1 or 0), which
`score-variants` keeps; with a column `effect`, its rank correlation with the scores is given too.
Printed for each score: the area under the ROC curve of label 1, and with more than one contig the
mean over contigs that have both labels. Trivial scores: the log-likelihood ratio of an order-3
Markov model of the genome, counted on both strands; whether the change is a transition; the share
of G and C within 50 bases.
"""

import argparse
import math

import numpy as np
import polars
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from caduceus_jax.genomics.files.fasta import iterate_fasta

ORDER, AROUND = 3, 50
COMPLEMENT = str.maketrans("ACGT", "TGCA")
TRANSITIONS = {"AG", "GA", "CT", "TC"}


def markov(genome):
    """log p(base | the three before it), counted on both strands."""
    counts = {}
    for sequence in genome.values():
        for strand in (sequence, sequence.translate(COMPLEMENT)[::-1]):
            for i in range(ORDER, len(strand)):
                word = strand[i - ORDER : i + 1]
                counts[word] = counts.get(word, 0) + 1

    def log_probability(word):
        of_all = sum(counts.get(word[:-1] + base, 0) + 1 for base in "ACGT")
        return math.log((counts.get(word, 0) + 1) / of_all)

    return log_probability


def trivial(rows, genome):
    """The trivial scores of every row."""
    log_probability = markov(genome)
    found = {"order-3 Markov, log p(alt) - log p(ref)": [], "transition": [], "GC": []}
    for row in rows:
        sequence, i = genome[row["chrom"]], row["pos"] - 1
        around = sequence[max(0, i - ORDER) : i + ORDER + 1]
        at = min(i, ORDER)

        def total(base, around=around, at=at):
            changed = around[:at] + base + around[at + 1 :]
            words = (changed[k : k + ORDER + 1] for k in range(len(changed) - ORDER))
            return sum(map(log_probability, words))

        ratio, kind, content = found.values()
        ratio.append(total(row["alt"]) - total(row["ref"]))
        kind.append(float(row["ref"] + row["alt"] in TRANSITIONS))
        window = sequence[max(0, i - AROUND) : i + AROUND + 1]
        content.append(sum(base in "GC" for base in window) / len(window))
    return {name: np.array(values) for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scored")
    parser.add_argument("genome")
    arguments = parser.parse_args()
    frame = polars.read_parquet(arguments.scored)
    computed = [name for name in ("llr", "pllr", "l2", "cosine") if name in frame.columns]
    # Columns that score-variants only passes on are text where they came from a text file.
    numbers = {"label": polars.Int64, "effect": polars.Float64}
    frame = frame.filter(polars.col("status") == "ok").cast(
        {name: dtype for name, dtype in numbers.items() if name in frame.columns}
    )
    genome = {
        name: bytes(bases).decode().upper() for name, bases in iterate_fasta(arguments.genome)
    }
    scores = {f"model, {name}": frame[name].to_numpy() for name in computed}
    scores |= {f"model, absolute {name}": np.abs(frame[name].to_numpy()) for name in computed}
    scores |= trivial(frame.iter_rows(named=True), genome)
    label, contig = frame["label"].to_numpy(), frame["chrom"].to_numpy()
    both = [c for c in np.unique(contig) if len(np.unique(label[contig == c])) == 2]
    print(f"{len(frame):,} variants, {label.sum():,} of label 1, {len(both)} contigs\n")
    effect = frame["effect"].to_numpy() if "effect" in frame.columns else None
    heads = ["score", "AUROC"] + ["mean over contigs"] * (len(both) > 1)
    heads += ["Spearman with effect"] * (effect is not None)
    print("| " + " | ".join(heads) + " |")
    print("| " + " | ".join("---" for _ in heads) + " |")
    for name, score in scores.items():
        cells = [roc_auc_score(label, score)]
        if len(both) > 1:
            each = [roc_auc_score(label[contig == c], score[contig == c]) for c in both]
            cells.append(np.mean(each))
        if effect is not None:
            cells.append(spearmanr(score, effect).statistic)
        print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
