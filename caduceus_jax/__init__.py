"""Caduceus, the bidirectional reverse-complement-equivariant DNA language model, in JAX.

The names below are imported when they are first used, so that `import caduceus_jax` is quick and
needs no extra of the package: `caduceus_jax.Genome` needs `caduceus-jax[genomics]`, for example,
and the models do not.
"""

import importlib
from typing import TYPE_CHECKING, Any

from caduceus_jax.errors import UserError as UserError
from caduceus_jax.extras import how_to_install
from caduceus_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from caduceus_jax import genomics as genomics
    from caduceus_jax import inference as inference
    from caduceus_jax import kernels as kernels
    from caduceus_jax import model as model
    from caduceus_jax.genomics.attribute import attribute as attribute
    from caduceus_jax.genomics.embed import embed as embed
    from caduceus_jax.genomics.genes.summary import summarise as summarise
    from caduceus_jax.genomics.genome_wide.store import ScoreStore as ScoreStore
    from caduceus_jax.genomics.interval import Interval as Interval
    from caduceus_jax.genomics.interval import Intervals as Intervals
    from caduceus_jax.genomics.likelihood import likelihood as likelihood
    from caduceus_jax.genomics.mutagenesis import mutagenesis as mutagenesis
    from caduceus_jax.genomics.predict import predict as predict
    from caduceus_jax.genomics.reference.genome import Genome as Genome
    from caduceus_jax.genomics.score_variants import score_variants as score_variants
    from caduceus_jax.genomics.variant import Variant as Variant
    from caduceus_jax.genomics.variant import Variants as Variants
    from caduceus_jax.inference.loading import Pretrained as Pretrained
    from caduceus_jax.inference.loading import load as load
    from caduceus_jax.model import convert as convert
    from caduceus_jax.model.backbone import Caduceus as Caduceus
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

# Where each name lives: module:name, or a module. A test holds this against the imports above.
_PLACES = {
    "Caduceus": "caduceus_jax.model.backbone:Caduceus",
    "CaduceusConfig": "caduceus_jax.model.config:CaduceusConfig",
    "CaduceusForMaskedLM": "caduceus_jax.model.heads:CaduceusForMaskedLM",
    "CaduceusForSequenceClassification": (
        "caduceus_jax.model.heads:CaduceusForSequenceClassification"
    ),
    "CaduceusForTracks": "caduceus_jax.model.tracks:CaduceusForTracks",
    "Genome": "caduceus_jax.genomics.reference.genome:Genome",
    "Interval": "caduceus_jax.genomics.interval:Interval",
    "Intervals": "caduceus_jax.genomics.interval:Intervals",
    "MaskedLMOutput": "caduceus_jax.model.heads:MaskedLMOutput",
    "Pretrained": "caduceus_jax.inference.loading:Pretrained",
    "ScoreStore": "caduceus_jax.genomics.genome_wide.store:ScoreStore",
    "SequenceClassifierOutput": "caduceus_jax.model.heads:SequenceClassifierOutput",
    "Tokenizer": "caduceus_jax.tokenizer:Tokenizer",
    "TracksOutput": "caduceus_jax.model.tracks:TracksOutput",
    "Variant": "caduceus_jax.genomics.variant:Variant",
    "Variants": "caduceus_jax.genomics.variant:Variants",
    "attribute": "caduceus_jax.genomics.attribute:attribute",
    "classification_loss": "caduceus_jax.model.losses:classification_loss",
    "convert": "caduceus_jax.model.convert",
    "embed": "caduceus_jax.genomics.embed:embed",
    "genomics": "caduceus_jax.genomics",
    "inference": "caduceus_jax.inference",
    "kernels": "caduceus_jax.kernels",
    "likelihood": "caduceus_jax.genomics.likelihood:likelihood",
    "load": "caduceus_jax.inference.loading:load",
    "masked_lm_loss": "caduceus_jax.model.losses:masked_lm_loss",
    "model": "caduceus_jax.model",
    "mutagenesis": "caduceus_jax.genomics.mutagenesis:mutagenesis",
    "predict": "caduceus_jax.genomics.predict:predict",
    "score_variants": "caduceus_jax.genomics.score_variants:score_variants",
    "summarise": "caduceus_jax.genomics.genes.summary:summarise",
}

__all__ = [
    "Caduceus",
    "CaduceusConfig",
    "CaduceusForMaskedLM",
    "CaduceusForSequenceClassification",
    "CaduceusForTracks",
    "Genome",
    "Interval",
    "Intervals",
    "MaskedLMOutput",
    "Pretrained",
    "ScoreStore",
    "SequenceClassifierOutput",
    "Tokenizer",
    "TracksOutput",
    "UserError",
    "Variant",
    "Variants",
    "__version__",
    "attribute",
    "classification_loss",
    "convert",
    "embed",
    "genomics",
    "inference",
    "kernels",
    "likelihood",
    "load",
    "masked_lm_loss",
    "model",
    "mutagenesis",
    "predict",
    "score_variants",
    "summarise",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module 'caduceus_jax' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (sentence := how_to_install(error)) is None:
            raise
        raise ModuleNotFoundError(f"caduceus_jax.{name} {sentence}", name=error.name) from error
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, also those that have not been imported yet."""
    return sorted({*globals(), *__all__})
