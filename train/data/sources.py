"""The genomes of a run: prepared once, the same ones whenever the run continues."""

import json
import pathlib
import shutil
from typing import Any

from caduceus_jax.configs import resolve_data
from caduceus_jax.errors import UserError
from caduceus_jax.files import file_digest
from caduceus_jax.genomics.reference.store import BASES, Source, Store
from caduceus_jax.train import processes
from caduceus_jax.train.data.config import DataConfig, as_list
from caduceus_jax.train.data.prepare import write_store
from caduceus_jax.train.storage.remote import local_copy, one_at_a_time

RECORD = "sources.json"


def open_stores(config: DataConfig, folder: pathlib.Path, *, shared: bool = True) -> list[Store]:
    """Opens the genomes of `config.fasta`, preparing those that are FASTA files.

    Of several processes the first prepares and checks, and the others wait for it. Where they do
    not share the folder, one process of each machine then does the same there.

    Args:
        config: names FASTA files and prepared folders.
        folder: folder in which the run keeps what it prepares.
        shared: whether all processes share the folder.

    Raises:
        UserError: no genome, one that cannot be read, the same twice, or one that is not what it
            was when the run began.
    """
    if not as_list(config.fasta):
        raise UserError("no genome to train on: name one with --data.fasta genome.fa")
    first = processes.index() == 0  # prepares FASTA files for all that share the folder
    paths = [
        resolve_data(str(local_copy("data.fasta", name, folders_only=shared and not first)))
        for name in as_list(config.fasta)
    ]
    # Found again by their place in the list: whether they are the same, their digests say.
    kept = [path if path.is_dir() else folder / str(i) for i, path in enumerate(paths)]
    processes.broadcast_from_first("the genomes, prepared", lambda: _prepare(paths, kept, folder))
    if not shared and not first:
        with one_at_a_time(folder):
            _prepare(paths, kept, folder)
    stores = [Store(path) for path in kept]
    seen: dict[str, pathlib.Path] = {}
    for path, store in zip(paths, stores, strict=True):
        if store.sha256 in seen:
            raise UserError(f"{path} is the same genome as {seen[store.sha256]}: name it once")
        seen[store.sha256] = path
    return stores


def record_stores(stores: list[Store], folder: pathlib.Path) -> None:
    """Writes down which genomes the run has; `open_stores` holds them against it from then on."""
    folder.mkdir(parents=True, exist_ok=True)
    record = [{**_identity(store), "bases": _stamp(store)} for store in stores]
    partial = folder / f"{RECORD}.part"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(folder / RECORD)


def make_data_position(step: int, stores: list[Store], windows: int) -> dict[str, Any]:
    """Returns the position in the data after a step, as a checkpoint keeps it.

    What an example looks like depends on the seed, its step and its number alone, so the step is
    the position; the rest identifies the data.

    Args:
        step: the last step that is done.
        stores: the genomes.
        windows: number of windows to train on.
    """
    return {"step": step, "sources": [_identity(store) for store in stores], "windows": windows}


def check_data_position(place: dict[str, Any], stores: list[Store], windows: int) -> int:
    """Makes sure that a place is one in these data.

    Returns:
        The step that was done last.

    Raises:
        UserError: the position belongs to other data.
    """
    was, now = place["sources"], [_identity(store) for store in stores]
    if (len(was), place["windows"]) != (len(now), windows):
        raise UserError(
            f"the checkpoint was made with {place['windows']:,} windows of {len(was)} genomes, "
            f"and there are {windows:,} of {len(now)} now: continue with the data that the run "
            "began with, or choose another folder with --out"
        )
    for then, store in zip(was, stores, strict=True):
        if then["sha256"] != store.sha256:
            raise _changed(store.name, then["sha256"], store.sha256)
    return place["step"]


def _prepare(paths: list[pathlib.Path], kept: list[pathlib.Path], folder: pathlib.Path) -> None:
    """Makes sure that the stores are there, and are those of this run."""
    recorded = folder / RECORD
    record = json.loads(recorded.read_text()) if recorded.exists() else [{}] * len(paths)
    if len(record) != len(paths):
        raise UserError(
            f"this run began with {len(record)} genomes, and data.fasta names {len(paths)} now: "
            "name the same ones, or choose another folder with --out"
        )
    for path, out, was in zip(paths, kept, record, strict=True):
        if path != out:
            _prepare_once(path, out, begun=bool(was))
        store = Store(out)
        if was.get("bases") != _stamp(store):
            store.verify()
        if was and was["sha256"] != store.sha256:
            raise _changed(str(path), was["sha256"], store.sha256)


def _prepare_once(fasta: pathlib.Path, out: pathlib.Path, *, begun: bool) -> None:
    """Makes a store of a FASTA file, unless there is one of that very file."""
    if out.exists():
        try:
            source = Store(out).source
        except UserError:
            source = None  # damaged; what is made in its place is held against the record
        if source and (_same_file(fasta, source) or (begun and not fasta.exists())):
            return
        if source and begun:
            raise _changed(str(fasta), source.sha256, file_digest(fasta))
        # Without a run that began, it is of an attempt with another file.
        shutil.rmtree(out)
    write_store(fasta, out)


def _same_file(fasta: pathlib.Path, source: Source) -> bool:
    """Asks the clock first: a file of the same size and age is not read again."""
    if not fasta.exists():
        return False
    stat = fasta.stat()
    if (source.size, source.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return True
    return source.size == stat.st_size and source.sha256 == file_digest(fasta)


def _changed(name: str, was: str, now: str) -> UserError:
    return UserError(
        f"{name} has changed since this run began (SHA-256 {was[:12]} then, {now[:12]} now): put "
        "the old file back, or choose another folder with --out"
    )


def _identity(store: Store) -> dict[str, str]:
    return {"name": store.name, "sha256": store.sha256}


def _stamp(store: Store) -> dict[str, int]:
    """Returns facts that change when a file is written and are cheap to look up."""
    stat = (store.path / BASES).stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
