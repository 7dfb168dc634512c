import time

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.data.splits import Block, bases, merged, read_splits, without
from caduceus_jax.train.data.windows import Windows
from tests.genomes import prepared


def test_splits_by_fraction_cut_every_contig_once(tmp_path):
    stores = [prepared(tmp_path, one="A" * 20), prepared(tmp_path, two="C" * 10)]
    splits = read_splits(stores, DataConfig(validation_fraction=0.2), 4)
    assert splits.train == [Block(0, "one", 0, 16), Block(1, "two", 0, 8)]
    assert splits.validation == [Block(0, "one", 16, 20), Block(1, "two", 8, 10)]
    assert splits.test == splits.avoid == []
    assert not splits.inward


def test_splits_by_contig(tmp_path):
    stores = [prepared(tmp_path, one="A" * 20, two="C" * 10), prepared(tmp_path, three="G" * 5)]
    config = DataConfig(validation_contigs="two", test_contigs="three")
    splits = read_splits(stores, config, 4)
    assert splits.train == [Block(0, "one", 0, 20)]
    assert splits.validation == [Block(0, "two", 0, 10)]
    assert splits.test == [Block(1, "three", 0, 5)]
    with pytest.raises(
        UserError, match="contig chrX, to be held out, is not in the genome; it has one, two, three"
    ):
        read_splits(stores, DataConfig(validation_contigs="chrX"), 4)


def test_a_contig_is_held_out_of_every_genome_that_has_it(tmp_path):
    stores = [prepared(tmp_path, a="A" * 8, b="C" * 8), prepared(tmp_path, b="G" * 8, c="T" * 8)]
    splits = read_splits(stores, DataConfig(validation_contigs="b"), 4)
    assert splits.train == [Block(0, "a", 0, 8), Block(1, "c", 0, 8)]
    assert splits.validation == [Block(0, "b", 0, 8), Block(1, "b", 0, 8)]


@pytest.fixture
def intervals(tmp_path):
    """Splits of a contig of 100 bases, and one of 10, by the lines of a BED file."""
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 100))
    stores = [prepared(tmp_path, chr1=letters, chr2=letters[:10])]

    def read(*lines, length=8, **settings):
        bed = tmp_path / "splits.bed"
        bed.write_text("".join(line.replace(" ", "\t") + "\n" for line in lines))
        config = DataConfig(intervals=str(bed), **settings)
        return read_splits(stores, config, length)

    return read


def starts(splits, blocks, *, length=8, avoid=()):
    text = splits.stores[0]["chr1"].tobytes()
    found = Windows(
        splits.stores, blocks, length=length, stride=length, inward=splits.inward, avoid=avoid
    )
    return [text.find(found[i].tobytes()) for i in range(len(found))]


def test_intervals_reach_as_far_from_their_start_as_asked(intervals, capsys):
    lines = ("chr1 0 4 train", "chr1 32 36 valid", "chr1 64 68 test")
    splits = intervals(*lines, interval_length=24)
    assert splits.train == [Block(0, "chr1", 0, 24)]
    assert splits.validation == [Block(0, "chr1", 32, 56)]
    assert splits.test == [Block(0, "chr1", 64, 88)]
    assert starts(splits, splits.train) == [0, 8, 16]
    assert capsys.readouterr().err == ""
    # A window is the least that is taken.
    assert intervals("chr1 10 14 train", interval_length=None).train == [Block(0, "chr1", 10, 18)]
    assert intervals("chr1 10 34 train", interval_length=None).train == [Block(0, "chr1", 10, 34)]


def test_intervals_are_shifted_inward_at_the_end_of_a_contig(intervals):
    lines = ("chr1 80 84 train", "chr1 97 99 validation", "chr2 5 6 test", "chr1 0 1 train")
    splits = intervals(*lines, interval_length=24)
    assert splits.train == [Block(0, "chr1", 80, 100), Block(0, "chr1", 0, 24)]
    assert starts(splits, splits.train[:1]) == [80, 88, 92]
    assert splits.validation == [Block(0, "chr1", 92, 100)]
    assert splits.test == [Block(0, "chr2", 2, 10)]
    # A contig that is shorter than a window is one window.
    assert intervals("chr2 5 6 test", length=16).test == [Block(0, "chr2", 0, 10)]


def test_what_splits_share_is_said_and_cut_from_training(intervals, capsys):
    lines = ("chr1 0 4 train", "chr1 20 24 valid", "chr1 30 34 test", "chr1 50 54 train")
    splits = intervals(*lines, interval_length=24)
    said = capsys.readouterr().err
    assert "train and validation share 4 bases; train and test share 4 bases; " in said
    assert "validation and test share 14 bases; training windows that touch" in said
    # Windows of training begin at 0, 8, 16 and 50, 58, 66; held out are [20, 54).
    assert starts(splits, splits.train, avoid=splits.avoid) == [0, 8, 58, 66]
    kept = intervals(*lines, interval_length=24, interval_overlap="keep")
    assert "data.interval_overlap keep trains on them all the same" in capsys.readouterr().err
    assert starts(kept, kept.train, avoid=kept.avoid) == [0, 8, 16, 50, 58, 66]


@pytest.mark.parametrize(
    "line, message",
    [
        ("chr1 5 9", "splits.bed:2: the fourth column is 'chr1:5-9', and a split is train"),
        ("chr1 5 9 dev", "splits.bed:2: the fourth column is 'dev', and a split is train, valid"),
        ("chr3 5 9 train", "splits.bed:2: contig chr3 is not in the genome; it has chr1"),
        ("chr2 5 11 train", "splits.bed:2: the interval ends at 11, and chr2 has 10 bases: it was"),
        ("chr1 9 5 train", "splits.bed:2: start 9 is not below end 5"),
    ],
)
def test_intervals_that_do_not_fit_name_their_line(intervals, line, message):
    with pytest.raises(UserError, match=message) as error:
        intervals("chr1 0 4 train", line)
    assert "\n" not in str(error.value)


def test_intervals_of_a_contig_that_two_genomes_have_are_refused(tmp_path):
    stores = [prepared(tmp_path, a="ACGT"), prepared(tmp_path, a="ACGA")]
    bed = tmp_path / "a.bed"
    bed.write_text("a\t0\t2\ttrain\n")
    with pytest.raises(UserError, match=r"a.bed:1: a is in each of genome0.fa, genome2.fa: name"):
        read_splits(stores, DataConfig(intervals=str(bed)), 2)


def test_blocks_are_merged_counted_and_taken_away():
    one = [Block(0, "a", 5, 9), Block(0, "a", 0, 6), Block(0, "b", 0, 3), Block(1, "a", 0, 4)]
    assert merged(one) == [Block(0, "a", 0, 9), Block(0, "b", 0, 3), Block(1, "a", 0, 4)]
    assert bases(one) == 16
    away = [Block(0, "a", 2, 3), Block(0, "a", 8, 20), Block(1, "a", 0, 4), Block(1, "b", 0, 9)]
    assert without(one, away) == [Block(0, "a", 0, 2), Block(0, "a", 3, 8), Block(0, "b", 0, 3)]
    assert without(one, []) == merged(one)


def draft(tmp_path, *lengths):
    names = {f"c{i}": "A" * length for i, length in enumerate(lengths)}
    return prepared(tmp_path, **names)


def test_what_is_removed_is_found_in_linear_time():
    """A hundred thousand contigs: 25 minutes, if every block looked at every other one."""
    count = 100_000
    train = [Block(0, f"s{i:06}", 0, 900) for i in range(count)]
    held = [Block(0, f"s{i:06}", 800, 1000) for i in range(count)]
    begun = time.process_time()
    assert bases(without(train, held)) == 800 * count
    assert time.process_time() - begun < 20


def test_removal_agrees_with_a_set_of_bases():
    rng = np.random.default_rng(0)

    def drawn(count):
        starts = rng.integers(0, 60, count)
        ends = starts + rng.integers(1, 20, count)
        contigs = rng.choice(["a", "b"], count)
        return [
            Block(0, str(c), int(s), int(e)) for c, s, e in zip(contigs, starts, ends, strict=True)
        ]

    for _ in range(50):
        kept, removed = drawn(rng.integers(0, 8)), drawn(rng.integers(0, 8))
        cover = lambda blocks: {(b.contig, i) for b in blocks for i in range(b.start, b.end)}  # noqa: E731
        found = without(kept, removed)
        assert cover(found) == cover(kept) - cover(removed)
        assert found == merged(found)


def test_contigs_that_would_be_padding_are_left_out(tmp_path, caplog):
    caplog.set_level("INFO", logger="caduceus_jax")
    store = draft(tmp_path, 1000, 30, 20)
    splits = read_splits([store], DataConfig(fasta="x"), 64)
    assert {block.contig for block in splits.train} == {"c0"}
    assert "2 contigs of less than 32 bases, 4.8% of its sequence, are left out" in caplog.text
    kept = read_splits([store], DataConfig(fasta="x", min_contig=25), 64)
    assert {block.contig for block in kept.train} == {"c0", "c1"}
    # A genome of nothing else is used as it is.
    (tmp_path / "all").mkdir()
    splits = read_splits([draft(tmp_path / "all", 30, 20)], DataConfig(fasta="x"), 64)
    assert {block.contig for block in splits.train} == {"c0", "c1"}


def test_many_short_contigs_go_whole_to_one_split(tmp_path):
    store = draft(tmp_path, *[100] * 60, 5000)
    splits = read_splits([store], DataConfig(fasta="x"), 64)
    short = [block for block in splits.validation if block.contig != "c60"]
    assert len(short) == 6 and all((b.start, b.end) == (0, 100) for b in short)
    assert not {b.contig for b in short} & {b.contig for b in splits.train}
    assert Block(0, "c60", 4500, 5000) in splits.validation
