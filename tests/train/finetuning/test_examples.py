import numpy as np
import pytest

from caduceus_jax import Tokenizer, UserError
from caduceus_jax.train.finetuning.examples import Examples, batches, buckets, encode, split

TOKENIZER = Tokenizer()
PAD, A, C, G, T = 4, 7, 8, 9, 10


def some(*sequences):
    labels = np.arange(len(sequences), dtype=np.int32)
    return Examples([f"s{i}" for i in labels], [s.encode() for s in sequences], labels)


def test_sequences_are_padded_on_either_side_and_lose_their_end():
    examples = some("ACG", "TTTTT")
    left = encode(examples, TOKENIZER, 4, pad="left")
    right = encode(examples, TOKENIZER, 4, pad="right")
    np.testing.assert_array_equal(left["input_ids"], [[PAD, A, C, G], [T, T, T, T]])
    np.testing.assert_array_equal(right["input_ids"], [[A, C, G, PAD], [T, T, T, T]])
    np.testing.assert_array_equal(left["padding_mask"], [[False, True, True, True], [True] * 4])
    np.testing.assert_array_equal(right["padding_mask"], [[True, True, True, False], [True] * 4])


def test_the_other_strand_of_what_is_read():
    batch = encode(some("AACG", "AACG"), TOKENIZER, 3, pad="right", reverse=np.array([True, False]))
    np.testing.assert_array_equal(batch["input_ids"], [[G, T, T], [A, A, C]])


def test_no_example_is_lost_or_counted_twice():
    examples = some(*["ACGT"] * 7)
    found = list(batches(examples, TOKENIZER, 4, batch_size=3, pad="right"))
    assert [len(batch["labels"]) for batch in found] == [3, 3, 3]
    kept = [batch["labels"][batch["weights"] == 1] for batch in found]
    np.testing.assert_array_equal(np.concatenate(kept), np.arange(7))
    rng = np.random.default_rng(0)
    shuffled = list(batches(examples, TOKENIZER, 4, batch_size=3, pad="right", rng=rng))
    order = np.concatenate([batch["labels"][batch["weights"] == 1] for batch in shuffled])
    assert sorted(order) == list(range(7)) and list(order) != list(range(7))


def test_augmentation_takes_either_strand_of_about_half():
    examples = some(*["AAAA"] * 200)
    (batch,) = batches(
        examples,
        TOKENIZER,
        4,
        batch_size=200,
        pad="right",
        rng=np.random.default_rng(1),
        augment=True,
    )
    turned = (batch["input_ids"] == T).all(axis=1)
    assert 70 < turned.sum() < 130
    assert ((batch["input_ids"] == A).all(axis=1) == ~turned).all()


def test_the_validation_part_depends_on_the_seed_and_nothing_is_in_both():
    examples = some(*["ACGT"] * 20)
    train, validation = split(examples, 0.1, seed=1)
    assert len(validation.sequences) == 2 and len(train.sequences) == 18
    assert sorted([*train.labels, *validation.labels]) == list(range(20))
    again, other = split(examples, 0.1, seed=1)[1], split(examples, 0.1, seed=2)[1]
    assert list(again.labels) == list(validation.labels) != list(other.labels)
    with pytest.raises(UserError, match="leave none to validate on"):
        split(some("A", "C"), 0.1, seed=1)


def of_lengths(*lengths):
    return some(*("A" * length for length in lengths))


def test_rows_are_as_long_as_their_bucket():
    examples = of_lengths(*[20] * 8, *[70] * 8, *[90] * 8, 2000, 5000)
    found = buckets(examples, 3000, 4, single=False)
    assert [(bucket.length, len(bucket.rows)) for bucket in found] == [
        (32, 8),
        (96, 16),
        (3000, 2),
    ]
    assert sorted(np.concatenate([bucket.rows for bucket in found])) == list(range(26))
    (only,) = buckets(examples, 3000, 4, single=True)
    assert only.length == 3000
    # All of one length need no more than that.
    assert [bucket.length for bucket in buckets(of_lengths(60, 60), 60, 4, single=False)] == [60]


def test_batches_of_several_lengths_have_every_row_once():
    examples = of_lengths(*[20] * 9, *[700] * 3)
    for rng in (None, np.random.default_rng(0)):
        found = list(batches(examples, TOKENIZER, 700, batch_size=4, pad="right", rng=rng, least=2))
        shapes = sorted(batch["input_ids"].shape for batch in found)
        assert shapes == [(2, 32), (4, 32), (4, 32), (4, 700)]
        rows = [batch["rows"][batch["weights"] == 1] for batch in found]
        assert sorted(np.concatenate(rows)) == list(range(12))
        for batch in found:
            lengths = batch["padding_mask"].sum(axis=1)
            np.testing.assert_array_equal(lengths, np.where(batch["rows"] < 9, 20, 700))
    order = [list(b["rows"]) for b in found]
    rng = np.random.default_rng(0)
    rest = batches(examples, TOKENIZER, 700, batch_size=4, pad="right", rng=rng, least=2, skip=2)
    assert [list(b["rows"]) for b in rest] == order[2:]


def test_every_class_has_its_share_of_the_validation_part():
    labels = np.repeat([0, 1, 2], [900, 97, 3]).astype(np.int32)
    examples = some(*["ACGT"] * 1000)._replace(labels=labels)
    for seed in range(5):
        train, validation = split(examples, 0.1, seed)
        assert np.bincount(validation.labels).tolist() == [90, 9, 1]
        assert len(train.sequences) == 900


def test_every_label_of_several_has_examples_in_the_validation_part():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 4)) < [0.5, 0.2, 0.02, 0.9]).astype(np.float32)
    labels[:2, 2] = 1
    examples = some(*["ACGT"] * 200)._replace(labels=labels)
    for seed in range(5):
        _, validation = split(examples, 0.1, seed)
        assert (validation.labels.sum(axis=0) > 0).all()
        assert 20 <= len(validation.labels) <= 21


def test_values_are_split_by_chance():
    labels = np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    examples = some(*["ACGT"] * 20)._replace(labels=labels)
    _, validation = split(examples, 0.25, 3)
    assert len(validation.labels) == 5
