"""Forward passes over many sequences: embeddings and masked log-probabilities.

Every sequence comes out in the place it went in. Sequences run in batches of few shapes, each
compiled once, on all local devices where a batch divides among them; padding is masked, so that a
result depends neither on the batch nor on the other sequences in it.

Both strands count. Caduceus-PS reads both by construction; other models are run on both, and what
they make of the second strand is kept in the + strand's coordinates: nothing is ever flipped.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax.typing import Dtype
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from caduceus_jax import checkpoint
from caduceus_jax.errors import UserError
from caduceus_jax.model import CaduceusForMaskedLM, CaduceusForSequenceClassification
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.typing import PaddingMask, TokenIds

Pooling = Literal["mean", "center"]
StrandMode = Literal["average", "concatenate", "forward"]
AnyModel = CaduceusForMaskedLM | CaduceusForSequenceClassification
AnySequence = str | bytes | np.ndarray

# Tokens of a batch on each device when the caller names no batch size. A CPU core is fastest with
# what its cache holds; an accelerator needs many to be busy, and a large model still fits.
_TOKENS_A_DEVICE = {"cpu": 1_024}
_TOKENS_A_DEVICE_ELSEWHERE = 65_536
_SHORTEST_BUCKET = 32


@runtime_checkable
class TokenRows(Protocol):
    """Rows of token ids, all of one length: an array, or what makes them when they are needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, length)."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """The token ids (k, length) of the k row numbers `rows`."""
        ...


class _Batch(NamedTuple):
    """Which sequences run together."""

    rows: np.ndarray  # their numbers; at most `size`
    size: int  # rows that are run
    length: int  # tokens that are run of each


def load(
    path: str | pathlib.Path, *, dtype: Dtype = jnp.float32
) -> tuple[CaduceusForMaskedLM, Tokenizer]:
    """A language model and the tokenizer that belongs to it.

    Args:
        path: as for `CaduceusForMaskedLM.from_pretrained`.
        dtype: of activations and matrix products: float32 or bfloat16.

    Raises:
        UserError: nothing usable at `path`.
    """
    model = CaduceusForMaskedLM.from_pretrained(str(path), dtype=dtype)
    file = pathlib.Path(path)
    folder = file.parent if file.is_file() else checkpoint.locate(path)
    return model, Tokenizer.from_pretrained(folder)


def embed(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    pooling: Pooling = "mean",
    strands: StrandMode = "average",
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Float[np.ndarray, "sequences channels"]:
    """One vector a sequence: the final hidden states, pooled.

    Args:
        model: any model with a Caduceus backbone.
        sequences: DNA, or token ids (length,); of any lengths.
        tokenizer: of the model; the original's by default.
        pooling: "mean" over the sequence, or the "center" token: index length // 2, 0-based.
        strands: "average" of both strands, both side by side ("concatenate": strand 1's channels
            are in the order of strand 0's), or the strand given alone ("forward"). The average of
            mean-pooled states is the same for a sequence and its reverse complement.
        batch_size: sequences a batch; by default as many as the device keeps busy.
        show_progress: say on standard error how far it is.

    Returns:
        (sequences, d_model) float32; (sequences, 2 * d_model) for "concatenate".

    Raises:
        UserError: an unknown option, an empty sequence, or a tokenizer that is not the model's.
    """
    _check_choice("pooling", pooling, get_args(Pooling))
    channels = model.config.d_model * (2 if strands == "concatenate" else 1)
    embeddings = np.empty((len(sequences), channels), np.float32)
    for row, pooled in _embed(
        model, sequences, tokenizer, pooling, strands, batch_size, show_progress
    ):
        embeddings[row] = pooled
    return embeddings


def embed_tokens(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    strands: StrandMode = "average",
    batch_size: int | None = None,
    show_progress: bool = False,
) -> list[Float[np.ndarray, "length channels"]]:
    """One vector a token: the final hidden states of each sequence.

    Args:
        model: as for `embed`.
        sequences: as for `embed`.
        tokenizer: as for `embed`.
        strands: as for `embed`; position i of either strand is base i, 0-based, of the sequence.
        batch_size: as for `embed`.
        show_progress: as for `embed`.

    Returns:
        (length, d_model) float32 for each sequence; (length, 2 * d_model) for "concatenate".

    Raises:
        UserError: as for `embed`.
    """
    states: list[Any] = [None] * len(sequences)
    for row, tokens in _embed(
        model, sequences, tokenizer, None, strands, batch_size, show_progress
    ):
        states[row] = tokens[: len(sequences[row])].copy()
    return states


def masked_log_probabilities(
    model: CaduceusForMaskedLM,
    ids: TokenRows,
    positions: Int[np.ndarray, " rows"],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Float[np.ndarray, "rows 4"]:
    """What the model expects at one masked position of each sequence.

    Caduceus-PS sums both strands' logits; of any other model the log-probabilities of both strands
    are averaged ("post-hoc conjoining", Schiff et al. 2024).

    Args:
        model: a masked language model.
        ids: (rows, length) token ids.
        positions: (rows,) index of the token that is masked, 0-based.
        tokenizer: of the model; the original's by default.
        batch_size: sequences a batch; by default as many as the device keeps busy.
        show_progress: say on standard error how far it is.

    Returns:
        (rows, 4) float32 natural logarithms for A, C, G and T, normalised over the vocabulary.

    Raises:
        UserError: a position outside its sequence, or a tokenizer that is not the model's.
    """
    rows, length = ids.shape
    tokenizer = _checked_tokenizer(model, tokenizer, both_strands=True)
    if len(positions) != rows or (rows and not 0 <= positions.min() <= positions.max() < length):
        raise UserError(f"positions must be {rows} indices from 0 to {length - 1}, one a sequence")
    batches = _plan(np.full(rows, length), batch_size)

    def inputs(batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(ids[batch.rows], np.int32), positions[batch.rows].astype(np.int32)

    results = _run(
        _masked_batch,
        model,
        batches,
        inputs,
        mask_id=tokenizer.mask_id,
        base_ids=tokenizer.base_ids,
    )
    if show_progress:
        results = track(results, total=rows, what="scoring", unit="positions")
    log_probabilities = np.empty((rows, 4), np.float32)
    for row, values in results:
        log_probabilities[row] = values
    return log_probabilities


def _embed(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    tokenizer: Tokenizer | None,
    pooling: Pooling | None,
    strands: StrandMode,
    batch_size: int | None,
    show_progress: bool,
) -> Iterable[tuple[int, np.ndarray]]:
    """(number, result) of each sequence, in the order in which they are computed."""
    _check_choice("strands", strands, get_args(StrandMode))
    tokenizer = _checked_tokenizer(model, tokenizer, both_strands=strands != "forward")
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if not lengths.all():
        raise UserError(f"sequence {int(lengths.argmin())} (0-based) is empty")

    def inputs(batch: _Batch) -> tuple[np.ndarray, np.ndarray | None]:
        ids = np.full((len(batch.rows), batch.length), tokenizer.pad_id, np.int32)
        for i, row in enumerate(batch.rows):
            sequence = sequences[row]
            encoded = sequence if isinstance(sequence, np.ndarray) else tokenizer.encode(sequence)
            ids[i, : len(encoded)] = encoded
        real = np.arange(batch.length) < lengths[batch.rows][:, None]
        # No mask where nothing is padded: models have a faster path for that.
        return ids, None if len(np.unique(lengths)) == 1 else real

    batches = _plan(lengths, batch_size)
    results = _run(_embed_batch, model, batches, inputs, pooling=pooling, strands=strands)
    if show_progress:
        results = track(results, total=len(sequences), what="embedding", unit="sequences")
    return results


def _embed_batch(
    model: AnyModel,
    ids: TokenIds,
    padding_mask: PaddingMask | None,
    *,
    pooling: Pooling | None,
    strands: StrandMode,
) -> jax.Array:
    hidden, _ = model.caduceus(ids, padding_mask, both_strands=strands != "forward")
    hidden = hidden.astype(jnp.float32)
    if strands == "average":
        hidden = hidden.mean(axis=1)
    elif strands == "concatenate":
        hidden = rearrange(hidden, "b s l d -> b l (s d)")
    else:
        hidden = hidden[:, 0]
    if pooling is None:
        return hidden
    real = jnp.ones(ids.shape, bool) if padding_mask is None else padding_mask
    if pooling == "mean":
        return jnp.mean(hidden, axis=1, where=real[:, :, None])
    # Padding is on the right.
    return hidden[jnp.arange(len(ids)), real.sum(axis=1) // 2]


def _masked_batch(
    model: CaduceusForMaskedLM,
    ids: TokenIds,
    positions: Int[jax.Array, " batch"],
    *,
    mask_id: int,
    base_ids: tuple[int, ...],
) -> Float[jax.Array, "batch 4"]:
    rows, rcps = jnp.arange(len(ids)), model.config.rcps
    masked = ids.at[rows, positions].set(mask_id)
    hidden, _ = model.caduceus(masked, both_strands=not rcps)
    logits = model.head(hidden[rows, :, positions][:, :, None])[:, :, 0]
    if rcps:
        logits = logits.sum(axis=1, keepdims=True)
    return jax.nn.log_softmax(logits).mean(axis=1)[:, jnp.array(base_ids)]


def _plan(lengths: np.ndarray, batch_size: int | None) -> list[_Batch]:
    """Batches of few shapes, the longest sequences first: what does not fit fails at once."""
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    same = len(np.unique(lengths)) == 1
    buckets = (
        lengths if same else np.array([_bucket(length) for length in lengths.tolist()], np.int64)
    )
    batches = []
    for length in np.unique(buckets)[::-1].tolist():
        rows = np.flatnonzero(buckets == length)
        size = min(batch_size or _default_size(length), 1 << (len(rows) - 1).bit_length())
        batches += [_Batch(rows[i : i + size], size, length) for i in range(0, len(rows), size)]
    return batches


def _bucket(length: int) -> int:
    """The next of 32, 48, 64, 96, 128, ...: from 32 up at most a third of a row is padding."""
    power = max(1 << (length - 1).bit_length(), _SHORTEST_BUCKET)
    return power * 3 // 4 if length <= power * 3 // 4 and power > _SHORTEST_BUCKET else power


def _default_size(length: int) -> int:
    tokens = _TOKENS_A_DEVICE.get(jax.default_backend(), _TOKENS_A_DEVICE_ELSEWHERE)
    return max(1, tokens // length) * jax.local_device_count()


def _run(
    forward: Callable[..., jax.Array],
    model: AnyModel,
    batches: list[_Batch],
    inputs: Callable[[_Batch], tuple],
    **static: Any,
) -> Iterator[tuple[int, np.ndarray]]:
    """(number, result) of every sequence of every batch; the host prepares while devices work."""
    placed: dict[tuple, AnyModel] = {}
    running: tuple[_Batch, jax.Array] | None = None
    for batch in batches:
        devices = tuple(jax.local_devices())
        devices = devices if batch.size % len(devices) == 0 else devices[:1]
        compiled, replicated, split = _compiled(forward, devices, **static)
        if devices not in placed:
            placed[devices] = jax.device_put(model, replicated)
        # Rows that only fill the last batch repeat its first one.
        fill = np.resize(np.arange(len(batch.rows)), batch.size)
        arguments = jax.device_put(jax.tree.map(lambda x: x[fill], inputs(batch)), split)  # noqa: B023
        started = batch, compiled(placed[devices], *arguments)
        if running is not None:
            yield from _rows(*running)
        running = started
    if running is not None:
        yield from _rows(*running)


def _rows(batch: _Batch, results: jax.Array) -> Iterator[tuple[int, np.ndarray]]:
    # Rows that fill the batch stay behind: there are more results than rows.
    return zip(batch.rows.tolist(), np.asarray(results), strict=False)


@functools.lru_cache
def _compiled(forward: Callable[..., jax.Array], devices: tuple[Any, ...], **static: Any):
    """The jitted forward pass, and how its model and its inputs are placed on the devices."""
    # Every device runs its rows on its own: kernels never see a mesh, and nothing is communicated.
    mesh = jax.make_mesh((len(devices),), ("batch",), (AxisType.Auto,), devices=devices)
    replicated, split = PartitionSpec(), PartitionSpec("batch")
    mapped = jax.shard_map(
        functools.partial(forward, **static),
        mesh=mesh,
        in_specs=(replicated, split, split),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(mapped), NamedSharding(mesh, replicated), NamedSharding(mesh, split)


def _checked_tokenizer(
    model: AnyModel, tokenizer: Tokenizer | None, *, both_strands: bool
) -> Tokenizer:
    """The tokenizer, or an error where its alphabet is not the one the model was made for."""
    tokenizer, config = tokenizer or Tokenizer(), model.config
    if max(tokenizer.base_ids) >= config.vocab_size:
        raise UserError(
            f"the tokenizer's ids reach {max(tokenizer.base_ids)} and the model has "
            f"{config.vocab_size} tokens: use the tokenizer of the model's folder"
        )
    complements = [config.complement_map[i] for i in tokenizer.base_ids]
    if both_strands and tuple(complements) != tokenizer.base_ids[::-1]:
        raise UserError(
            "the model's complement_map does not pair A with T and C with G as its tokenizer "
            "numbers them, so that its second strand is unknown: correct complement_map in "
            "config.json, or use the tokenizer of the model's folder"
        )
    return tokenizer


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}; it is one of: {', '.join(choices)}")
