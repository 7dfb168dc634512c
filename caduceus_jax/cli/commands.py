"""The commands: where each lives, and the extras of this package that they need.

This and `main` are the only files that may look upward to `train`; a command's module is imported
when the command is called.
"""

import ast
import importlib.util
from importlib.abc import InspectLoader
from typing import Any, NamedTuple

from caduceus_jax.cli.signature import Signature, config_signature, signature
from caduceus_jax.errors import UserError
from caduceus_jax.extras import how_to_install


class Command(NamedTuple):
    """Says where a command lives, and holds its line in the overview.

    Attributes:
        function: the typed function that does the work, as module:name.
        summary: the line of the overview.
        config: the dataclass that is the function's only argument, as module:name, where its
            module is quicker to import than the function's: manual pages and errors then come at
            once.
    """

    function: str
    summary: str
    config: str = ""


COMMANDS = {
    "pretrain": Command(
        "caduceus_jax.train.pretrain:pretrain",
        "train a model on genomes",
        "caduceus_jax.train.config:PretrainConfig",
    ),
    "finetune": Command(
        "caduceus_jax.train.finetune:finetune",
        "train a model on labelled sequences",
        "caduceus_jax.train.finetuning.config:FinetuneConfig",
    ),
    "evaluate": Command(
        "caduceus_jax.train.evaluation.evaluate:evaluate",
        "fine-tune models on benchmarks and write a report",
        "caduceus_jax.train.evaluation.config:EvaluateConfig",
    ),
    "evaluate eqtl": Command(
        "caduceus_jax.train.evaluation.eqtl_report:evaluate_eqtl",
        "report which variants change expression",
        "caduceus_jax.train.evaluation.config:EqtlEvaluation",
    ),
    "evaluate masked": Command(
        "caduceus_jax.train.evaluation.masked:evaluate_masked",
        "report how well masked bases are predicted, by region",
        "caduceus_jax.train.evaluation.config:MaskedEvaluation",
    ),
    "prepare": Command(
        "caduceus_jax.train.data.prepare:prepare", "store a genome so that training opens it fast"
    ),
    "plan": Command(
        "caduceus_jax.train.planning.plan:plan",
        "estimate memory and step time on other devices",
    ),
    "runs": Command("caduceus_jax.train.run.compare:runs", "compare pretraining runs"),
    "embed": Command(
        "caduceus_jax.cli.genomics.embed:embed",
        "embed sequences, regions or variants' surroundings",
    ),
    "predict": Command(
        "caduceus_jax.cli.genomics.predict:predict", "predict with a fine-tuned model"
    ),
    "score-variants": Command(
        "caduceus_jax.cli.genomics.score_variants:score_variants",
        "score the variants of a VCF or a table",
    ),
    "likelihood": Command(
        "caduceus_jax.cli.genomics.likelihood:likelihood", "masked likelihood of every base"
    ),
    "mutagenesis": Command(
        "caduceus_jax.cli.genomics.mutagenesis:mutagenesis", "score every change of a region"
    ),
    "attribute": Command(
        "caduceus_jax.cli.genomics.attribute:attribute", "find the bases that matter to a model"
    ),
    "summarise": Command(
        "caduceus_jax.cli.genomics.summarise:summarise", "sum up scores by gene or region"
    ),
    "merge": Command("caduceus_jax.cli.genomics.merge:merge", "join the shards of a command"),
    "convert": Command(
        "caduceus_jax.cli.convert:convert", "write any stored model as a Hugging Face folder"
    ),
    "models": Command("caduceus_jax.cli.models:models", "list the released models"),
    "info": Command("caduceus_jax.cli.info:info", "describe a model, or this installation"),
    "completion": Command(
        "caduceus_jax.cli.completion:completion", "let the tab key complete commands and options"
    ),
    "bench scan": Command("caduceus_jax.bench.scan:scan", "time the selective scan"),
    "bench model": Command("caduceus_jax.bench.model:model", "time a whole model"),
    "bench step": Command("caduceus_jax.train.bench.step:step", "time the training step on a GPU"),
    "bench data": Command("caduceus_jax.train.bench.data:data", "time the input pipeline"),
}


def signature_of(command: Command) -> Signature:
    """Reads what a command takes.

    Raises:
        UserError: the command needs an extra of this package that is not installed.
    """
    if command.config:
        return config_signature(load(command.config), _docstring(command.function))
    return signature(load(command.function))


def _docstring(place: str) -> str:
    """Reads the docstring of a function at module:name from the source, without importing it."""
    module, _, name = place.partition(":")
    spec = importlib.util.find_spec(module)
    loader = spec.loader if spec else None
    source = loader.get_source(module) if isinstance(loader, InspectLoader) else None
    for node in ast.parse(source or "").body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
    raise LookupError(place)


def load(place: str) -> Any:
    """Imports what stands at module:name.

    Raises:
        UserError: the command needs an extra of this package that is not installed.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if (sentence := how_to_install(error)) is None:
            raise
        raise UserError(sentence) from None
