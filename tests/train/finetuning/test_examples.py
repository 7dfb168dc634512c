import numpy as np
import pytest

from caduceus_jax import Tokenizer, UserError
from caduceus_jax.train.finetuning.examples import Examples, batches, encode, split

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
