"""Signatures of the verbs: their keyword arguments, one for each field of their options.

`takes_fields` gives a verb the signature and the documentation of the fields; the classes named
...Fields tell type checkers the same.
"""

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, get_type_hints

import docstring_parser

from caduceus_jax.genomics.options import Pooling
from caduceus_jax.genomics.reference.locate import Edge
from caduceus_jax.inference.attributions import Baseline, Method
from caduceus_jax.inference.loading import RcMode

F = TypeVar("F", bound=Callable[..., Any])


class EmbeddingFields(TypedDict, total=False):
    """The fields of `Embedding` as keyword arguments."""

    pooling: Pooling
    window: int | None
    layer: int | None
    rc_mode: RcMode | None
    concatenate: bool
    context_length: int | None
    edge: Edge
    max_length: int
    tile: int | None
    overlap: int | None
    batch_size: int | None


class PredictionFields(TypedDict, total=False):
    """The fields of `Prediction` as keyword arguments."""

    context_length: int | None
    edge: Edge
    max_length: int
    batch_size: int | None


class VariantScoringFields(TypedDict, total=False):
    """The fields of `VariantScoring` as keyword arguments."""

    window: int
    context_length: int | None
    edge: Edge
    rc_mode: RcMode | None
    max_ref_mismatch: float
    batch_size: int | None
    phased: bool
    sample: str | None


class MaskingFields(TypedDict, total=False):
    """The fields of `Masking` as keyword arguments."""

    context_length: int | None
    edge: Edge
    masks_per_pass: int
    rc_mode: RcMode | None
    batch_size: int | None


class AttributionFields(TypedDict, total=False):
    """The fields of `Attribution` as keyword arguments."""

    method: Method
    output: str | None
    window: int | None
    baseline: Baseline
    steps: int
    context_length: int | None
    edge: Edge
    max_length: int
    rc_mode: RcMode | None
    batch_size: int | None


def takes_fields(kind: type) -> Callable[[F], F]:
    """Gives a verb the signature and the documentation of its options.

    Args:
        kind: the class of its argument `options`, whose fields it takes as `**fields`.
    """

    def decorate(function: F) -> F:
        """Adds the options' parameters to a function's signature."""
        hints = get_type_hints(kind)
        signature = inspect.signature(function)
        kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(kind)
        ]
        function.__signature__ = signature.replace(parameters=[*kept, *added])
        function.__doc__ = _documented(function.__doc__ or "", kind)
        return function

    return decorate


@functools.cache
def _field_docs(kind: type) -> str:
    lines = []
    for field in docstring_parser.parse(kind.__doc__ or "").params:
        text = f"{field.arg_name}: {' '.join((field.description or '').split())}"
        lines += textwrap.wrap(text, 88, initial_indent=" " * 8, subsequent_indent=" " * 12)
    return "\n".join(lines)


def _documented(doc: str, kind: type) -> str:
    """Returns the docstring with the fields in place of its line `**fields`."""
    marked = [line for line in doc.split("\n") if line.strip().startswith("**fields:")]
    return doc.replace(marked[0], _field_docs(kind)) if marked else doc
