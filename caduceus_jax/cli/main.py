"""The front door: `caduceus-jax COMMAND`.

A command is a typed function with a docstring, and its arguments are the command line: one place
says what there is, in Python and in the shell. This is the one file that may look upward to
`train`, and it imports a command's module when the command is called.
"""

import argparse
import dataclasses
import difflib
import importlib
import inspect
import pathlib
import sys
import traceback
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import docstring_parser

from caduceus_jax.cli import recipe
from caduceus_jax.errors import UserError
from caduceus_jax.version import __version__

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Command(NamedTuple):
    """Where a command lives, and what the overview says of it."""

    function: str  # module:name
    summary: str


COMMANDS = {
    "pretrain": Command("caduceus_jax.train.pretrain:pretrain", "train a model on genomes"),
    "finetune": Command(
        "caduceus_jax.train.finetune:finetune", "train a model on labelled sequences"
    ),
    "evaluate": Command(
        "caduceus_jax.train.evaluation.evaluate:evaluate", "fine-tune on a benchmark, with a report"
    ),
    "evaluate eqtl": Command(
        "caduceus_jax.train.evaluation.eqtl_report:evaluate_eqtl",
        "which variants change expression, with a report",
    ),
    "evaluate masked": Command(
        "caduceus_jax.train.evaluation.masked:evaluate_masked",
        "how well masked bases are predicted, by region, with a report",
    ),
    "prepare": Command(
        "caduceus_jax.train.data.prepare:prepare", "make a genome ready for training, once"
    ),
    "plan": Command(
        "caduceus_jax.train.planning.plan:plan", "what a pretraining needs on other devices"
    ),
    "embed": Command(
        "caduceus_jax.genomics.embed:embed", "embed sequences, regions or variants' surroundings"
    ),
    "predict": Command(
        "caduceus_jax.genomics.predict:predict", "what a fine-tuned model says of sequences"
    ),
    "score-variants": Command(
        "caduceus_jax.genomics.score_variants:score_variants",
        "score the variants of a VCF or a table",
    ),
    "mutagenesis": Command(
        "caduceus_jax.genomics.mutagenesis:mutagenesis", "score every change of a region"
    ),
    "likelihood": Command(
        "caduceus_jax.genomics.likelihood:likelihood", "what a model expects at every base"
    ),
    "convert": Command("caduceus_jax.cli.convert:convert", "convert weights, with a report"),
    "models": Command("caduceus_jax.cli.models:models", "list the released models"),
    "info": Command("caduceus_jax.cli.info:info", "describe a model, or this installation"),
    "bench scan": Command(
        "caduceus_jax.bench.scan:scan", "time the selective scan on this machine"
    ),
    "bench model": Command("caduceus_jax.bench.model:model", "time a whole model on this machine"),
    "bench step": Command("caduceus_jax.train.bench.step:step", "time the training step on a GPU"),
    "bench data": Command(
        "caduceus_jax.train.bench.data:data", "time what feeds a training on this machine"
    ),
}

# The extra of this package that brings a package a command turned out to need.
_EXTRA_OF = {
    "grain": "train",
    "matplotlib": "train",
    "optax": "train",
    "sklearn": "train",
    "tensorboardX": "train",
    "anndata": "genomics",
    "h5py": "genomics",
    "polars": "genomics",
    "pyBigWig": "genomics",
    "pyarrow": "genomics",
    "pysam": "genomics",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after `caduceus-jax`; by default the process's own.

    Returns:
        The exit status: 0 done, 1 failed, 2 bad usage or input, 130 interrupted, or what the
        command itself exits with.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if " ".join(words[:2]) in COMMANDS:  # `bench scan`
        words[:2] = [" ".join(words[:2])]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return DONE if words else BAD_INPUT
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name} - set(COMMANDS)
    if words[0] in groups:
        print(_overview(words[0]))
        return DONE if words[1:] and words[1] in ("-h", "--help") else BAD_INPUT
    if words[0] in ("-V", "--version"):
        print(f"caduceus-jax {__version__}")
        return DONE
    try:
        _run(*words)
    except SystemExit as stop:  # --help, or a command with a status of its own
        return stop.code if isinstance(stop.code, int) else FAILED
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, UserError):
            print(f"caduceus-jax {words[0]}: {error}", file=sys.stderr)
            return error.exit_status
        hint = "" if debug else " (--debug shows where)"
        print(f"caduceus-jax {words[0]}: {type(error).__name__}: {error}{hint}", file=sys.stderr)
        return FAILED
    return DONE


def _overview(group: str = "") -> str:
    """What there is, or what there is of commands in two words of which this is the first."""
    names = [name for name in COMMANDS if name.startswith(f"{group} " if group else "")]
    width = max(map(len, names))
    lines = [f"  {name:{width}}  {COMMANDS[name].summary}" for name in names]
    return "\n".join(
        [
            "usage: caduceus-jax COMMAND [ARGUMENT ...]",
            "",
            "Caduceus DNA language models: pretrain, convert, embed, score.",
            "",
            *lines,
            "",
            "caduceus-jax COMMAND --help is that command's manual page; --debug with any command",
            "shows where an error came from; --version names this version.",
        ]
    )


def _run(name: str, *words: str) -> None:
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"is not a command; {hint}")
    module, _, function_name = COMMANDS[name].function.partition(":")
    try:
        function = getattr(importlib.import_module(module), function_name)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise UserError(f"needs {error.name}: pip install 'caduceus-jax[{extra}]'") from None
    config = _config_class(function)
    if config is None:
        parser = _function_parser(f"caduceus-jax {name}", function)
        arguments = vars(_parse(parser, words))
        function(**arguments)
    else:
        function(recipe.parse(f"caduceus-jax {name}", _description(function), config, words))


def _config_class(function: Callable[..., Any]) -> type | None:
    """The dataclass that is the function's one argument, where that is its form."""
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) == 1 and dataclasses.is_dataclass(hint := hints[parameters[0]]):
        return hint if isinstance(hint, type) else None
    return None


class _Parser(argparse.ArgumentParser):
    """Leaves every complaint to its caller: argparse prints some itself before Python 3.13."""

    def error(self, message: str) -> typing.NoReturn:
        raise argparse.ArgumentError(None, message)


def _function_parser(prog: str, function: Callable[..., Any]) -> argparse.ArgumentParser:
    """Parameters without a default become positional arguments or, named ones, required options."""
    parser = _Parser(
        prog=prog,
        description=_description(function),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(function)
    helps = {
        p.arg_name: (p.description or "").replace("\n", " ").replace("%", "%%")
        for p in docstring_parser.parse(function.__doc__ or "").params
    }
    for name, parameter in inspect.signature(function).parameters.items():
        flag = "--" + name.replace("_", "-")
        if parameter.default is inspect.Parameter.empty:
            required, how = name, _how(hints[name])
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                required = flag
                how |= {"required": True, "metavar": name.upper()}
            parser.add_argument(required, help=helps.get(name), **how)
        elif hints[name] is bool:
            parser.add_argument(flag, action="store_true", help=helps.get(name))
        else:
            default = parameter.default
            shown = "" if default is None else f" (default: {default})"
            how = _how(hints[name])
            if "choices" not in how:
                how["metavar"] = name.upper()
            parser.add_argument(flag, default=default, help=f"{helps.get(name)}{shown}", **how)
    return parser


def _how(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = [h for h in typing.get_args(hint) if h is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) in (list, tuple):
        return {"type": typing.get_args(hint)[0], "nargs": "+"}
    return {"type": hint if hint in (int, float, pathlib.Path) else str}


def _parse(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Any:
    """Parses, or raises a UserError that names the near match of a misspelt word."""
    try:
        return parser.parse_args(list(words))
    except argparse.ArgumentError as error:
        message = " ".join(str(error).split())
    known = [option for action in parser._actions for option in action.option_strings]
    for word in message.partition("unrecognized arguments: ")[2].split():
        near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
        if near:
            raise UserError(f"{message}; did you mean {near[0]}?")
    raise UserError(f"{message}; see {parser.prog} --help")


def _description(function: Callable[..., Any]) -> str:
    """The docstring without its sections: what the manual page says first."""
    doc = docstring_parser.parse(inspect.cleandoc(function.__doc__ or ""))
    return "\n\n".join(text for text in (doc.short_description, doc.long_description) if text)
