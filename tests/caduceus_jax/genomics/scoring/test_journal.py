"""A journal gives back what was kept, drops what was torn, and refuses what is another run's."""

import json

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.options import Embedding
from caduceus_jax.genomics.scoring.journal import Journal, open_journal, run_record
from tests.models import pretrained

RUN = {"mode": "llr", "genome": {"bytes": 3}, "window": (1, 2)}
FIRST, SECOND = np.array([1.5, np.nan, -2], np.float32), np.array([7], np.float32)


class Killed(BaseException):
    pass


def interrupt(path, *entries, restart=False):
    """Keeps entries, then ends as an error would."""
    with pytest.raises(Killed), open_journal(path, RUN, restart=restart) as journal:
        while journal.next() is not None:
            pass
        for entry in entries:
            journal.append(entry)
        raise Killed


def kept(path) -> list[list[float]]:
    with pytest.raises(Killed), open_journal(path, RUN) as journal:
        found = []
        while (values := journal.next()) is not None:
            found.append(values.tolist())
        raise Killed
    return found


def test_what_is_kept_comes_back_and_the_end_removes_it(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    interrupt(path, SECOND)
    np.testing.assert_equal(kept(path), [[1.5, np.nan, -2.0], [7.0]])
    with open_journal(path, RUN) as journal:
        np.testing.assert_array_equal(journal.next(), FIRST)
    assert not path.exists()


def test_an_entry_cut_anywhere_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    one = path.stat().st_size
    interrupt(path, SECOND)
    whole = path.read_bytes()
    for size in range(one, len(whole)):
        path.write_bytes(whole[:size])
        np.testing.assert_equal(kept(path), [FIRST.tolist()])
        assert path.stat().st_size == one
        interrupt(path, SECOND)
        assert path.read_bytes() == whole
    flipped = bytearray(whole)
    flipped[one + 9] ^= 1
    path.write_bytes(flipped)
    np.testing.assert_equal(kept(path), [FIRST.tolist()])


def test_a_first_line_cut_anywhere_is_no_journal(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    line = path.read_bytes().partition(b"\n")[0]
    for size in range(len(line) + 1):
        path.write_bytes(line[:size])
        assert kept(path) == []


def test_nothing_computed_leaves_no_journal(tmp_path):
    interrupt(tmp_path / "a.journal")
    assert list(tmp_path.iterdir()) == []


def test_another_runs_journal_is_refused(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    before = path.read_bytes()
    other = {**RUN, "mode": "pll", "edge": "pad"}
    with pytest.raises(UserError) as error, open_journal(path, other):
        pass
    assert str(error.value) == (
        f"{path} is the journal of another run, which differs in mode, edge: start that run again, "
        "or pass `restart`, which discards the journal"
    )
    assert path.read_bytes() == before


def test_an_interruption_says_that_it_continues(tmp_path, capsys):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    assert capsys.readouterr().err == (
        f"what is computed is kept in {path}: the same command continues from it\n"
    )
    with open_journal(path, RUN) as journal:
        assert journal.next() is not None
    assert capsys.readouterr().err == (f"continuing from {path}, what an earlier run computed\n")


def test_restart_begins_anew(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    interrupt(path, SECOND, restart=True)
    assert kept(path) == [[7.0]]
    with open_journal(path, {"mode": "pll"}, restart=True) as journal:
        assert journal.next() is None


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / "a.journal"
    path.write_text("Dear diary")
    with pytest.raises(UserError) as error, open_journal(path, RUN):
        pass
    assert str(error.value) == (
        f"{path} is not a journal of caduceus-jax: move it, or choose another output"
    )
    assert path.read_text() == "Dear diary"


def test_two_processes_do_not_share_one(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "a.journal"
    with (
        open_journal(path, RUN),
        pytest.raises(UserError, match="is in use: another process is writing the same output$"),
        open_journal(path, RUN),
    ):
        pass


def test_a_full_disk_is_one_sentence(tmp_path):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def tell(self):
            return 0

        def truncate(self, size):
            pass

    journal = Journal(Full(), 0, tmp_path / "a.journal")
    with pytest.raises(UserError, match=r"^the journal .*a\.journal cannot be written: No space"):
        journal.append(FIRST)


def test_the_record_of_a_run_tells_models_and_options_apart():
    m, same = pretrained(), pretrained()
    first = run_record(m, "embed", options=Embedding(), sequences="ab")
    assert first == run_record(same, "embed", options=Embedding(), sequences="ab")
    others = [
        run_record(pretrained(n_layer=1), "embed", options=Embedding(), sequences="ab"),
        run_record(m, "embed", options=Embedding(layer=1), sequences="ab"),
        run_record(m, "embed", options=Embedding(), sequences="ac"),
        run_record(m, "predict", options=Embedding(), sequences="ab"),
    ]
    assert all(other != first for other in others)


def test_values_of_another_number_are_dropped(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST, SECOND)
    with pytest.raises(Killed), open_journal(path, RUN) as journal:
        np.testing.assert_array_equal(journal.next(3), FIRST)
        assert journal.next(3) is None
        raise Killed
    np.testing.assert_equal(kept(path), [FIRST.tolist()])


def test_nothing_is_missing_from_a_journal_that_is_whole(tmp_path):
    """Neither at its end nor where a batch has other values; it goes, as what made it stays."""
    path = tmp_path / "a.journal"
    interrupt(path, FIRST, SECOND)
    line, _, entries = path.read_bytes().partition(b"\n")
    whole = json.dumps({**json.loads(line), "whole": True}).encode() + b"\n" + entries
    for counts in ((3, 1, 1), (3, 2), (4,)):
        path.write_bytes(whole)
        with pytest.raises(UserError, match="^the shards do not have all results of the run"):
            with open_journal(path, RUN) as journal:
                for count in counts:
                    journal.next(count)
        assert not path.exists()
