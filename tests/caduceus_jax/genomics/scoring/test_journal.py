"""A journal gives back what was kept, drops what was torn, and refuses what is another run's."""

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.scoring.journal import open_journal

RUN = {"mode": "llr", "genome": {"bytes": 3}, "window": (1, 2)}
FIRST, SECOND = np.array([1.5, np.nan, -2], np.float32), np.array([7], np.float32)


class Killed(BaseException):
    pass


def interrupt(path, *entries, resume=False):
    """Keeps entries, then ends as an error would."""
    with pytest.raises(Killed), open_journal(path, RUN, resume=resume) as journal:
        if resume:
            while journal.next() is not None:
                pass
        for entry in entries:
            journal.append(entry)
        raise Killed


def kept(path) -> list[list[float]]:
    with pytest.raises(Killed), open_journal(path, RUN, resume=True) as journal:
        found = []
        while (values := journal.next()) is not None:
            found.append(values.tolist())
        raise Killed
    return found


def test_what_is_kept_comes_back_and_the_end_removes_it(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    interrupt(path, SECOND, resume=True)
    np.testing.assert_equal(kept(path), [[1.5, np.nan, -2.0], [7.0]])
    with open_journal(path, RUN, resume=True) as journal:
        np.testing.assert_array_equal(journal.next(), FIRST)
    assert not path.exists()


def test_an_entry_cut_anywhere_is_dropped_and_written_again(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    one = path.stat().st_size
    interrupt(path, SECOND, resume=True)
    whole = path.read_bytes()
    for size in range(one, len(whole)):
        path.write_bytes(whole[:size])
        np.testing.assert_equal(kept(path), [FIRST.tolist()])
        assert path.stat().st_size == one
        interrupt(path, SECOND, resume=True)
        assert path.read_bytes() == whole
    flipped = bytearray(whole)
    flipped[one + 9] ^= 1
    path.write_bytes(flipped)
    np.testing.assert_equal(kept(path), [FIRST.tolist()])


def test_a_first_line_cut_anywhere_is_no_journal(tmp_path, capsys):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    line = path.read_bytes().partition(b"\n")[0]
    for size in range(len(line) + 1):
        path.write_bytes(line[:size])
        assert kept(path) == []
    assert capsys.readouterr().err.splitlines() == (
        [f"there is no journal {path} to resume from: everything is computed"] * (len(line) + 1)
    )


def test_nothing_computed_leaves_no_journal(tmp_path):
    interrupt(tmp_path / "a.journal")
    assert list(tmp_path.iterdir()) == []


def test_another_runs_journal_is_refused(tmp_path):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    before = path.read_bytes()
    other = {**RUN, "mode": "pll", "edge": "pad"}
    with pytest.raises(UserError) as error, open_journal(path, other, resume=True):
        pass
    assert str(error.value) == (
        f"{path} is the journal of another run, which differs in mode, edge: start that run again, "
        "or this one without --resume, which discards the journal"
    )
    assert path.read_bytes() == before


def test_without_resume_it_begins_anew_and_says_so(tmp_path, capsys):
    path = tmp_path / "a.journal"
    interrupt(path, FIRST)
    interrupt(path, SECOND)
    assert capsys.readouterr().err == (
        f"{path}, the journal of the same run, is discarded: --resume would continue it\n"
    )
    assert kept(path) == [[7.0]]
    with open_journal(path, {"mode": "pll"}, resume=False) as journal:
        assert journal.next() is None
    assert capsys.readouterr().err == ""


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / "a.journal"
    path.write_text("Dear diary")
    with pytest.raises(UserError) as error, open_journal(path, RUN, resume=False):
        pass
    assert str(error.value) == (
        f"{path} is no journal of this program: move it, or choose another --out"
    )
    assert path.read_text() == "Dear diary"


def test_two_processes_do_not_share_one(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "a.journal"
    with (
        open_journal(path, RUN, resume=False),
        pytest.raises(UserError, match="is in use: another process is writing the same output$"),
        open_journal(path, RUN, resume=True),
    ):
        pass
