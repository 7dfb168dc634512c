"""Output files: checked before the work, and complete or not there after it."""

import contextlib
import errno
import importlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from caduceus_jax import files
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import AnyPath

AnyPaths = Sequence[AnyPath] | AnyPath


class OutputError(UserError):
    """A file cannot be written, for example because the disk is full."""

    exit_status = 1


def check_output(path: pathlib.Path, formats: Mapping[str, str | None]) -> str:
    """Finds out before the work that its result can be written.

    Args:
        path: the file to be written.
        formats: ending of the name -> package that writes it, or None.

    Returns:
        The ending.

    Raises:
        UserError: another ending, no such directory, or the package is missing.
    """
    ending = next((ending for ending in formats if path.name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"cannot write {path}: the name must end in {' or '.join(formats)}")
    if path.is_dir() or not path.parent.is_dir():
        wrong = f"{path} is a directory" if path.is_dir() else f"{path.parent} is not a directory"
        raise UserError(f"cannot write {path}: {wrong}")
    try:
        path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a RuntimeError before Python 3.13
        if getattr(error, "errno", errno.ELOOP) == errno.ELOOP:
            raise UserError(f"cannot write {path}: it is a symbolic link to itself") from None
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is not a regular file")
    if not os.access(path.resolve().parent, os.W_OK):
        raise UserError(f"cannot write {path}: its directory may not be written")
    package = formats[ending]
    if package is not None:
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(
                f"writing {ending} needs {package}: pip install 'caduceus-jax[genomics]'"
            ) from None
    return ending


def check_outputs(
    out: AnyPaths, formats: Mapping[str, str | None], inputs: Sequence[AnyPath | None]
) -> dict[pathlib.Path, str]:
    """Finds out before the work that all files can be written.

    Args:
        out: the files to be written, or one.
        formats: ending of the name -> package that writes it, or None.
        inputs: files that are read.

    Returns:
        Each file and its ending.

    Raises:
        UserError: one cannot be written, is an input, or is named twice.
    """
    read = [pathlib.Path(file).resolve() for file in inputs if file is not None]
    endings: dict[pathlib.Path, str] = {}
    for name in [out] if isinstance(out, str | os.PathLike) else out:
        files.check_local("out", name)
        path = pathlib.Path(name)
        if path in endings:
            raise UserError(f"{path} is named twice: give each output a name of its own")
        endings[path] = check_output(path, formats)
        if path.resolve() in read:
            raise UserError(f"{path} is the input: choose another name for the output")
    return endings


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside a file, which takes its place if the block succeeds.

    A symbolic link stays one: the file it points to is replaced.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full; what was
            there before is as it was.
    """
    target = path.resolve() if path.is_symlink() else path
    try:
        with files.replacing(target) as partial:
            yield partial
            _synced(partial)
    except UserError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None


def _synced(path: pathlib.Path) -> None:
    """Finds out that a file has reached the disk, where file systems tell only then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
