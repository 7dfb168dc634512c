"""A model with its tokenizer, and which strands it reads."""

import os
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
from flax.typing import Dtype

from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.heads import CaduceusForMaskedLM, CaduceusForSequenceClassification
from caduceus_jax.model.tracks import CaduceusForTracks
from caduceus_jax.tokenizer import Tokenizer

AnyModel = CaduceusForMaskedLM | CaduceusForSequenceClassification | CaduceusForTracks

# none: the strand as given alone. posthoc: a model that is not equivariant reads both strands, and
# what it makes of them is averaged ("post-hoc conjoining", Schiff et al. 2024, section 4.2).
# equivariant: an equivariant model, which reads both strands by construction.
RcMode = Literal["none", "posthoc", "equivariant"]


class Pretrained(NamedTuple):
    """A model with its tokenizer, as `load` returns them and every verb of genomics takes them.

    Attributes:
        model: a language model, a classifier or a track model.
        tokenizer: the tokenizer of the sequences that the model reads.
    """

    model: AnyModel
    tokenizer: Tokenizer


AnyPretrained = Pretrained | AnyModel | str | os.PathLike[str]


def load(path: str | os.PathLike[str], dtype: Dtype = jnp.float32) -> Pretrained:
    """Loads a model of any kind, with its own tokenizer.

    Args:
        path: a Hugging Face folder (`config.json` with weights), the folder of a pretraining run
            or of a fine-tuned model, a Lightning `.ckpt`, or a hub id such as owner/name.
        dtype: type of activations and matrix products: float32 or bfloat16.

    Returns:
        The model: a language model, or a classifier or track model where the weights have such a
        head; and the tokenizer.

    Raises:
        UserError: nothing usable at `path`.
    """
    stored: Any = checkpoint.open_model(path)
    if "score" not in stored.state:
        model = CaduceusForMaskedLM.from_pretrained(stored, dtype=dtype)
    elif stored.task is not None and stored.task.kind == "tracks":
        model = CaduceusForTracks.from_pretrained(stored, dtype=dtype)
    else:
        model = CaduceusForSequenceClassification.from_pretrained(stored, dtype=dtype)
    return Pretrained(model, model.tokenizer or Tokenizer())


def as_pretrained(m: AnyPretrained) -> Pretrained:
    """Returns a model with its tokenizer, of whatever a caller has.

    Args:
        m: model from `load`; a model alone, which comes with its own tokenizer or the original's;
            or a path, hub id or short name for `load`.

    Raises:
        UserError: nothing usable at a path.
    """
    if isinstance(m, Pretrained):
        return m
    if isinstance(m, str | os.PathLike):
        return load(m)
    return Pretrained(m, getattr(m, "tokenizer", None) or Tokenizer())


def checked_tokenizer(
    model: AnyModel, tokenizer: Tokenizer | None, *, both_strands: bool
) -> Tokenizer:
    """Checks that a tokenizer has the alphabet that the model was made for."""
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


def resolve_rc_mode(config: CaduceusConfig, rc_mode: str | None, *, scores: bool) -> RcMode:
    """Chooses how strands are read, or checks what was chosen.

    Args:
        config: the model's architecture.
        rc_mode: None chooses by the model: "equivariant" or "posthoc".
        scores: the model's predictions are needed, which of an equivariant model are made of both
            strands; otherwise its hidden states, of which one strand's can be had.

    Raises:
        UserError: an unknown mode, or one that contradicts the model.
    """
    if rc_mode is None:
        return "equivariant" if config.rcps else "posthoc"
    if rc_mode not in get_args(RcMode):
        raise UserError(f"rc_mode is {rc_mode!r}; it is one of: {', '.join(get_args(RcMode))}")
    if config.rcps and rc_mode == "posthoc":
        raise UserError(
            "rc_mode is 'posthoc', which contradicts an equivariant model (rcps): it reads both "
            "strands already, leave rc_mode out"
        )
    if config.rcps and rc_mode == "none" and scores:
        raise UserError(
            "rc_mode is 'none', which contradicts an equivariant model (rcps): its predictions are "
            "made of both strands, leave rc_mode out"
        )
    if not config.rcps and rc_mode == "equivariant":
        raise UserError(
            "rc_mode is 'equivariant', which contradicts a model that is not equivariant (rcps): "
            "use 'posthoc', which averages both strands, or 'none'"
        )
    return rc_mode  # pyright: ignore[reportReturnType]
