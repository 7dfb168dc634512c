"""The Caduceus backbone: embedding, blocks, final norm (Schiff et al. 2024, section 4)."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import causal_conv1d, selective_scan, sequence_parallel
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.mamba import BiMamba, Conv, Scan, UniMamba, UntiedBiMamba
from caduceus_jax.model.rcps import embed_strands, swap_strands
from caduceus_jax.model.typing import PaddingMask, Strands, TokenIds

BlockInputs = Float[Array, "layer batch strand length d_model"]


class Block(nnx.Module):
    """Add, norm, mix (Gu & Dao 2023, figure 3)."""

    def __init__(
        self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, conv: Conv, rngs: nnx.Rngs
    ):
        self.swap = config.strand_swap
        self.norm = _norm(config, dtype=dtype, rngs=rngs)
        if not config.bidirectional:
            mixer = UniMamba
        else:
            mixer = BiMamba if config.bidirectional_weight_tie else UntiedBiMamba
        self.mixer = mixer(config, dtype=dtype, scan=scan, conv=conv, rngs=rngs)

    def __call__(
        self, residual: Strands, padding_mask: PaddingMask | None = None
    ) -> tuple[Strands, Strands]:
        """Returns the residual stream with the mixer's output added, and that output alone."""
        if self.swap:
            residual = swap_strands(residual)
        mixed = self.mixer(self.norm(residual), padding_mask)
        return residual + mixed.astype(residual.dtype), mixed


class Caduceus(nnx.Module):
    """Embedding, blocks, final norm. The blocks' parameters are stacked along a leading layer axis.

    Args:
        config: the architecture.
        dtype: of activations and matrix products: float32 or bfloat16.
        remat: keep only each block's input for the backward pass and compute the block again.
        scan: the selective scan; training passes a sharded one.
        conv: the causal convolution; likewise.
        rngs: draws the parameters.
    """

    def __init__(
        self,
        config: CaduceusConfig,
        *,
        dtype: Dtype = jnp.float32,
        remat: bool = False,
        scan: Scan = selective_scan,
        conv: Conv = causal_conv1d,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype, self.remat = config, jnp.dtype(dtype), remat
        if self.dtype not in (jnp.float32, jnp.bfloat16):
            raise UserError(f"dtype is {self.dtype}; a model computes in float32 or bfloat16")
        shape = (config.vocab_size, config.d_model)
        self.embedding = nnx.Param(
            config.initializer_range * jax.random.normal(rngs.params(), shape)
        )

        def block(key):
            return Block(config, dtype=dtype, scan=scan, conv=conv, rngs=nnx.Rngs(key))

        self.layers: Block = jax.vmap(block)(jax.random.split(rngs.params(), config.n_layer))
        self.norm_f = _norm(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        input_ids: TokenIds,
        padding_mask: PaddingMask | None = None,
        *,
        output_hidden_states: bool = False,
        both_strands: bool = False,
        n_blocks: int | None = None,
        added: Float[jax.Array, "batch length d_model"] | None = None,
    ) -> tuple[Strands, BlockInputs | None]:
        """Runs the blocks.

        Args:
            input_ids: (batch, length) token ids.
            padding_mask: (batch, length) bool, True on real tokens.
            output_hidden_states: also return each block's input.
            both_strands: read the reverse complement too where the model is not equivariant:
                strand 1 is then what the model makes of the other strand, in the + strand's
                coordinates.
            n_blocks: run only the first ones, followed by the final norm; by default all.
            added: what else is known of each position, added to the embeddings of both strands.

        Returns:
            The final state (batch, strand, length, d_model), and None or the blocks' inputs
            (n_layer, batch, strand, length, d_model).
        """
        other = complement(self.config) if self.config.rcps or both_strands else None
        # Rounded after the look-up: the gradient of a token is summed over all places where it
        # occurs, and in bfloat16 such a sum stops growing after some hundred of them.
        hidden = embed_strands(self.embedding[...], input_ids, other)
        if added is not None:
            hidden = hidden + jnp.broadcast_to(added[:, None], hidden.shape)
        embedded = hidden.astype(self.dtype)

        # Only the sum is carried, as the original's pair of it and the newest output would be kept
        # for the backward pass of every block.
        def layer(residual: Strands, block: Block):
            residual, mixed = block(residual, padding_mask)
            return residual, mixed if output_hidden_states else None

        if self.remat:
            # What other devices have sent is small: it is kept, and not sent again.
            policy = jax.checkpoint_policies.save_only_these_names(sequence_parallel.RECEIVED)
            layer = jax.checkpoint(layer, policy=policy)
        layers = self.layers
        if n_blocks is not None:
            layers = jax.tree.map(lambda stacked: stacked[:n_blocks], layers)
        residual_dtype = jnp.float32 if self.config.residual_in_fp32 else self.dtype
        residual, outputs = jax.lax.scan(layer, embedded.astype(residual_dtype), layers)
        if outputs is None:
            return self.norm_f(residual), None
        return self.norm_f(residual), jnp.concatenate([embedded[None], outputs[:-1]])


def _norm(config: CaduceusConfig, *, dtype: Dtype, rngs: nnx.Rngs) -> nnx.RMSNorm | nnx.LayerNorm:
    norm = nnx.RMSNorm if config.rms_norm else nnx.LayerNorm
    return norm(
        config.d_model,
        epsilon=config.norm_epsilon,
        dtype=dtype,
        use_fast_variance=False,
        rngs=rngs,
    )


def complement(config: CaduceusConfig) -> jax.Array:
    """Complement of each token id, (vocab,)."""
    return jnp.asarray(config.complement_map)
