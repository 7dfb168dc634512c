"""Shapes in one vocabulary; checked while the tests run, free otherwise.

batch     sequences in a batch
strand    1, or 2 for Caduceus-PS: both strands in the + strand's coordinates, so that index i
          of strand 1 holds the complement of base i, and in the same channel order
length    tokens of a sequence
d_model   channels of the residual stream (of one strand)
d_inner   channels of the convolution and the recurrence: expand * d_model
d_state   states per channel of the recurrence
vocab     rows of the embedding
hidden    d_model, or 2 * d_model in the original's layout of Caduceus-PS: the second half is
          strand 1 with its channels reversed
places    positions of a sequence that are asked for
"""

import jax
from jaxtyping import Bool, Float, Int

TokenIds = Int[jax.Array, "batch length"]
PaddingMask = Bool[jax.Array, "batch length"]
SegmentIds = Int[jax.Array, "batch length"]
Logits = Float[jax.Array, "batch length vocab"]
Strands = Float[jax.Array, "batch strand length d_model"]
StrandsInner = Float[jax.Array, "batch strand length d_inner"]
Hidden = Float[jax.Array, "batch length hidden"]
Places = Int[jax.Array, "batch places"]  # 0-based
StrandsAt = Float[jax.Array, "batch strand places d_model"]
