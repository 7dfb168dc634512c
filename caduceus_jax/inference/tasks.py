"""What a fine-tuned model answers for sequences: probabilities of classes, or values."""

import logging
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.inference.batches import Batch, plan, run
from caduceus_jax.inference.embeddings import sequence_lengths
from caduceus_jax.inference.loading import checked_tokenizer
from caduceus_jax.model import checkpoint
from caduceus_jax.model.files.task import KEY, TaskDescription
from caduceus_jax.model.heads import CaduceusForSequenceClassification
from caduceus_jax.model.typing import PaddingMask, TokenIds
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class TaskModel(NamedTuple):
    """A fine-tuned model with what its answers mean."""

    model: CaduceusForSequenceClassification
    tokenizer: Tokenizer
    task: TaskDescription
    names: tuple[str, ...]  # of the classes or values, in the order of the outputs


def load_task(path: str | pathlib.Path, *, dtype: Dtype = jnp.float32) -> TaskModel:
    """A model that `caduceus-jax finetune` wrote.

    Args:
        path: its folder, such as runs/splice/seed-1/model.
        dtype: of activations and matrix products: float32 or bfloat16.

    Raises:
        UserError: no fine-tuned model there, or one that predicts tracks or reads signals.
    """
    stored, _ = checkpoint.read(path)
    if not stored or KEY not in stored:
        raise UserError(
            f"{path} does not say what it was fine-tuned for: name a folder that caduceus-jax "
            "finetune wrote, such as runs/finetune/seed-1/model"
        )
    task = TaskDescription.of(stored)
    if task.kind == "tracks":
        raise UserError(
            f"{path} predicts tracks: read it in Python, with caduceus_jax.model.tracks."
            f"CaduceusForTracks.from_pretrained({str(path)!r}, bin_size={task.bin_size})"
        )
    model = CaduceusForSequenceClassification.from_pretrained(
        str(path), pooling=task.pooling, rc_mode=task.rc_mode, dtype=dtype
    )
    if model.signals is not None:
        raise UserError(
            f"{path} reads signals beside the sequence: use it in Python, with "
            "CaduceusForSequenceClassification"
        )
    labels = stored["id2label"]
    names = tuple(labels[str(i)] for i in range(len(labels)))
    return TaskModel(model, Tokenizer.from_pretrained(checkpoint.locate(path)), task, names)


def predict(
    tuned: TaskModel,
    sequences: Sequence[str | bytes],
    *,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Float[np.ndarray, "sequences outputs"]:
    """What a fine-tuned model answers.

    Args:
        tuned: see `load_task`.
        sequences: DNA, of any lengths; what is longer than the model was trained on loses its end,
            as it did there, and a notice says how many did.
        batch_size: sequences a batch; by default as many as the device keeps busy.
        show_progress: say on standard error how far it is.

    Returns:
        (sequences, outputs) float32: the probabilities of the classes, or the values.

    Raises:
        UserError: an empty sequence, or a tokenizer that is not the model's.
    """
    task, most = tuned.task, tuned.task.max_length
    tokenizer = checked_tokenizer(tuned.model, tuned.tokenizer, both_strands=True)
    lengths = sequence_lengths(sequences)
    if cut := int((lengths > most).sum()):
        log.info(
            f"{cut:,} of {len(lengths):,} sequences are longer than the {most:,} bases that the "
            "model was trained on: their ends are not read"
        )
    lengths = np.minimum(lengths, most)
    run_lengths = np.full_like(lengths, most) if task.padded else lengths

    def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray | None]:
        ids = np.full((len(batch.rows), batch.length), tokenizer.pad_id, np.int32)
        for i, row in enumerate(batch.rows.tolist()):
            tokens = tokenizer.encode(sequences[row][: int(lengths[row])])
            ids[i, slice(-len(tokens), None) if task.padded else slice(len(tokens))] = tokens
        if task.padded:
            return ids, None
        return ids, np.arange(batch.length) < lengths[batch.rows][:, None]

    outputs = np.empty((len(sequences), len(tuned.names)), np.float32)
    results = run(_logits, tuned.model, plan(run_lengths, batch_size), inputs)
    if show_progress:
        results = track(results, total=len(sequences), what="predicting", unit="sequences")
    for row, values in results:
        outputs[row] = values
    if task.kind == "classification":
        return np.asarray(jax.nn.softmax(outputs, axis=1))
    return outputs * np.asarray(task.scale, np.float32) + np.asarray(task.centre, np.float32)


def _logits(
    model: CaduceusForSequenceClassification, ids: TokenIds, mask: PaddingMask | None
) -> jax.Array:
    return model(ids, mask).logits
