import numpy as np

from caduceus_jax.train.evaluation.linear import baselines
from caduceus_jax.train.finetuning.examples import Examples, Task


def test_words_are_seen_by_counts_and_places_by_the_bases():
    """Class 1 has a word anywhere; or the base in the middle."""
    rng = np.random.default_rng(0)

    def drawn(count, change):
        labels = rng.integers(2, size=count).astype(np.int32)
        letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), (count, 30))
        for row, label in zip(letters, labels, strict=True):
            change(row, label)
        return Examples([""] * count, [row.tobytes() for row in letters], labels)

    def word(row, label):
        if label:
            at = rng.integers(20)
            row[at : at + 8] = np.frombuffer(b"ACGTACGT", np.uint8)

    def place(row, label):
        row[15] = ord("AC"[label])

    counts, bases = "4-mer counts, linear", "bases of the middle 80, linear"
    for change, good, bad in ((word, counts, bases), (place, bases, counts)):
        train, test = drawn(400, change), drawn(200, change)
        task = Task("t", "classification", ("0", "1"), "accuracy", 30, train, None, test)
        found = baselines(task)
        assert found[good]["accuracy"] > 0.95 > 0.85 > found[bad]["accuracy"]


def test_values_are_regressed_and_lengths_may_differ():
    rng = np.random.default_rng(1)
    bases = [b"A" * n + b"C" * (20 - n) + b"G" * (n % 2) for n in rng.integers(5, 15, 80)]
    labels = np.array([[sequence.count(b"A")] for sequence in bases], np.float32)
    examples = Examples([""] * 80, bases, labels)
    found = baselines(Task("t", "regression", ("a",), "r2", 21, examples, examples, examples))
    assert list(found) == ["4-mer counts, linear"]
    assert found["4-mer counts, linear"]["r2"] > 0.99
