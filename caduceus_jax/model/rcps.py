"""Reverse-complement equivariance by parameter sharing (Schiff et al. 2024, section 3.2).

Inside the backbone both strands are an axis: `(batch, strand, length, d_model)`, each in the +
strand's coordinates and in the same channel order. The original puts them side by side instead,
the second one with its channels reversed; only this file knows that layout.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Float

from caduceus_jax.model.typing import Hidden, Strands, TokenIds


def embed_strands(
    embedding: Float[jax.Array, "vocab d_model"], input_ids: TokenIds, complement: jax.Array | None
) -> Strands:
    """Embeds each base on strand 0 and, where `complement` is given, its complement on strand 1."""
    if complement is None:
        return embedding[input_ids][:, None]
    return embedding[jnp.stack([input_ids, complement[input_ids]], axis=1)]


def strand_logits(
    hidden: Strands, weight: Float[jax.Array, "vocab d_model"], complement: jax.Array
) -> Float[jax.Array, "batch strand length vocab"]:
    """Each strand's logits for the + strand's tokens: strand 1 votes for the complement."""
    weights = jnp.stack([weight, weight[complement]])[: hidden.shape[1]]
    return jnp.einsum("bsld,svd->bslv", hidden.astype(jnp.float32), weights, precision="highest")


def swap_strands(hidden: Strands) -> Strands:
    """What the original's fused add + norm reads: the other strand, channels reversed."""
    return jnp.flip(hidden, axis=(1, 3))


def to_original_layout(hidden: Strands) -> Hidden:
    """(batch, strand, length, d_model) -> (batch, length, strand * d_model)."""
    if hidden.shape[1] == 1:
        return hidden[:, 0]
    return jnp.concatenate([hidden[:, 0], jnp.flip(hidden[:, 1], axis=-1)], axis=-1)


def from_original_layout(hidden: Hidden, strands: int) -> Strands:
    """(batch, length, strand * d_model) -> (batch, strand, length, d_model)."""
    halves = rearrange(hidden, "b l (s d) -> s b l d", s=strands)
    return jnp.stack([halves[0], *(jnp.flip(half, axis=-1) for half in halves[1:])], axis=1)
