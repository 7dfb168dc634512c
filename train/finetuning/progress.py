"""The state of a seed on disk, from which an interrupted fine-tuning continues."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from caduceus_jax.files import finite, replacing

FILE = "progress.npz"


class Best(NamedTuple):
    """The epoch with the best validation score so far."""

    score: float
    epoch: int
    trained: Any  # parameters on the host
    scores: dict[str, float]


class Progress(NamedTuple):
    """Holds the state of a seed."""

    epoch: int  # the one that is going on, from 1
    batch: int  # batches of it that are done
    losses: list[float]  # of these batches
    first_loss: float | None
    rows: list[dict[str, Any]]  # metrics of the epochs that are done
    state: Any  # of the training
    best: Best | None
    seconds: float  # spent so far


def save(folder: pathlib.Path, progress: Progress) -> None:
    """Writes the progress of a seed in one piece.

    Args:
        folder: the seed's folder.
        progress: its progress.
    """
    best = progress.best
    about = {
        **{name: getattr(progress, name) for name in _PLAIN},
        "best": None if best is None else [best.score, best.epoch, best.scores],
    }
    arrays = _leaves("state", progress.state)
    if best is not None:
        arrays |= _leaves("best", best.trained)
    with replacing(folder / FILE) as partial, partial.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(finite(about))), **arrays)


def load(folder: pathlib.Path, like: Any, trained: Any) -> Progress | None:
    """Reads the progress of a seed; None where there is none.

    Args:
        folder: the seed's folder.
        like: a state of the same form.
        trained: parameters of the same form as those of the best epoch.
    """
    if not (folder / FILE).is_file():
        return None
    with np.load(folder / FILE) as stored:
        about = json.loads(str(stored["about"]))
        best = about.pop("best")
        state = _restored("state", like, stored)
        if best is not None:
            score, epoch, scores = best
            scores = {name: np.nan if v is None else v for name, v in scores.items()}
            best = Best(score, epoch, _restored("best", trained, stored), scores)
    return Progress(**about, state=state, best=best)


def forget(folder: pathlib.Path) -> None:
    """Removes the progress of a seed that is done."""
    (folder / FILE).unlink(missing_ok=True)


_PLAIN = ("epoch", "batch", "losses", "first_loss", "rows", "seconds")


def _leaves(name: str, tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves(jax.device_get(tree))
    return {f"{name}_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def _restored(name: str, like: Any, stored: Any) -> Any:
    leaves, form = jax.tree.flatten(like)
    arrays = [
        jax.device_put(stored[f"{name}_{i}"], getattr(leaf, "sharding", None))
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(form, arrays)
