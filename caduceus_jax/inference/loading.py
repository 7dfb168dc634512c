"""A model with the tokenizer that belongs to it."""

import pathlib

import jax.numpy as jnp
from flax.typing import Dtype

from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint
from caduceus_jax.model.heads import CaduceusForMaskedLM, CaduceusForSequenceClassification
from caduceus_jax.tokenizer import Tokenizer

AnyModel = CaduceusForMaskedLM | CaduceusForSequenceClassification


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


def checked_tokenizer(
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
