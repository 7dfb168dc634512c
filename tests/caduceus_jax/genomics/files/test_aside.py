"""A file is copied to its place when the library that writes it has succeeded."""

import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.aside import written_aside


def test_the_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "a.bw"
    with written_aside(path) as aside:
        aside.write_bytes(b"track")
        assert aside.name == path.name and not path.exists()
    assert path.read_bytes() == b"track"
    assert not aside.exists()


def test_an_error_of_the_library_is_one_sentence_and_leaves_no_file(tmp_path):
    path = tmp_path / "a.bw"
    with pytest.raises(UserError, match="set TMPDIR to a folder with room"):
        with written_aside(path):
            raise RuntimeError("No space left on device")
    assert not path.exists()


def test_our_own_errors_pass(tmp_path):
    with pytest.raises(UserError, match="^as it is$"), written_aside(tmp_path / "a.bw"):
        raise UserError("as it is")
