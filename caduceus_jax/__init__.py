"""Caduceus, the bidirectional reverse-complement-equivariant DNA language model, in JAX."""

from caduceus_jax import kernels as kernels
from caduceus_jax.errors import UserError as UserError
from caduceus_jax.model import convert as convert
from caduceus_jax.model.config import CaduceusConfig as CaduceusConfig
from caduceus_jax.model.heads import CaduceusForMaskedLM as CaduceusForMaskedLM
from caduceus_jax.model.heads import (
    CaduceusForSequenceClassification as CaduceusForSequenceClassification,
)
from caduceus_jax.model.heads import MaskedLMOutput as MaskedLMOutput
from caduceus_jax.model.heads import SequenceClassifierOutput as SequenceClassifierOutput
from caduceus_jax.model.losses import classification_loss as classification_loss
from caduceus_jax.model.losses import masked_lm_loss as masked_lm_loss
from caduceus_jax.model.tracks import CaduceusForTracks as CaduceusForTracks
from caduceus_jax.model.tracks import TracksOutput as TracksOutput
from caduceus_jax.tokenizer import Tokenizer as Tokenizer
from caduceus_jax.version import __version__ as __version__
