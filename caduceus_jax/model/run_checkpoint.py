"""Checkpoints of training runs as files: what is in one, whether it is intact, its model.

    RUN/checkpoints/1200/state/         arrays, as Orbax writes them
                         run.json       step, place in the data, config, versions
                         manifest.json  size and SHA-256 of every file; written last

A folder gets its number once it has all of these; before, and while it is deleted, it ends in
`.tmp`.
"""

import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig

CHECKPOINTS = "checkpoints"
STATE, RUN, MANIFEST = "state", "run.json", "manifest.json"


class DamagedCheckpoint(UserError):
    """Says that no checkpoint can be used, or not the newest and no older one is wanted."""

    exit_status = 3


def write_manifest(folder: pathlib.Path) -> None:
    """Writes the manifest of a checkpoint that is complete.

    Args:
        folder: the folder of the checkpoint.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    listed = {path.relative_to(folder).as_posix(): _fingerprint(path) for path in files}
    (folder / MANIFEST).write_text(_manifest(listed))


def verify(folder: pathlib.Path) -> str | None:
    """Finds what is wrong with a checkpoint, naming the file; None where nothing is.

    Args:
        folder: folder of the checkpoint; size and SHA-256 of every file are compared with its
            manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return f"{MANIFEST} is missing, so it was not finished"
    try:
        written = path.read_text()
        files = json.loads(written)["files"]
        if written != _manifest(files):
            return f"{MANIFEST} is not as it was written"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is not as it was written"
    for name, expected in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        found = _fingerprint(folder / name)
        if found["size"] != expected["size"]:
            return f"{name} has {found['size']:,} bytes instead of {expected['size']:,}"
        if found != expected:
            return f"{name} has other bytes than were written"
    return None


def steps(folder: pathlib.Path) -> list[int]:
    """Lists the steps that there are checkpoints of, newest first.

    Args:
        folder: the folder of a run's checkpoints.
    """
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in found if name.isdecimal()), reverse=True)


def newest(folder: pathlib.Path) -> tuple[int | None, dict[int, str]]:
    """Finds the newest intact checkpoint, and what is wrong with those after it.

    Args:
        folder: the folder of a run's checkpoints.

    Returns:
        Its step, None where none is intact; and the damage of each newer step.
    """
    damaged: dict[int, str] = {}
    for step in steps(folder):
        wrong = verify(folder / str(step))
        if wrong is None:
            return step, damaged
        damaged[step] = wrong
    return None, damaged


def describe(damaged: dict[int, str]) -> str:
    """Says what is wrong with which step, as part of a sentence.

    Args:
        damaged: the damage of each step's checkpoint.
    """
    return ", ".join(f"{step} ({wrong})" for step, wrong in damaged.items())


def find(path: pathlib.Path) -> pathlib.Path | None:
    """Finds the checkpoint that is meant: `path` itself, or the newest intact one of the run there.

    Raises:
        DamagedCheckpoint: there are only damaged ones.
    """
    if (path / RUN).is_file():
        if wrong := verify(path):
            raise DamagedCheckpoint(f"{path} is damaged ({wrong}): name another checkpoint")
        return path
    folder = path / CHECKPOINTS
    step, damaged = newest(folder)
    if step is None and damaged:
        raise DamagedCheckpoint(f"no checkpoint in {folder} is intact: {describe(damaged)}")
    return None if step is None else folder / str(step)


def read_run(checkpoint: pathlib.Path) -> dict[str, Any]:
    """Reads `run.json`: `step`, `place`, `config` and `versions`.

    Args:
        checkpoint: a folder of `find`.
    """
    return json.loads((checkpoint / RUN).read_text())


def load_model(checkpoint: pathlib.Path) -> tuple[CaduceusConfig, nnx.State]:
    """Reads the architecture and the parameters; the optimizer's part is not read.

    Args:
        checkpoint: a folder of `find`.
    """
    fields: dict[str, Any] = read_run(checkpoint)["config"]["model"]
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    stored: Any = checkpoint.absolute() / STATE
    # The handler itself, without a checkpointer around it, waits for no other process.
    reader = ocp.PyTreeCheckpointHandler()
    tree = reader.metadata(stored).tree
    # Where a running mean of the weights was kept, it is the model.
    name = "ema" if tree.get("ema") else "params"
    item = {name: tree[name]}
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    restored = reader.restore(
        stored,
        args=ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True),
    )
    reader.close()
    leaves, _ = jax.tree_util.tree_flatten_with_path(restored[name])
    return CaduceusConfig(**fields), nnx.from_flat_state(
        # Orbax knows the value of an nnx.Param by a key of its own.
        [(tuple(k.key for k in path[:-1]), nnx.Param(jnp.asarray(x))) for path, x in leaves]
    )


def _manifest(files: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": digest}, indent=1) + "\n"


def _fingerprint(path: pathlib.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}
