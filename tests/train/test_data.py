import grain
import numpy as np
import pytest

from caduceus_jax import Tokenizer, UserError
from caduceus_jax.train.config import DataConfig
from caduceus_jax.train.data import (
    Block,
    Windows,
    mask_tokens,
    read_splits,
    train_dataset,
    validation_batches,
)

TOKENIZER = Tokenizer()
PAD, MASK, N, A, C, G, T = 4, 3, 11, 7, 8, 9, 10


def letters(text):
    return np.frombuffer(text.encode(), np.uint8)


def windows(text, *, length=4, stride=None, block=None, **kwargs):
    block = block or Block("c", 0, len(text))
    stride = stride or length
    common = dict(length=length, stride=stride, tokenizer=TOKENIZER)
    return Windows({"c": letters(text)}, [block], **common, **kwargs)


def texts(found):
    return [TOKENIZER.decode(found[i][0]) for i in range(len(found))]


def test_windows_tile_and_n_completes_the_last():
    assert texts(windows("ACGTAACCGG")) == ["ACGT", "AACC", "GGNN"]
    assert texts(windows("ACGTAACC")) == ["ACGT", "AACC"]
    assert texts(windows("AC")) == ["ACNN"]


def test_windows_overlap_by_the_stride_and_stop_at_the_end():
    assert texts(windows("ACGTAACC", stride=2)) == ["ACGT", "GTAA", "AACC"]
    assert texts(windows("ACGTAAC", stride=2)) == ["ACGT", "GTAA", "AACN"]


def test_windows_stay_within_their_block():
    assert texts(windows("ACGTAACCGG", block=Block("c", 3, 9))) == ["TAAC", "CGNN"]


@pytest.mark.parametrize("unknown", ["N", "n"])
def test_windows_of_n_alone_are_left_out(unknown):
    text = "ACGT" + unknown * 8 + unknown * 3 + "A"
    assert texts(windows(text)) == ["ACGT", "NNNA"]
    assert len(windows(unknown * 9)) == 0


def test_soft_masked_bases_weigh_less():
    ids, weights = windows("AcgT", soft_mask_weight=0.1)[0]
    np.testing.assert_array_equal(ids, [A, C, G, T])
    np.testing.assert_allclose(weights, [1, 0.1, 0.1, 1], rtol=1e-6)
    np.testing.assert_array_equal(windows("AcgT")[0][1], 1)


def fasta(tmp_path, name, **records):
    path = tmp_path / name
    path.write_text("".join(f">{contig}\n{text}\n" for contig, text in records.items()))
    return str(path)


def test_splits_by_fraction_cut_every_contig_once(tmp_path):
    path = fasta(tmp_path, "g.fa", one="A" * 20, two="C" * 10)
    splits = read_splits(DataConfig(fasta=path, validation_fraction=0.2))
    assert splits.train == [Block("one", 0, 16), Block("two", 0, 8)]
    assert splits.validation == [Block("one", 16, 20), Block("two", 8, 10)]


def test_splits_by_contig(tmp_path):
    one = fasta(tmp_path, "g.fa", one="A" * 20, two="C" * 10)
    other = fasta(tmp_path, "h.fa", three="G" * 5)
    config = DataConfig(fasta=[one, other], validation_contigs="two", test_contigs="three")
    splits = read_splits(config)
    assert splits.train == [Block("one", 0, 20)]
    assert splits.validation == [Block("two", 0, 10)]
    assert bytes(splits.genome["three"]) == b"GGGGG"


def test_a_genome_that_cannot_be_used_is_refused(tmp_path):
    path = fasta(tmp_path, "g.fa", one="ACGT")
    again = fasta(tmp_path, "h.fa", one="ACGT")
    with pytest.raises(UserError, match="no genome to train on"):
        read_splits(DataConfig())
    with pytest.raises(UserError, match="h.fa has a contig one"):
        read_splits(DataConfig(fasta=[path, again]))
    with pytest.raises(UserError, match="no contig chrX to hold out; there are one"):
        read_splits(DataConfig(fasta=path, validation_contigs="chrX"))


class Chance:
    """Stands for a random generator whose draws the test writes down."""

    def __init__(self, draws, tokens):
        self.draws, self.tokens = np.array(draws), np.array(tokens, np.int32)

    def random(self, shape):
        assert shape == self.draws.shape
        return self.draws

    def integers(self, high, size, dtype):
        assert (high, size, dtype) == (12, self.tokens.shape, np.int32)
        return self.tokens


def test_masking_by_hand():
    ids = np.array([A, C, G, T, N, A, N], np.int32)
    # Chosen below 0.5: hidden below 0.4, replaced below 0.45, left below 0.5.
    draws = [0.1, 0.42, 0.47, 0.6, 0.1, 0.44, 0.9]
    chance = Chance(draws, [0, 0, 0, 0, 0, C, 0])
    read, labels = mask_tokens(ids, chance, probability=0.5, tokenizer=TOKENIZER)
    np.testing.assert_array_equal(read, [MASK, 0, G, T, MASK, C, PAD])
    np.testing.assert_array_equal(labels, [A, C, G, PAD, PAD, A, PAD])
    assert read.dtype == labels.dtype == np.int32


def test_masking_shares():
    rng = np.random.default_rng(0)
    ids = rng.integers(7, 11, 400_000).astype(np.int32)
    read, labels = mask_tokens(ids, rng, probability=0.15, tokenizer=TOKENIZER)
    chosen = labels != PAD
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(read[~chosen], ids[~chosen])
    # A random token is [MASK] or what was there, once in 12 each.
    shares = [chosen.mean(), *((read == what)[chosen].mean() for what in (MASK, ids))]
    expected = [0.15, 0.8 + 0.1 / 12, 0.1 + 0.1 / 12]
    sizes = np.array([ids.size, chosen.sum(), chosen.sum()])
    spread = np.sqrt(np.multiply(expected, np.subtract(1, expected)) / sizes)
    assert (np.abs(np.subtract(shares, expected)) < 4 * spread).all()
    # Every one of the 12 tokens can come, and none else.
    replaced = chosen & (read != MASK) & (read != ids)
    assert set(read[replaced]) == set(range(12)) - {MASK}


def batches_of(found, config, count, **kwargs):
    batches = iter(train_dataset(found, config, seed=3, **{"batch_size": 4, **kwargs}))
    return [next(batches) for _ in range(count)]


# 16 windows, each of another sequence: four digits in base 4.
DIGITS = ["".join("ACGT"[i // 4**k % 4] for k in range(4)) for i in range(16)]
GENOME = "".join(DIGITS)
# Nearly nothing is masked, so that examples can be told apart.
BARE = DataConfig(mask_probability=1e-9)


def decoded(batches):
    return [TOKENIZER.decode(row) for batch in batches for row in batch["input_ids"]]


def test_every_window_comes_once_an_epoch_in_a_new_order():
    seen = decoded(batches_of(windows(GENOME), BARE, 8))
    assert sorted(seen[:16]) == sorted(seen[16:]) == sorted(DIGITS)
    assert seen[:16] != DIGITS
    assert seen[:16] != seen[16:]


def test_masks_differ_between_epochs_and_repeat_with_the_seed():
    config = DataConfig(mask_probability=0.5)
    first, again = (batches_of(windows(GENOME), config, 8) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        for key in ("input_ids", "labels", "weights"):
            np.testing.assert_array_equal(one[key], other[key])
    epochs = [
        {row.tobytes() for batch in part for row in batch["labels"]}
        for part in (first[:4], first[4:])
    ]
    assert epochs[0] != epochs[1]
    other_seed = iter(train_dataset(windows(GENOME), config, seed=4, batch_size=4))
    assert any(
        (one["labels"] != other["labels"]).any()
        for one, other in zip(first, other_seed, strict=False)
    )


@pytest.mark.parametrize("threads", [1, 4])
def test_examples_do_not_depend_on_processes_or_threads(threads):
    config = DataConfig(mask_probability=0.5, threads=threads)
    whole = batches_of(windows(GENOME), config, 3)
    parts = [
        batches_of(windows(GENOME), config, 3, process=process, processes=2) for process in (0, 1)
    ]
    for step, batch in enumerate(whole):
        for process in (0, 1):
            part = parts[process][step]["input_ids"]
            np.testing.assert_array_equal(part, batch["input_ids"][process::2])


def test_augmentation_shows_either_strand_with_its_weights():
    # The reverse complement of AACg is cGTT.
    config = DataConfig(rc_mode="augment", mask_probability=1e-9)
    found = windows("AACg", soft_mask_weight=0.5)
    batches = batches_of(found, config, 50)
    rows = [
        (TOKENIZER.decode(ids), tuple(weights))
        for batch in batches
        for ids, weights in zip(batch["input_ids"], batch["weights"], strict=True)
    ]
    forward, reverse = ("AACG", (1, 1, 1, 0.5)), ("CGTT", (0.5, 1, 1, 1))
    assert set(rows) == {forward, reverse}
    assert 70 < rows.count(reverse) < 130  # of 200
    for rc_mode in ("none", "equivariant"):
        batches = batches_of(found, DataConfig(rc_mode=rc_mode, mask_probability=1e-9), 5)
        assert set(decoded(batches)) == {"AACG"}


def test_an_iterator_continues_from_its_state():
    dataset = train_dataset(windows(GENOME), DataConfig(), seed=3, batch_size=4)
    batches = iter(dataset)
    for _ in range(5):
        next(batches)
    state = batches.get_state()
    following = [next(batches) for _ in range(3)]
    fresh = iter(dataset)
    fresh.set_state(state)
    for one, other in zip(following, fresh, strict=False):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])
    assert isinstance(fresh, grain.DatasetIterator)


def test_no_windows_are_refused():
    with pytest.raises(UserError, match="no sequence to train on"):
        train_dataset(windows("NNNN"), DataConfig(), seed=0, batch_size=4)


def test_validation_sees_every_window_under_masks_that_stay():
    config = DataConfig(mask_probability=0.5, validation_masks=2)
    passes = [list(validation_batches(windows(GENOME), config, batch_size=5)) for _ in range(2)]
    for one, other in zip(*passes, strict=True):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])
    rows = np.concatenate([batch["input_ids"] for batch in passes[0]])
    labels = np.concatenate([batch["labels"] for batch in passes[0]])
    # 16 windows under 2 masks in batches of 5: the last one has 3 rows with nothing to predict.
    assert rows.shape == (35, 4)
    assert (labels[32:] == PAD).all() and (rows[32:] == PAD).all()
    original = np.stack([TOKENIZER.encode(text) for text in DIGITS * 2])
    chosen = labels[:32] != PAD
    np.testing.assert_array_equal(labels[:32][chosen], original[chosen])
    np.testing.assert_array_equal(rows[:32][~chosen], original[~chosen])
    assert (labels[:16] != labels[16:32]).any()


def test_validation_can_be_limited_to_evenly_spread_windows():
    config = DataConfig(mask_probability=1e-9, validation_windows=4)
    batches = list(validation_batches(windows(GENOME), config, batch_size=4))
    assert decoded(batches) == DIGITS[::4]


def test_processes_share_the_validation():
    config = DataConfig(mask_probability=0.5)
    whole = list(validation_batches(windows(GENOME), config, batch_size=4))
    for process in (0, 1):
        shares = dict(batch_size=4, process=process, processes=2)
        part = list(validation_batches(windows(GENOME), config, **shares))
        for one, other in zip(whole, part, strict=True):
            np.testing.assert_array_equal(one["labels"][process::2], other["labels"])
