"""Forward passes over many sequences: embeddings and masked log-probabilities.

Every sequence comes out in the place it went in. Sequences run in batches of few shapes, each
compiled once, on all local devices where a batch divides among them; padding is masked, so that a
result depends neither on the batch nor on the other sequences in it.

Both strands count. Caduceus-PS reads both by construction; other models are run on both, and what
they make of the second strand is kept in the + strand's coordinates: nothing is ever flipped.
"""

from caduceus_jax.inference.batches import TokenRows as TokenRows
from caduceus_jax.inference.embeddings import Pooling as Pooling
from caduceus_jax.inference.embeddings import embed as embed
from caduceus_jax.inference.embeddings import embed_tokens as embed_tokens
from caduceus_jax.inference.embeddings import iterate_embeddings as iterate_embeddings
from caduceus_jax.inference.loading import AnyModel as AnyModel
from caduceus_jax.inference.loading import AnyPretrained as AnyPretrained
from caduceus_jax.inference.loading import Pretrained as Pretrained
from caduceus_jax.inference.loading import RcMode as RcMode
from caduceus_jax.inference.loading import load as load
from caduceus_jax.inference.masked import (
    iterate_masked_log_probabilities as iterate_masked_log_probabilities,
)
from caduceus_jax.inference.masked import masked_log_probabilities as masked_log_probabilities
from caduceus_jax.model.files.task import TaskDescription as TaskDescription
