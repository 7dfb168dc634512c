"""Output files that are whole or not there."""

import contextlib
import importlib
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.status import WRONG_GENOME, Status

log = logging.getLogger(__name__)


def check_output(path: pathlib.Path, formats: Mapping[str, str | None]) -> str:
    """Finds out before the work that its result can be written.

    Args:
        path: the file to be written.
        formats: ending of the name -> package that writes it, or None.

    Returns:
        The ending.

    Raises:
        UserError: another ending, no such folder, or the package is missing.
    """
    ending = next((ending for ending in formats if path.name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"cannot write {path}: the name must end in {' or '.join(formats)}")
    if path.is_dir() or not path.parent.is_dir():
        wrong = f"{path} is a folder" if path.is_dir() else f"{path.parent} is no folder"
        raise UserError(f"cannot write {path}: {wrong}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: its folder may not be written")
    package = formats[ending]
    if package is not None:
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(
                f"writing {ending} needs {package}: pip install 'caduceus-jax[genomics]'"
            ) from None
    return ending


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def finish(
    what: str,
    names: Sequence[str] | np.ndarray,
    status: np.ndarray,
    out: pathlib.Path,
    genome: pathlib.Path | None,
    skip_bad: bool,
) -> None:
    """Says what became of the rows and where they are.

    Args:
        what: what the rows are, for example "variants".
        names: (rows,) what to call each.
        status: (rows,) of `windows.Status`.
        out: the file that holds them.
        genome: where they were looked up.
        skip_bad: rows that are not on the genome are no error.

    Raises:
        UserError: rows are not on the genome; everything is written all the same.
    """
    counts = [(int((status == s).sum()), s) for s in Status]
    said = ", ".join(f"{count:,} {s}" for count, s in counts if count)
    log.info(f"{what}: {said or 'none'}; written to {out}")
    lost = np.flatnonzero(np.isin(status, WRONG_GENOME))
    if len(lost) and not skip_bad:
        raise UserError(
            f"{len(lost):,} of {len(status):,} {what} are not on {genome}, first {names[lost[0]]}: "
            f"{out} is written and gives them the status unknown_chrom or out_of_range; --skip-bad "
            "accepts that"
        )
