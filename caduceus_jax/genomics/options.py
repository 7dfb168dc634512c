"""The options of the verbs: one frozen value per verb, and the keyword arguments they come from.

A verb takes its options as keyword arguments (`embed(m, sequences, pooling="center")`), or as one
value (`options=Embedding(pooling="center")`). Each field is described once, here: verbs have their
signature and documentation from `signatures.takes_fields`.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.reference.locate import Edge
from caduceus_jax.inference.attributions import Baseline, Method
from caduceus_jax.inference.loading import Pretrained, RcMode
from caduceus_jax.model.heads import CaduceusForMaskedLM

log = logging.getLogger(__name__)

Pooling = Literal["mean", "center", "window", "none"]
Mode = Literal["llr", "pll", "embedding", "output"]
DEFAULT_LENGTH = 1023  # bases that a model sees of the genome

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Sets how sequences are embedded.

    Args:
        pooling: mean over the sequence; its center (0-based index length // 2); the mean over a
            window in the middle (`window`); or none: one vector per base.
        window: bases in the middle that pooling "window" takes the mean of; base window // 2 of
            them is the center.
        layer: use the residual stream after this many blocks, through the final norm; -1 is the
            last block, and the default.
        rc_mode: none reads the strand as given; posthoc (models that are not equivariant) and
            equivariant (models that are) read both strands and take the mean of their states. By
            default the one of the latter two that fits the model.
        concatenate: keep both strands' states side by side, twice as many channels, in place of
            their mean.
        context_length: bases that the model sees around each region's middle, (start + end) // 2
            (0-based), or around each record's position, which becomes index context_length // 2.
            By default a region as it is. Only with a genome.
        edge: treatment of a window that extends past the end of a contig: pad it with N, shift it
            inward, drop the region (status crosses_edge), or stop with an error.
        max_length: most bases that are read at once: the longest sequence that is accepted without
            `tile`. Memory grows in proportion.
        tile: cut what is longer than this many bases into tiles of that length.
        overlap: bases that neighbouring tiles share at least; by default a quarter of `tile`.
        batch_size: sequences, or tiles, in a forward pass; chosen for the device and the length by
            default.
    """

    pooling: Pooling = "mean"
    window: int | None = None
    layer: int | None = None
    rc_mode: RcMode | None = None
    concatenate: bool = False
    context_length: int | None = None
    edge: Edge = "pad"
    max_length: int = 131_072
    tile: int | None = None
    overlap: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check_choice("pooling", self.pooling, Pooling)
        _check_choice("edge", self.edge, Edge)
        _check_least(self, "context_length", "window", "max_length", "tile", "batch_size")
        if (self.pooling == "window") != (self.window is not None):
            raise UserError("pooling window and a window, its length in bases, go together")
        if self.tile is not None and self.tile > self.max_length:
            raise UserError(
                f"tile is {self.tile:,}, more than max_length, {self.max_length:,}: allow more"
            )
        if self.tile is not None and self.window is not None and self.window > self.tile:
            raise UserError(
                f"window is {self.window:,}, which does not fit into a tile of {self.tile:,}"
            )
        if self.overlap is not None and self.tile is None:
            raise UserError("overlap is what tiles share: pass their length, `tile`, too")
        if self.overlap is not None and not 0 <= self.overlap < (most := self.tile or 0):
            raise UserError(
                f"overlap is {self.overlap}; it must be from 0 to {most - 1}, below `tile`"
            )


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Sets how a fine-tuned model is applied to sequences.

    Args:
        context_length: bases that the model sees around each region's middle, (start + end) // 2
            (0-based), or around each record's position. By default a region as it is. Only with a
            genome.
        edge: treatment of a window that extends past the end of a contig: pad it with N, shift it
            inward, drop the region (status crosses_edge), or stop with an error.
        max_length: bases of the longest sequence that is accepted. The model reads as many of them
            as it was trained on. A model of tracks reads what is longer in several windows.
        batch_size: sequences in a forward pass; chosen for the device and the length by default.
    """

    context_length: int | None = None
    edge: Edge = "pad"
    max_length: int = 131_072
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check_choice("edge", self.edge, Edge)
        _check_least(self, "context_length", "max_length", "batch_size")


class _Seen:
    """Options with a context, whose length may be left to the model."""

    context_length: int | None

    @property
    def context(self) -> int:
        """Returns the bases that the model sees; 1,023 where that was left to the model."""
        return DEFAULT_LENGTH if self.context_length is None else self.context_length


@dataclasses.dataclass(frozen=True)
class VariantScoring(_Seen):
    """Sets how variants are scored.

    Args:
        window: bases around the variant that the modes pll and embedding look at; at most
            `context_length`.
        context_length: bases the model sees, the variant in the middle. Time grows in proportion.
            By default 1,023 bases, or the length that a fine-tuned model was trained at.
        edge: treatment of a context that extends past the end of a contig: pad it with N, shift it
            inward, drop the variant (status crosses_edge), or stop with an error.
        rc_mode: none reads the + strand alone; posthoc (models that are not equivariant) averages
            both strands; equivariant is for models that are. By default the one of the latter two
            that fits the model.
        max_ref_mismatch: share of records whose REF may differ from the genome before the run
            stops, because the genome is likely the wrong one. Below it they get the status
            ref_mismatch.
        batch_size: sequences in a forward pass; chosen for the device by default.
        phased: score the variants of each haplotype of a sample together where they fit into a
            window, as the VCF's GT says.
        sample: name of the sample; by default the VCF's first.
    """

    window: int = 65
    context_length: int | None = None
    edge: Edge = "pad"
    rc_mode: RcMode | None = None
    max_ref_mismatch: float = 0.01
    batch_size: int | None = None
    phased: bool = False
    sample: str | None = None

    def __post_init__(self) -> None:
        _check_choice("edge", self.edge, Edge)
        _check_least(self, "context_length", "batch_size")
        if self.sample is not None and not self.phased:
            raise UserError("sample is for phased variants: pass phased, too")
        if not 0 <= self.max_ref_mismatch <= 1:
            raise UserError(
                f"max_ref_mismatch is {self.max_ref_mismatch:g}; it is a share, from 0 to 1"
            )

    def check_window(self, mode: Mode | None) -> None:
        """Checks what depends on the mode.

        Args:
            mode: None where the model is to choose it.

        Raises:
            UserError: an unknown mode, or a window that does not fit into the context.
        """
        if mode is not None:
            _check_choice("mode", mode, Mode)
        # What a fine-tuned model was trained at is known when it is loaded.
        unknown = mode == "embedding" and self.context_length is None
        most = max(self.window, self.context) if unknown else self.context
        if mode in ("pll", "embedding") and not 1 <= self.window <= most:
            raise UserError(
                f"window is {self.window}; it must be from 1 to context_length, which is "
                f"{self.context}: pass a smaller window (65 by default) or a longer context"
            )


@dataclasses.dataclass(frozen=True)
class Masking(_Seen):
    """Sets how each base is masked in turn, and what the model sees around it.

    Args:
        context_length: bases the model sees, the masked one at 0-based index context_length // 2.
            Time grows in proportion. With an odd number the results do not depend on which strand
            the genome is written from. By default 1,023 bases, or the length that a fine-tuned
            model was trained at.
        edge: treatment of a context that extends past the end of a contig: pad it with N, shift it
            inward, drop the base (status crosses_edge), or stop with an error.
        masks_per_pass: bases masked in one pass, spread over the middle half of the context. K of
            them are about K times as fast, and an approximation: with 8 in 1,023, log-probabilities
            of a small human model (64 channels, 4 layers) moved by 0.011 on average and by less
            than 0.06 at 99 of 100 bases, and scores of changes by 0.02 (their standard deviation is
            0.97, the correlation 0.9996); with 32 by 0.04, 0.17, and 0.07 (0.995).
        rc_mode: none reads the + strand alone; posthoc (models that are not equivariant) averages
            both strands; equivariant is for models that are. By default the one of the latter two
            that fits the model.
        batch_size: windows in a forward pass; chosen for the device by default.
    """

    context_length: int | None = None
    edge: Edge = "pad"
    masks_per_pass: int = dataclasses.field(default=1, metadata={"alias": "together"})
    rc_mode: RcMode | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check_choice("edge", self.edge, Edge)
        _check_least(self, "context_length", "masks_per_pass", "batch_size")
        if self.masks_per_pass > 1 and self.context < 2 * self.masks_per_pass:
            raise UserError(
                f"masks_per_pass is {self.masks_per_pass} and context_length "
                f"{self.context}: context_length must be at least twice masks_per_pass"
            )


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Sets how a model's likelihood or output is attributed to bases.

    Args:
        method: gradient_x_input, gradient, integrated_gradients or mutagenesis.
        output: name or number (from 0) of the class, value or track of a fine-tuned model that is
            attributed; by default the only one, or the second of two classes.
        window: bases in the middle of each sequence. A language model masks them together, and
            their log-probability is attributed; by default no base is masked, and the
            log-probability of all bases is attributed. For a model of tracks, the mean over them is
            attributed.
        baseline: starting point of integrated gradients: a quarter of each base (uniform), no base
            at all (zeros), or N in place of each base (n).
        steps: number of points between baseline and sequence at which integrated gradients are
            evaluated.
        context_length: bases that the model sees around each region's middle, (start + end) // 2
            (0-based), or around each record's position: all of them get attributions. By default
            a region as it is. Only with a genome.
        edge: treatment of a window that extends past the end of a contig: pad it with N, shift it
            inward, drop the region (status crosses_edge), or stop with an error.
        max_length: bases of the longest sequence that is accepted.
        rc_mode: strands that a language model reads: none reads the strand as given; posthoc
            (models that are not equivariant) averages both strands; equivariant is for models that
            are. By default the one of the latter two that fits the model.
        batch_size: sequences in a forward pass; chosen for the device and the length by default.
    """

    method: Method = "gradient_x_input"
    output: str | None = None
    window: int | None = None
    baseline: Baseline = "uniform"
    steps: int = 64
    context_length: int | None = None
    edge: Edge = "pad"
    max_length: int = 131_072
    rc_mode: RcMode | None = None
    batch_size: int | None = None

    def __post_init__(self):
        _check_choice("method", self.method, Method)
        _check_choice("baseline", self.baseline, Baseline)
        _check_choice("edge", self.edge, Edge)
        _check_least(self, "window", "steps", "context_length", "max_length", "batch_size")


Options = TypeVar("Options", VariantScoring, Masking)


def chosen(kind: type[T], options: T | None, fields: Mapping[str, Any]) -> T:
    """Makes the options of a verb from what it was called with.

    Args:
        kind: their class.
        options: the value that was passed, if any.
        fields: the keyword arguments, which replace fields of `options`.

    Raises:
        UserError: a field that there is not, or a value that makes no sense.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore
    names = {field.metadata.get("alias"): name for name, field in known.items()}
    given = {names.get(name, name): value for name, value in fields.items()}
    if unknown := [name for name in given if name not in known]:
        raise TypeError(f"{unknown[0]} is not an option; there are {', '.join(known)}")
    return dataclasses.replace(options or kind(), **given)  # pyright: ignore


def fitted(m: Pretrained, mode: Mode | None, options: Options) -> tuple[Mode, Options]:
    """Chooses the mode, and how much of the genome the model sees, as fits the model.

    Args:
        m: any model with a head, with its tokenizer.
        mode: the mode that was asked for; None for the model's usual one.
        options: the verb's options.

    Returns:
        The mode: "llr" of a language model and "output" of a fine-tuned one unless another was
        asked for; and the options, with the context's length where it was left to the model.

    Raises:
        UserError: a mode or an option that the model does not have.
    """
    if isinstance(m.model, CaduceusForMaskedLM):
        if mode == "output":
            raise UserError(
                "mode is output, which is for fine-tuned models, and this is a language model: "
                "choose llr, pll or embedding"
            )
        return mode or "llr", resolved(options)
    if mode in ("llr", "pll"):
        raise UserError(
            f"mode is {mode}, which reads a language-model head, and this fine-tuned model has "
            "none: choose output or embedding"
        )
    if mode == "embedding":
        return mode, resolved(options, m.model.task.max_length or DEFAULT_LENGTH)
    if options.rc_mode is not None:
        raise UserError(
            "rc_mode is for language models: a fine-tuned model reads strands as it was trained to"
        )
    outputs = Outputs.of(m)
    if options.context_length is not None:
        outputs.check_context(options.context_length)
    length, bins = outputs.task.max_length or DEFAULT_LENGTH, outputs.bins
    return "output", resolved(options, max(length - length % bins, bins))


def resolved(options: Options, length: int = DEFAULT_LENGTH) -> Options:
    """Returns the options with the context's length, as the record of a run has it.

    Args:
        options: the verb's options.
        length: the length, where it was left to the model.
    """
    if options.context_length is not None:
        return options
    if length != DEFAULT_LENGTH:
        log.info(f"the model sees {length:,} bases at a time")
    return dataclasses.replace(options, context_length=length)


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise UserError(f"{name} is {value!r}; it is one of: {', '.join(get_args(choices))}")


def _check_least(options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
