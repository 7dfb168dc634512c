import numpy as np

from caduceus_jax import Tokenizer
from caduceus_jax.train.data.masking import CounterRng, letter_table, mask_tokens

TOKENIZER = Tokenizer()
PAD, MASK, N, A, C, G, T = 4, 3, 11, 7, 8, 9, 10


def test_letters_become_tokens_and_n_is_nothing_to_predict():
    table, other = letter_table(TOKENIZER), letter_table(TOKENIZER, complement=True)
    assert list(b"ACGTNacgtn".translate(table)) == [A, C, G, T, PAD] * 2
    assert list(b"ACGTNacgtn".translate(other)) == [T, G, C, A, PAD] * 2
    # A vocabulary without N, as PlantCaduceus has.
    small = Tokenizer({"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6})
    assert list(b"ACGTN".translate(letter_table(small))) == [3, 4, 5, 6, 0]


def test_masking_by_hand():
    """Chosen below 0.5: hidden below 0.4, replaced below 0.45, left below 0.5."""
    ids = np.array([[A, C, G, T], [PAD, A, PAD, C]], np.uint8)
    shares = np.array([[0.1, 0.4201, 0.47, 0.6], [0.1, 0.4499, 0.9, 0.4001]])
    draws = (shares * 2**32).astype(np.uint32)
    read, labels = mask_tokens(ids, draws, probability=0.5, tokenizer=TOKENIZER)
    # Of the replaced, the place between 0.4 and 0.45 picks one of the 12 tokens.
    tokens = [int((share - 0.4) / 0.05 * 12) for share in (0.4201, 0.4499, 0.4001)]
    assert tokens == [4, 11, 0]
    np.testing.assert_array_equal(read, [[MASK, 4, G, T], [MASK, 11, PAD, 0]])
    np.testing.assert_array_equal(labels, [[A, C, G, PAD], [PAD, A, PAD, C]])
    assert read.dtype == labels.dtype == np.uint8


def test_the_borders_between_the_shares():
    """The least and the greatest draw of each kind, with probability 1/2."""
    hidden, replaced, chosen = (round(share * 2**32) for share in (0.4, 0.45, 0.5))
    draws = [0, hidden - 1, hidden, replaced - 1, replaced, chosen - 1, chosen, 2**32 - 1]
    ids = np.full(8, G, np.uint8)
    read, labels = mask_tokens(
        ids, np.array(draws, np.uint32), probability=0.5, tokenizer=TOKENIZER
    )
    assert read.tolist() == [MASK, MASK, 0, 11, G, G, G, G]
    assert labels.tolist() == [G] * 6 + [PAD] * 2


def test_masking_shares():
    rng = np.random.default_rng(0)
    ids = rng.integers(7, 11, 400_000).astype(np.uint8)
    coin, draws = CounterRng(0, 0).of(0, ids.size)
    read, labels = mask_tokens(ids, draws, probability=0.15, tokenizer=TOKENIZER)
    chosen = labels != PAD
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(read[~chosen], ids[~chosen])
    # A random token is [MASK] or what was there, once in 12 each.
    shares = [chosen.mean(), *((read == what)[chosen].mean() for what in (MASK, ids))]
    expected = [0.15, 0.8 + 0.1 / 12, 0.1 + 0.1 / 12]
    sizes = np.array([ids.size, chosen.sum(), chosen.sum()])
    spread = np.sqrt(np.multiply(expected, np.subtract(1, expected)) / sizes)
    assert (np.abs(np.subtract(shares, expected)) < 4 * spread).all()
    # Every one of the 12 tokens comes as often as any other, and none else comes.
    replaced = read[chosen & (read != MASK) & (read != ids)]
    counts = np.bincount(replaced, minlength=13)
    assert counts[MASK] == counts[12] == 0
    others = counts[[0, 1, 2, 4, 5, 6, 11]]
    assert others.sum() + counts[7:11].sum() == replaced.size
    # A base is rarer: where it was already, nothing was replaced. 5000 is 0.1 * 0.15 * ids / 12.
    assert (np.abs(others - 500) < 4 * np.sqrt(500)).all()
    assert (np.abs(counts[7:11] - 375) < 4 * np.sqrt(375)).all()


def test_draws_are_found_by_what_they_are_for():
    draws = CounterRng(3, 0)
    coin, numbers = draws.of(7, 101)
    draws.of(8, 5)
    again = draws.of(7, 101)
    assert again[0] == coin
    np.testing.assert_array_equal(again[1], numbers)
    np.testing.assert_array_equal(CounterRng(3, 0).of(7, 101)[1], numbers)
    # More tokens continue the same stream; everything else begins another.
    np.testing.assert_array_equal(draws.of(7, 200)[1][:101], numbers)
    for other in (
        draws.of(8, 101),
        draws.of(7, 101, mask=1),
        CounterRng(4, 0).of(7, 101),
        CounterRng(3, 1).of(7, 101),
    ):
        assert (other[1] != numbers).sum() > 95
    coins = [draws.of(i, 1)[0] for i in range(1000)]
    assert 437 < sum(coins) < 563  # 4 standard deviations


def test_draws_are_the_published_ones():
    """Philox4x64-10 as the authors' known answers have it: no version may change what is drawn.

    Source: kat_vectors of Random123, counter and key 0, whose first counter is 0; NumPy counts up
    before it draws, so that the counter before is 2^256 - 1.
    """
    philox = np.random.Philox(key=0, counter=2**256 - 1)
    assert philox.random_raw(1) == 0x16554D9ECA36314C
    expected = np.random.Philox(key=np.array([5, 1], np.uint64), counter=9 << 128).random_raw(3)
    coin, numbers = CounterRng(5, 1).of(9, 4)
    np.testing.assert_array_equal(numbers, expected[1:].view(np.uint32))
    assert coin == bool(expected[0] >> np.uint64(63))
