"""Reverse-complement equivariance by parameter sharing (Schiff et al. 2024, section 3.2).

Inside the backbone both strands are an axis: `(batch, strand, length, d_model)`, each in the +
strand's coordinates and in the same channel order. The original puts them side by side instead,
the second one with its channels reversed; only this file knows that layout.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Float

from caduceus_jax.model.typing import Hidden, Strands, TokenIds


def embed_strands(
    embedding: Float[jax.Array, "vocab d_model"], input_ids: TokenIds, complement: jax.Array | None
) -> Strands:
    """Embeds each base on strand 0 and, where `complement` is given, its complement on strand 1.

    A token id beyond the table gives NaN, where an index of JAX would take the nearest row.
    """
    ids = input_ids[:, None]
    if complement is not None:
        other = complement.at[ids].get(mode="clip", wrap_negative_indices=False)
        ids = jnp.concatenate([ids, other.astype(ids.dtype)], axis=1)
    return embedding.at[ids].get(mode="fill", wrap_negative_indices=False)


def mix_strands(
    embedding: Float[jax.Array, "vocab d_model"],
    one_hot: Float[jax.Array, "batch length tokens"],
    tokens: np.ndarray,
    complement: jax.Array | None,
) -> Strands:
    """Embeds weights of tokens in place of tokens; both strands are linear in them.

    Args:
        embedding: (vocab, d_model).
        one_hot: (batch, length, tokens), the weight of each token at each position.
        tokens: id of each column.
        complement: complement of each token id, (vocab,); None where one strand is read.

    Returns:
        (batch, strand, length, d_model); strand 1 gets the complements' embeddings.
    """
    ids = jnp.asarray(tokens)[None]
    if complement is not None:
        ids = jnp.concatenate([ids, complement[ids]])
    weights = one_hot.astype(embedding.dtype)
    return jnp.einsum("blt,std->bsld", weights, embedding[ids], precision="highest")


def strand_logits(
    hidden: Strands, weight: Float[jax.Array, "vocab d_model"], complement: jax.Array
) -> Float[jax.Array, "batch strand length vocab"]:
    """Computes each strand's logits for the + strand's tokens: strand 1 votes for complements."""
    weights = jnp.stack([weight, weight[complement]])[: hidden.shape[1]]
    return jnp.einsum("bsld,svd->bslv", hidden.astype(jnp.float32), weights, precision="highest")


def swap_strands(hidden: Strands) -> Strands:
    """Returns what the original's fused add + norm reads: the other strand, channels reversed."""
    return jnp.flip(hidden, axis=(1, 3))


def to_original_layout(hidden: Strands) -> Hidden:
    """Lays strands side by side: (batch, strand, length, d_model) -> (batch, length, hidden)."""
    if hidden.shape[1] == 1:
        return hidden[:, 0]
    return jnp.concatenate([hidden[:, 0], jnp.flip(hidden[:, 1], axis=-1)], axis=-1)


def from_original_layout(hidden: Hidden, strands: int) -> Strands:
    """Makes strands an axis: (batch, length, hidden) -> (batch, strand, length, d_model)."""
    halves = rearrange(hidden, "b l (s d) -> s b l d", s=strands)
    return jnp.stack([halves[0], *(jnp.flip(half, axis=-1) for half in halves[1:])], axis=1)
