"""The Caduceus backbone: embedding, blocks, final norm (Schiff et al. 2024, section 4)."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import scan_inputs, selective_scan, sequence_parallel
from caduceus_jax.model import checkpoint, inputs
from caduceus_jax.model.checkpoint import Source
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.locate import Path
from caduceus_jax.model.inputs import ArrayInput
from caduceus_jax.model.mamba import (
    CONVOLUTION,
    SCANNED,
    BiMamba,
    Conv,
    Scan,
    UniMamba,
    UntiedBiMamba,
    take,
)
from caduceus_jax.model.pretrained import PretrainedModel, build
from caduceus_jax.model.rcps import swap_strands, to_original_layout
from caduceus_jax.model.typing import Hidden, PaddingMask, Places, SegmentIds, Strands, StrandsAt
from caduceus_jax.tokenizer import Tokenizer

# What is computed again in the backward pass: nothing, blocks, or blocks without their scans.
Remat: TypeAlias = bool | Literal["scans"]
BlockInputs = Float[Array, "layer batch strand length d_model"]


class Block(nnx.Module):
    """Normalises the residual stream, mixes it and adds the result (Gu & Dao 2023, figure 3)."""

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
        self,
        residual: Strands,
        padding_mask: PaddingMask | None = None,
        segment_ids: SegmentIds | None = None,
    ) -> tuple[Strands, Strands]:
        """Returns the residual stream with the mixer's output added, and that output alone."""
        if self.swap:
            residual = swap_strands(residual)
        mixed = self.mixer(self.norm(residual), padding_mask, segment_ids)
        return residual + mixed.astype(residual.dtype), mixed

    def at(self, residual: Strands, positions: Places, within: tuple[int, int]) -> StrandsAt:
        """Returns the residual stream that a call returns, at a few positions (`BiMamba.at`)."""
        if not isinstance(self.mixer, BiMamba):  # released models are all of this kind
            return take(self(residual)[0], positions)
        if self.swap:
            residual = swap_strands(residual)
        mixed = self.mixer.at(self.norm(residual), positions, within)
        return take(residual, positions) + mixed.astype(residual.dtype)


class CaduceusOutput(NamedTuple):
    """Holds what the backbone returns."""

    state: Strands  # (batch, strand, length, d_model), after the final norm
    block_inputs: BlockInputs | None  # (n_layer, batch, strand, length, d_model)

    @property
    def last_hidden_state(self) -> Hidden:
        """Returns the final state as the original lays it out, (batch, length, hidden)."""
        return to_original_layout(self.state)


class Caduceus(PretrainedModel):
    """Embeds, runs blocks and a final norm; blocks are stacked along a leading layer axis.

    Args:
        config: the architecture.
        dtype: type of activations and matrix products: float32 or bfloat16.
        remat: True keeps only each block's input for the backward pass and computes the block
            again; "scans" also keeps what its scans returned, d_inner numbers per token and strand,
            and runs no scan again.
        scan: the selective scan; training passes a sharded one.
        conv: the causal convolution; training passes a sharded one.
        tokenizer: tokenizer of the sequences that the model is for; by default the original's, if
            the config fits it.
        both_strands: read the reverse complement too, by default, where the model is not
            equivariant.
        rngs: draws the parameters.
    """

    def __init__(
        self,
        config: CaduceusConfig,
        *,
        dtype: Dtype = jnp.float32,
        remat: Remat = False,
        scan: Scan = selective_scan,
        conv: Conv = CONVOLUTION,
        tokenizer: Tokenizer | None = None,
        both_strands: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype, self.remat = config, jnp.dtype(dtype), remat
        self.both_strands = both_strands
        self.tokenizer = tokenizer or Tokenizer.of_config(config)
        if self.dtype not in (jnp.float32, jnp.bfloat16):
            raise UserError(f"dtype is {self.dtype}; a model computes in float32 or bfloat16")
        shape = (config.vocab_size, config.d_model)
        self.embedding = nnx.Param(
            config.initializer_range * jax.random.normal(rngs.params(), shape, jnp.float32)
        )

        def block(key: jax.Array) -> Block:
            return Block(config, dtype=dtype, scan=scan, conv=conv, rngs=nnx.Rngs(key))

        self.layers: Block = jax.vmap(block)(jax.random.split(rngs.params(), config.n_layer))
        self.norm_f = _norm(config, dtype=dtype, rngs=rngs)
        # Training that splits parameters over devices sets what puts one layer's together.
        self.gather: Callable[[Block], Block] | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: Source,
        *,
        dtype: Dtype = jnp.float32,
        remat: Remat = False,
        scan: Scan = selective_scan,
        conv: Conv = CONVOLUTION,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | None = None,
        base: Path | None = None,
    ) -> "Caduceus":
        """Loads the backbone of any model; its head is left out.

        Args:
            path: a folder, a run, a file of weights or a hub id, as for
                `CaduceusForMaskedLM.from_pretrained`.
            dtype: type of activations and matrix products: float32 or bfloat16.
            remat: keep only each block's input for the backward pass.
            scan: the selective scan.
            conv: the causal convolution.
            revision: branch, tag or commit of the hub's repository; the newest by default.
            token: access token of the hub; by default that of the account that is logged in.
            cache_dir: folder for downloads; by default Hugging Face's own cache.
            base: the model that a low-rank adapter (PEFT's LoRA) at `path` is merged into; by
                default the one that its adapter_config.json names.

        Raises:
            UserError: nothing usable at `path`, or names and shapes that do not fit.
        """
        stored = checkpoint.open_model(
            path, revision=revision, token=token, cache_dir=cache_dir, base=base
        )
        return build(
            lambda: cls(
                stored.config,
                dtype=dtype,
                remat=remat,
                scan=scan,
                conv=conv,
                tokenizer=stored.tokenizer,
                rngs=nnx.Rngs(0),
            ),
            stored,
        )

    def __call__(
        self,
        input_ids: ArrayInput | None = None,
        padding_mask: ArrayInput | None = None,
        *,
        inputs_one_hot: ArrayInput | None = None,
        inputs_embeds: ArrayInput | None = None,
        segment_ids: ArrayInput | None = None,
        output_hidden_states: bool = False,
        both_strands: bool | None = None,
        n_blocks: int | None = None,
        added: Float[jax.Array, "batch length d_model"] | None = None,
    ) -> CaduceusOutput:
        """Runs the blocks.

        Args:
            input_ids: (batch, length) token ids.
            padding_mask: (batch, length) bool, True on real tokens.
            inputs_one_hot: (batch, length, 4) weights of A, C, G, T in place of token ids, or
                (batch, length, vocab) of all tokens; the model is linear in them up to its first
                norm, and strand 1 reads the complements with the same weights.
            inputs_embeds: (batch, length, d_model) embeddings in place of token ids, 2 * d_model
                with rcps, as the original lays them out.
            segment_ids: (batch, length) integers, one per sequence packed into a row: each
                sequence is read as if it were alone in a row.
            output_hidden_states: also return each block's input.
            both_strands: read the reverse complement too where the model is not equivariant:
                strand 1 is then what the model makes of the other strand, in the + strand's
                coordinates. By default as the model was made.
            n_blocks: run only the first ones, followed by the final norm; by default all.
            added: values that are added to the embeddings of both strands at each position.

        Returns:
            The final state (batch, strand, length, d_model), and None or the blocks' inputs
            (n_layer, batch, strand, length, d_model); `last_hidden_state` is the final state as
            the original lays it out.

        Raises:
            UserError: an input of another type or shape, a token id out of range, or none or
                several of the three inputs; the sentence names the argument.
        """
        given = inputs.checked(
            self.config,
            self.tokenizer,
            input_ids,
            padding_mask,
            inputs_one_hot,
            inputs_embeds,
            segment_ids,
        )
        # Where a program asks for strict promotion, Flax's norms in bfloat16 would be refused.
        with jax.numpy_dtype_promotion("standard"):
            both = self.both_strands if both_strands is None else both_strands
            embedded = self._embed(given, both, added)
            some = slice(n_blocks)
            residual, outputs = self._blocks(embedded, given, some, output_hidden_states)
            final = self.norm_f(residual)
        if outputs is None:
            return CaduceusOutput(final, None)
        return CaduceusOutput(final, jnp.concatenate([embedded[None], outputs[:-1]]))

    def states_at(
        self,
        input_ids: ArrayInput,
        positions: Places,
        *,
        within: tuple[int, int],
        both_strands: bool | None = None,
    ) -> StrandsAt:
        """Computes the final state at a few positions.

        Of the last block only what they need is computed: each reading direction ends there, and
        nothing is gated or projected elsewhere. The result is that of a call to rounding.

        Args:
            input_ids: (batch, length) token ids.
            positions: (batch, places), 0-based.
            within: two bounds (first, stop), known when this is compiled: first <= position < stop
                for all positions.
            both_strands: read the reverse complement too where the model is not equivariant; by
                default as the model was made.

        Returns:
            (batch, strand, places, d_model), after the final norm.

        Raises:
            UserError: token ids of another type or shape, or out of range.
        """
        given = inputs.checked(self.config, self.tokenizer, input_ids, None)
        with jax.numpy_dtype_promotion("standard"):
            both = self.both_strands if both_strands is None else both_strands
            residual, _ = self._blocks(self._embed(given, both, None), given, slice(-1), False)
            last = jax.tree.map(lambda stacked: stacked[-1], self.layers)
            return self.norm_f(last.at(residual, positions, within))

    def layer_states(
        self,
        input_ids: ArrayInput | None = None,
        padding_mask: ArrayInput | None = None,
        *,
        inputs_one_hot: ArrayInput | None = None,
        inputs_embeds: ArrayInput | None = None,
    ) -> dict[str, Hidden]:
        """Computes the state after every layer, by the layer's name.

        Args:
            input_ids: (batch, length) token ids.
            padding_mask: (batch, length) bool, True on real tokens.
            inputs_one_hot: (batch, length, 4 or vocab) weights in place of token ids.
            inputs_embeds: (batch, length, d_model or 2 * d_model) embeddings in place of them.

        Returns:
            "embedding", "layers.0" to "layers.N", the residual stream after each block, and
            "norm_f", the final state; each (batch, length, d_model or 2 * d_model), with both
            strands as the original lays them out.
        """
        given = inputs.checked(
            self.config, self.tokenizer, input_ids, padding_mask, inputs_one_hot, inputs_embeds
        )
        with jax.numpy_dtype_promotion("standard"):
            embedded = self._embed(given, False, None)
            residual, residuals = self._blocks(embedded, given, slice(None), True, residuals=True)
            final = self.norm_f(residual)
        assert residuals is not None
        states = {"embedding": embedded}
        states |= {f"layers.{i}": state for i, state in enumerate(residuals)}
        states["norm_f"] = final
        return {name: to_original_layout(state) for name, state in states.items()}

    def _embed(
        self,
        given: inputs.Inputs,
        both_strands: bool,
        added: Float[jax.Array, "batch length d_model"] | None,
    ) -> Strands:
        """Embeds the inputs, in the dtype of activations."""
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(self.embedding)):
            raise UserError(
                "the model has shapes in place of parameters, as nnx.eval_shape makes it: load "
                "parameters into it with nnx.update, or call it inside jax.eval_shape"
            )
        other = complement(self.config) if self.config.rcps or both_strands else None
        # Rounded after the look-up: the gradient of a token is summed over all places where it
        # occurs, and in bfloat16 such a sum stops growing after some hundred of them.
        hidden = inputs.embed(given, self.embedding[...], self.config, self.tokenizer, other)
        if added is not None:
            hidden = hidden + jnp.broadcast_to(added[:, None], hidden.shape)
        return hidden.astype(self.dtype)

    def _blocks(
        self,
        embedded: Strands,
        given: inputs.Inputs,
        some: slice,
        output: bool,
        residuals: bool = False,
    ) -> tuple[Strands, BlockInputs | None]:
        """Runs some blocks; also returns each one's output, or the residual stream after it."""

        # Only the sum is carried, as the original's pair of it and the newest output would be kept
        # for the backward pass of every block.
        def layer(residual: Strands, block: Block) -> tuple[Strands, Strands | None]:
            """Runs one block; what `lax.scan` calls."""
            block = block if self.gather is None else self.gather(block)
            residual, mixed = block(residual, given.padding_mask, given.segment_ids)
            return residual, (residual if residuals else mixed) if output else None

        if self.remat:
            # What other devices have sent is small: it is kept, and not sent again. So is what
            # enters the chunks of a scan.
            kept = [sequence_parallel.RECEIVED, scan_inputs.BETWEEN_CHUNKS]
            if self.remat == "scans":
                kept += [scan_inputs.RESIDUALS, SCANNED]
            policy = jax.checkpoint_policies.save_only_these_names(*kept)
            layer = jax.checkpoint(layer, policy=policy)
        layers = self.layers
        if some != slice(None):
            layers = jax.tree.map(lambda stacked: stacked[some], layers)
        residual_dtype = jnp.float32 if self.config.residual_in_fp32 else self.dtype
        return jax.lax.scan(layer, embedded.astype(residual_dtype), layers)


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
    """Returns the complement of each token id, (vocab,)."""
    return jnp.asarray(config.complement_map)
