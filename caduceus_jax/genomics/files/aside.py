"""Files that a library writes which fails badly on a full disk: made elsewhere, then copied."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.output import OutputError


@contextlib.contextmanager
def written_aside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path among temporary files, which is copied to `path` if the block succeeds.

    Args:
        path: the file to write.

    Raises:
        OutputError: the folder of temporary files is full.
        OSError: the copy cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="caduceus-jax-") as folder:
        aside = pathlib.Path(folder) / path.name.lstrip(".")
        try:
            yield aside
        except UserError:
            raise
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"a temporary file cannot be written in {tempfile.gettempdir()} ({reason}): set "
                "TMPDIR to a folder with room"
            ) from None
        shutil.copyfile(aside, path)
