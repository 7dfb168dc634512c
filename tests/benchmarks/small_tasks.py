"""Thirteen labelled tasks, small enough to fine-tune on two cores, from the shared data folder.

    python tests/benchmarks/small_tasks.py ../shared/data OUT

writes OUT/TASK/{train,valid,test}.csv for `caduceus-jax evaluate --tasks [OUT/TASK,...]`. Of sets
with more rows, 1,000 to train, 300 to validate and 1,000 to test are drawn by chance (seed 0): what
comes of them is compared within one table, not with published numbers.
"""

import argparse
import pathlib

import polars

SOURCES = {
    "human_or_worm": "gb_mini/demo_human_or_worm",
    "promoters_nontata": "gb_official_test_resplit/human_nontata_promoters",
    "enhancers_cohn": "gb_official_test_resplit/human_enhancers_cohn",
    "splice_primate": "uci_splice",
    "yeast_H3": "emp_by_chrom/H3",
    "yeast_H3K36me3": "emp_by_chrom/H3K36me3",
    "yeast_H4": "emp_by_chrom/H4",
    "promoters_core": "gue/prom/prom_core_notata",
    "promoters_tata": "gue/prom/prom_300_tata",
    "tf_human_0": "gue/tf/0",
    "tf_human_2": "gue/tf/2",
    "tf_mouse_2": "gue/mouse/2",
    "tf_mouse_3": "gue/mouse/3",
}
ROWS = {"train": 1_000, "valid": 300, "test": 1_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()
    for task, source in SOURCES.items():
        (arguments.out / task).mkdir(parents=True)
        for part, most in ROWS.items():
            names = (part, "dev") if part == "valid" else (part,)
            paths = [arguments.data / source / f"{name}.csv.gz" for name in names]
            path = next((path for path in paths if path.exists()), None)
            if path is None:  # the training rows are divided by the fine-tuning itself
                continue
            table = polars.read_csv(path).select("sequence", "label")
            if len(table) > most and task != "splice_primate":
                table = table.sample(most, seed=0, shuffle=True)
            out = arguments.out / task / f"{part}.csv"
            table.write_csv(out)
            counts = dict(sorted(table["label"].value_counts().rows()))
            print(f"{out}: {len(table):,} rows, {counts}")


if __name__ == "__main__":
    main()
