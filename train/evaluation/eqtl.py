"""Effects of variants on expression, by an SVM on embeddings (Schiff et al. 2024, section 5.3).

Each variant gives the mean of the model's states around it with the reference's and with the
alternative base; a support vector machine learns from these which variants are causal eQTLs, in
three classes of distance to the nearest transcription start site.
"""

import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.locate import place
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.batches import plan, run
from caduceus_jax.inference.loading import AnyModel
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.evaluation.eqtl_table import Table
from caduceus_jax.train.finetuning.config import Protocol

log = logging.getLogger(__name__)

# Bases to the nearest transcription start site: from, and to; the paper counts both ends in.
BUCKETS = {
    "0 - 30 kb": (0, 30_000),
    "30 - 100 kb": (30_000, 100_000),
    "100 kb +": (100_000, np.inf),
}
STRENGTHS = (1.0, 5.0, 10.0)
TOO_MANY_N = "too_many_n"
_MOST_N = 0.005  # share of a window; from there on it is left out
_ROWS = 5_000  # training rows of each seed
_SAVED_EVERY = 256  # windows


class Windows(NamedTuple):
    """Lists the sequences to embed; a variant of several tissues is embedded once."""

    status: np.ndarray  # (rows,) of the table: ok, or why a row is left out
    contig: np.ndarray  # (windows,) numbers in the genome
    position: np.ndarray  # (windows,) of the variant, 0-based
    base: list[bytes]  # (windows,) what stands there
    pair: np.ndarray  # (rows, 2) the windows of a row: reference, alternative; -1 if left out


def find_windows(table: Table, genome: Genome, length: int) -> Windows:
    """Finds the windows of every row.

    A window has its variant at index length // 2 (0-based). Rows are left out, each with a status,
    where the window leaves its contig or has too many N (0.5 %), where the genome lacks the contig
    or has another base than REF, and where a variant is not a single base.

    Args:
        table: the variants.
        genome: their assembly.
        length: bases of a window.
    """
    contig = genome.contigs(table.chrom)
    lengths = np.where(contig >= 0, genome.lengths[contig], -1)
    start = table.position - length // 2
    status = place(start, start + length, lengths, edge="drop").status.astype("<U16")
    number: dict[tuple[int, int, bytes], int] = {}
    pair = np.full((len(status), 2), -1)
    several_n: dict[tuple[int, int], bool] = {}
    for row in np.flatnonzero(status == Status.OK).tolist():
        alt, known_ref = table.alt[row].upper(), table.ref[row].upper() if table.ref else None
        at = int(contig[row]), int(table.position[row])
        (ref,) = genome.bases(at[0], at[1], at[1] + 1).tobytes().decode()
        if known_ref is not None and known_ref != ref:
            status[row] = Status.REF_MISMATCH
        elif len(alt) != 1 or alt not in "ACGT" or ref not in "ACGT":
            status[row] = Status.AMBIGUOUS if len(alt) == 1 else Status.INDEL
        else:
            if at not in several_n:
                bases = genome.bases(at[0], int(start[row]), int(start[row]) + length)
                several_n[at] = (bases == ord("N")).sum() >= _MOST_N * length
            if several_n[at]:
                status[row] = TOO_MANY_N
                continue
            for column, base in enumerate((ref, alt)):
                key = (*at, base.encode())
                pair[row, column] = number.setdefault(key, len(number))
    keys = list(number)
    return Windows(
        status,
        np.array([key[0] for key in keys], np.int64),
        np.array([key[1] for key in keys], np.int64),
        [key[2] for key in keys],
        pair,
    )


def embed_windows(
    model: AnyModel,
    tokenizer: Tokenizer,
    genome: Genome,
    windows: Windows,
    folder: pathlib.Path,
    *,
    length: int,
    pooled: int,
    protocol: Protocol,
    batch_size: int | None = None,
) -> np.ndarray:
    """Computes the mean states around each variant, of both strands.

    What is done is kept in `folder` every 256 windows, and not computed again.

    Args:
        model: a pretrained model.
        tokenizer: the model's.
        genome: the genome that the windows lie on.
        windows: windows from `find_windows`.
        folder: gets states.npy and states.json.
        length: bases of a window.
        pooled: bases around the variant over which the mean is taken, an odd number.
        protocol: "paper" pools strand 1 of an equivariant model around the base before the
            variant, as the original does.
        batch_size: windows at once; by default chosen for the device.

    Returns:
        (windows, strands, d_model) float32, strand 1 in the channel order of strand 0.

    Raises:
        UserError: the folder holds states of other windows.
    """
    width = model.config.d_model
    made = {"length": length, "pooled": pooled, "protocol": protocol, "windows": len(windows.base)}
    states, done = _open_states(folder, (len(windows.base), 2, width), made)
    spans = window_spans(length, pooled, equivariant=model.config.rcps, protocol=protocol)

    def encoded(row: int) -> np.ndarray:
        """Returns ids of the window around a variant, with the variant's base."""
        start = int(windows.position[row]) - length // 2
        bases = genome.bases(int(windows.contig[row]), start, start + length).copy()
        bases[length // 2] = windows.base[row][0]
        return tokenizer.encode(bases.tobytes())

    for first in range(done, len(windows.base), _SAVED_EVERY):
        rows = np.arange(first, min(first + _SAVED_EVERY, len(windows.base)))

        def inputs(batch: Any, rows: np.ndarray = rows) -> tuple[np.ndarray, np.ndarray]:
            ids = np.stack([encoded(int(rows[i])) for i in batch.rows])
            return ids, np.tile(spans, (len(ids), 1, 1))

        for i, found in run(
            _window_means, model, plan(np.full(len(rows), length), batch_size), inputs
        ):
            states[rows[i]] = found
        if isinstance(states, np.memmap):
            states.flush()
        (folder / "states.json").write_text(json.dumps({**made, "done": int(rows[-1]) + 1}))
        log.info(f"embedded {rows[-1] + 1:,} of {len(windows.base):,} windows")
    return states


def window_spans(length: int, pooled: int, *, equivariant: bool, protocol: Protocol) -> np.ndarray:
    """Returns first and last + 1 index (0-based, + strand) to average over, per strand, (2, 2).

    Clamped to the window.
    """
    centre = np.array([length // 2, length // 2])
    if equivariant and protocol == "paper":
        # The original turns strand 1 around and takes the same indices there.
        centre[1] = length - 1 - length // 2
    start = centre - pooled // 2
    return np.clip(np.stack([start, start + pooled], axis=1), 0, length)


def _window_means(model: AnyModel, ids: jax.Array, spans: jax.Array) -> jax.Array:
    """Averages states over each strand's own span, (batch, 2, d_model)."""
    hidden, _ = model.caduceus(ids, None, both_strands=True)
    position = jnp.arange(ids.shape[1])[None, None]
    inside = (position >= spans[..., :1]) & (position < spans[..., 1:])
    summed = jnp.sum(jnp.where(inside[..., None], hidden.astype(jnp.float32), 0), axis=2)
    return summed / (spans[..., 1:] - spans[..., :1])


def _open_states(
    folder: pathlib.Path, shape: tuple[int, ...], made: dict[str, Any]
) -> tuple[np.ndarray, int]:
    path, described = folder / "states.npy", folder / "states.json"
    if path.exists() and described.exists():
        before = json.loads(described.read_text())
        done = before.pop("done")
        states = np.lib.format.open_memmap(path, mode="r+")
        if before != made or states.shape != shape:
            raise UserError(f"{folder} holds states of other windows: choose another folder")
        return states, done
    folder.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape), 0


def features(
    states: np.ndarray,
    table: Table,
    windows: Windows,
    *,
    strands: Sequence[int],
    protocol: Protocol,
) -> np.ndarray:
    """Builds one row of features for each row of the table that has its windows.

    Args:
        states: states from `embed_windows`.
        table: the variants.
        windows: windows from `find_windows`.
        strands: the strands to average: (0, 1), or (0,).
        protocol: "paper" gives the tissue as one number, its place in the alphabet; "clean" as
            zeros and a one.

    Returns:
        (rows that are ok, 2 * d_model + tissue): reference, alternative, tissue.
    """
    rows = np.flatnonzero(windows.status == Status.OK)
    means = np.asarray(states)[:, list(strands)].mean(axis=1)
    both = means[windows.pair[rows]].reshape(len(rows), -1)
    kinds, tissue = np.unique(table.tissue, return_inverse=True)
    coded = tissue[:, None] if protocol == "paper" else np.eye(len(kinds))[tissue]
    return np.concatenate([both, coded[rows]], axis=1).astype(np.float32)


def svm_auroc(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    seeds: Sequence[int],
    protocol: Protocol,
) -> dict[str, Any]:
    """Computes the AUROC of a support vector machine in one class of distances.

    "paper": for each penalty C in 1, 5, 10 and each seed 5,000 training rows are drawn (with
    replacement where there are fewer), the area is that of the predicted labels, and the C with the
    best mean on the test rows is reported. "clean": C is chosen by cross-validation in the training
    rows, all of them where there are fewer, and the area is that of the decision function.

    Args:
        train: features and labels (0 or 1).
        test: features and labels to test on.
        seeds: one result for each.
        protocol: "paper" or "clean".

    Returns:
        `mean`, `values` (by seed), `C` (of each seed, or the one), `train` and `test` (rows); a
        mean of NaN where a class is missing.
    """
    counts = {"train": len(train[1]), "test": len(test[1])}
    if any(len(np.unique(labels)) < 2 for _, labels in (train, test)):
        return {"mean": np.nan, "values": [], "C": None, **counts}
    found: dict[float, list[float]] = {strength: [] for strength in STRENGTHS}
    chosen, values = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        few = len(train[1]) < _ROWS
        size = min(_ROWS, len(train[1])) if protocol == "clean" else _ROWS
        rows = rng.choice(len(train[1]), size, replace=few and protocol == "paper")
        inputs, labels = train[0][rows], train[1][rows]
        if protocol == "paper":
            for strength in STRENGTHS:
                fitted = _machine(strength).fit(inputs, labels)
                found[strength].append(roc_auc_score(test[1], fitted.predict(test[0])))
        else:
            folds = max(2, min(5, np.bincount(labels).min()))
            grid = {"svc__C": STRENGTHS}
            search = GridSearchCV(_machine(1.0), grid, scoring="roc_auc", cv=folds)
            search.fit(inputs, labels)
            chosen.append(search.best_params_["svc__C"])
            values.append(roc_auc_score(test[1], search.decision_function(test[0])))
    if protocol == "paper":
        best = max(STRENGTHS, key=lambda strength: np.mean(found[strength]))
        chosen, values = best, found[best]
    values = [float(value) for value in values]
    return {"mean": float(np.mean(values)), "values": values, "C": chosen, **counts}


def _machine(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), SVC(C=strength, kernel="rbf"))


def in_bucket(distance: np.ndarray, name: str, protocol: Protocol) -> np.ndarray:
    """Tells which rows lie in a class of distances; "paper" counts its far end in too."""
    low, high = BUCKETS[name]
    below = distance <= high if protocol == "paper" else distance < high
    return (distance >= low) & below
