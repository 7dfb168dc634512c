import collections
import dataclasses
import json

import numpy as np
import pytest

from caduceus_jax import Tokenizer, UserError
from caduceus_jax.train.data.batches import (
    genome_weights,
    prefetch_to_device,
    train_batches,
    validation_batches,
)
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.data.sources import make_data_position
from caduceus_jax.train.data.splits import Block
from caduceus_jax.train.data.windows import Windows
from tests.genomes import prepared

TOKENIZER = Tokenizer()
PAD, MASK = 4, 3
# 16 windows, each of another sequence: four digits in base 4.
DIGITS = ["".join("ACGT"[i // 4**k % 4] for k in range(4)) for i in range(16)]
# Nearly nothing is masked, so that examples can be told apart.
BARE = DataConfig(mask_probability=1e-9)
HALF = DataConfig(mask_probability=0.5)


def windows_of(folder, *texts, length=4):
    stores = [prepared(folder, c=text) for text in texts]
    blocks = [Block(i, "c", 0, len(text)) for i, text in enumerate(texts)]
    return Windows(stores, blocks, length=length, stride=length)


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    return windows_of(tmp_path_factory.mktemp("digits"), "".join(DIGITS))


def batches_of(windows, config, count, **options):
    options = {"seed": 3, "batch_size": 4, **options}
    batches = train_batches(windows, config, TOKENIZER, **options)
    return [next(batches) for _ in range(count)]


def decoded(batches):
    return [TOKENIZER.decode(row) for batch in batches for row in batch["input_ids"]]


def check_equal(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys() == {"input_ids", "labels", "weights"}
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])


def test_every_window_comes_once_an_epoch_in_a_new_order(windows):
    seen = decoded(batches_of(windows, BARE, 8))
    assert sorted(seen[:16]) == sorted(seen[16:]) == sorted(DIGITS)
    assert seen[:16] != DIGITS
    assert seen[:16] != seen[16:]


def test_masks_differ_between_epochs_and_repeat_with_the_seed(windows):
    first, again = (batches_of(windows, HALF, 8) for _ in range(2))
    check_equal(first, again)
    for batch in first:
        assert batch["input_ids"].dtype == batch["labels"].dtype == np.int32
        assert batch["weights"].dtype == np.float32
    epochs = [
        {row.tobytes() for batch in part for row in batch["labels"]}
        for part in (first[:4], first[4:])
    ]
    assert epochs[0] != epochs[1]
    other = batches_of(windows, HALF, 8, seed=4)
    assert any((a["labels"] != b["labels"]).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("processes", [2, 4])
def test_examples_do_not_depend_on_processes_or_threads(windows, processes, threads):
    config = dataclasses.replace(HALF, threads=threads)
    whole = batches_of(windows, HALF, 3)
    shares = dict(processes=processes)
    parts = [batches_of(windows, config, 3, process=i, **shares) for i in range(processes)]
    joined = [
        {key: np.concatenate([part[step][key] for part in parts]) for key in whole[step]}
        for step in range(3)
    ]
    check_equal(joined, whole)


def test_a_run_continues_at_any_step_with_any_number_of_processes_and_workers(windows):
    """T5, short: 10 + 8 batches across ends of epochs; the long form is a stress script."""
    whole = batches_of(windows, HALF, 18, batch_size=6)
    assert 10 * 6 // 16 != 18 * 6 // 16  # an epoch ends in between
    for processes in (1, 2):
        rows = 6 // processes
        for process in range(processes):
            workers = 2 if processes == 1 else 0
            config = dataclasses.replace(HALF, workers=workers, threads=1 + workers)
            rest = batches_of(
                *(windows, config, 8),
                **dict(batch_size=6, first_step=10, process=process, processes=processes),
            )
            mine = slice(process * rows, (process + 1) * rows)
            check_equal(rest, [{k: v[mine] for k, v in batch.items()} for batch in whole[10:]])
    place = make_data_position(10, windows.stores, len(windows))
    assert len(json.dumps(place)) < 64 * 1024


def test_the_number_of_processes_may_change_within_an_epoch(windows):
    """T6, short: every window once per epoch, with 4 processes, then 2, then 8."""
    seen = collections.Counter()
    for first, last, processes in ((0, 1, 4), (1, 3, 2), (3, 4, 8)):
        for process in range(processes):
            shares = dict(batch_size=8, process=process, processes=processes, first_step=first)
            seen.update(decoded(batches_of(windows, BARE, last - first, **shares)))
    assert seen == dict.fromkeys(DIGITS, 2)  # 4 steps of 8 are two epochs of 16


def test_augmentation_shows_either_strand_with_its_weights(tmp_path):
    # The reverse complement of AACg is cGTT.
    config = dataclasses.replace(BARE, rc_mode="augment", soft_mask_weight=0.5)
    windows = windows_of(tmp_path, "AACg")
    rows = [
        (TOKENIZER.decode(ids), tuple(weights))
        for batch in batches_of(windows, config, 50)
        for ids, weights in zip(batch["input_ids"], batch["weights"], strict=True)
    ]
    forward, reverse = ("AACG", (1, 1, 1, 0.5)), ("CGTT", (0.5, 1, 1, 1))
    assert set(rows) == {forward, reverse}
    assert 72 <= rows.count(reverse) <= 128  # of 200: 4 standard deviations
    for rc_mode in ("none", "equivariant"):
        config = dataclasses.replace(BARE, rc_mode=rc_mode)
        assert set(decoded(batches_of(windows, config, 5))) == {"AACG"}


def test_soft_masked_bases_weigh_less(tmp_path):
    windows = windows_of(tmp_path, "AcgT")
    (batch,) = batches_of(windows, dataclasses.replace(BARE, soft_mask_weight=0.1), 1)
    np.testing.assert_allclose(batch["weights"], [[1, 0.1, 0.1, 1]] * 4, rtol=1e-6)
    (batch,) = batches_of(windows, BARE, 1)
    np.testing.assert_array_equal(batch["weights"], 1)


def test_genomes_are_drawn_from_by_their_weights(tmp_path):
    """3 to 1, of genomes of 4 windows and of 8; each genome's windows come equally often."""
    texts = ("".join(DIGITS[:4]), "".join(DIGITS[4:12]))
    windows = windows_of(tmp_path, *texts)
    weighted = dataclasses.replace(BARE, fasta=["a", "b"], weights=[3.0, 1.0])
    seen = collections.Counter(decoded(batches_of(windows, weighted, 32)))
    assert [seen[text] for text in DIGITS[:12]] == [24] * 4 + [4] * 8
    # Random access here too.
    check_equal(
        batches_of(windows, weighted, 3, first_step=20), batches_of(windows, weighted, 23)[20:]
    )
    # Without weights they are one.
    seen = collections.Counter(decoded(batches_of(windows, BARE, 3)))
    assert seen == dict.fromkeys(DIGITS[:12], 1)


def test_a_temperature_shows_small_genomes_more_often(tmp_path):
    """Genomes of 4 windows and of 1: 4 to 1, 2 to 1 at temperature 2, alike at a high one."""
    windows = windows_of(tmp_path, "".join(DIGITS[:4]), DIGITS[4])
    for temperature, expected in ((1.0, []), (2.0, [2 / 3, 1 / 3]), (1e9, [0.5, 0.5])):
        config = dataclasses.replace(BARE, fasta=["a", "b"], temperature=temperature)
        assert genome_weights(windows, config) == pytest.approx(expected)
    config = dataclasses.replace(config, temperature=2.0)
    seen = collections.Counter(decoded(batches_of(windows, config, 75)))
    assert seen[DIGITS[4]] == pytest.approx(100, abs=2)  # of 300
    with pytest.raises(UserError, match="data.temperature is 0; it is above 0"):
        DataConfig(temperature=0)
    with pytest.raises(UserError, match="weights and data.temperature are both given"):
        DataConfig(fasta=["a", "b"], weights=[1.0, 1.0], temperature=2.0)


def test_nothing_to_draw_is_refused(tmp_path):
    empty = windows_of(tmp_path, "NNNN")
    with pytest.raises(UserError, match="no sequence to train on"):
        train_batches(empty, BARE, TOKENIZER, seed=0, batch_size=4)
    half = windows_of(tmp_path, "ACGT", "NNNN")
    weighted = dataclasses.replace(BARE, fasta=["a", "b"], weights=[1.0, 1.0])
    with pytest.raises(UserError, match=r"genome\d.fa has a weight and no sequence to train on"):
        train_batches(half, weighted, TOKENIZER, seed=0, batch_size=4)


def test_validation_sees_every_window_under_masks_that_stay(windows):
    config = dataclasses.replace(HALF, validation_masks=2)
    passes = [list(validation_batches(windows, config, TOKENIZER, batch_size=5)) for _ in range(2)]
    check_equal(*passes)
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


def test_validation_ignores_weights_and_strands(tmp_path):
    config = dataclasses.replace(BARE, rc_mode="augment", soft_mask_weight=0.1)
    windows = windows_of(tmp_path, "AACg" * 8)
    (batch,) = validation_batches(windows, config, TOKENIZER, batch_size=8)
    assert set(decoded([batch])) == {"AACG"}
    np.testing.assert_array_equal(batch["weights"], 1)


def test_validation_can_be_limited_to_evenly_spread_windows(windows):
    config = dataclasses.replace(BARE, validation_windows=4)
    assert decoded(validation_batches(windows, config, TOKENIZER, batch_size=4)) == DIGITS[::4]


def test_processes_share_the_validation(windows):
    whole = list(validation_batches(windows, HALF, TOKENIZER, batch_size=6))
    for process in (0, 1, 2):
        shares = dict(batch_size=6, process=process, processes=3)
        mine = slice(2 * process, 2 * process + 2)
        part = list(validation_batches(windows, HALF, TOKENIZER, **shares))
        check_equal(part, [{k: v[mine] for k, v in batch.items()} for batch in whole])


def test_batches_are_placed_ahead_of_their_use():
    placed = []
    batches = prefetch_to_device(range(5), lambda batch: placed.append(batch) or -batch)
    assert next(batches) == 0
    assert placed == [0, 1]
    assert next(batches) == -1
    assert placed == [0, 1, 2]
    assert list(batches) == [-2, -3, -4]
    assert list(prefetch_to_device([], str)) == []
