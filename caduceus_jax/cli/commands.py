"""The commands: where each lives, and the extras of this package that they need.

This and `main` are the only files that may look upward to `train`; a command's module is imported
when the command is called.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from caduceus_jax.cli.signature import Signature, config_signature, signature
from caduceus_jax.errors import UserError


class Command(NamedTuple):
    """Where a command lives, and its line in the overview.

    Attributes:
        function: the typed function that does the work, as module:name.
        summary: the line of the overview.
        config: the dataclass that is the function's only argument, as module:name, where its
            module is quicker to import than the function's: manual pages then come at once. Its
            docstring is the manual page.
    """

    function: str
    summary: str
    config: str = ""


COMMANDS = {
    "pretrain": Command("caduceus_jax.train.pretrain:pretrain", "train a model on genomes"),
    "finetune": Command(
        "caduceus_jax.train.finetune:finetune", "train a model on labelled sequences"
    ),
    "evaluate": Command(
        "caduceus_jax.train.evaluation.evaluate:evaluate",
        "fine-tune models on benchmarks and write a report",
    ),
    "evaluate eqtl": Command(
        "caduceus_jax.train.evaluation.eqtl_report:evaluate_eqtl",
        "report which variants change expression",
    ),
    "evaluate masked": Command(
        "caduceus_jax.train.evaluation.masked:evaluate_masked",
        "report how well masked bases are predicted, by region",
    ),
    "prepare": Command(
        "caduceus_jax.train.data.prepare:prepare", "store a genome so that training opens it fast"
    ),
    "plan": Command(
        "caduceus_jax.train.planning.plan:plan",
        "estimate memory and step time on other devices",
    ),
    "embed": Command(
        "caduceus_jax.genomics.embed:embed", "embed sequences, regions or variants' surroundings"
    ),
    "predict": Command("caduceus_jax.genomics.predict:predict", "predict with a fine-tuned model"),
    "score-variants": Command(
        "caduceus_jax.genomics.score_variants:score_variants",
        "score the variants of a VCF or a table",
    ),
    "likelihood": Command(
        "caduceus_jax.genomics.likelihood:likelihood", "masked likelihood of every base"
    ),
    "mutagenesis": Command(
        "caduceus_jax.genomics.mutagenesis:mutagenesis", "score every change of a region"
    ),
    "convert": Command(
        "caduceus_jax.cli.convert:convert", "write any stored model as a Hugging Face folder"
    ),
    "models": Command("caduceus_jax.cli.models:models", "list the released models"),
    "info": Command("caduceus_jax.cli.info:info", "describe a model, or this installation"),
    "bench scan": Command("caduceus_jax.bench.scan:scan", "time the selective scan"),
    "bench model": Command("caduceus_jax.bench.model:model", "time a whole model"),
    "bench step": Command("caduceus_jax.train.bench.step:step", "time the training step on a GPU"),
    "bench data": Command("caduceus_jax.train.bench.data:data", "time the input pipeline"),
}

# The extra of this package that brings a package a command turned out to need.
_EXTRA_OF = {
    "grain": "train",
    "matplotlib": "train",
    "optax": "train",
    "orbax": "train",
    "sklearn": "train",
    "tensorboardX": "train",
    "anndata": "genomics",
    "h5py": "genomics",
    "polars": "genomics",
    "pyBigWig": "genomics",
    "pyarrow": "genomics",
    "pysam": "genomics",
}


def signature_of(command: Command) -> Signature:
    """Reads what a command takes.

    Raises:
        UserError: the command needs an extra of this package that is not installed.
    """
    if command.config:
        config = load(command.config)
        return config_signature(config, inspect.getdoc(config) or "")
    return signature(load(command.function))


def load(place: str) -> Callable[..., Any]:
    """Imports what stands at module:name.

    Raises:
        UserError: it needs an extra of this package that is not installed.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise UserError(f"needs {error.name}: pip install 'caduceus-jax[{extra}]'") from None
