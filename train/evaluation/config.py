"""Settings of `caduceus-jax evaluate`, `evaluate eqtl` and `evaluate masked`.

The docstrings are the manual pages of these commands.
"""

import dataclasses
from typing import Literal

from caduceus_jax.errors import UserError
from caduceus_jax.settings import positional
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig, Protocol


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """One or several models, fine-tuned on a suite of tasks.

    Args:
        model: folder or hub id of a pretrained model; empty trains `tuning.architecture` from
            scratch.
        models: several models to compare, [name=path,name=path], instead of `model`; the word
            scratch alone stands for `tuning.architecture`, trained from random weights.
        suite: published tasks: genomic-benchmarks or nucleotide-transformer. The commands
            `evaluate eqtl` and `evaluate masked` have suites of their own.
        tasks: names of tasks of the suite, [a,b]; null takes all. Without a suite: folders that
            hold the tables train, validation (or valid, val, dev) and test, as .csv, .tsv (either
            with .gz) or .parquet.
        out: folder of the results: report.html (one file, to be opened in any browser), report.md,
            results.json, and one folder per fine-tuning.
        tuning: the fine-tuning of each model on each task. Its model, out, data.task, data.train,
            data.validation and data.test are set by this command and cannot be given.
    """

    model: str = positional("")
    models: list[str] | None = None
    suite: str = ""
    tasks: list[str] | None = None
    out: str = "runs/evaluate"
    tuning: FinetuneConfig = FinetuneConfig()

    def __post_init__(self) -> None:
        tuning, plain = self.tuning, FinetuneConfig()
        for name, instead in (("model", "model or models"), ("out", "out")):
            if getattr(tuning, name) != getattr(plain, name):
                raise UserError(f"tuning.{name} is not read here: set {instead} instead")
        for name in ("task", "train", "validation", "test", "tracks", "genes"):
            if getattr(tuning.data, name) != getattr(LabelledConfig(), name):
                raise UserError(f"tuning.data.{name} is not read here: name a suite, or tasks")
        if self.model and self.models:
            raise UserError("model and models are both given: list all models in models")


@dataclasses.dataclass(frozen=True)
class EqtlEvaluation:
    """Predicts which variants change expression: a support vector machine on a model's states.

    Args:
        model: folder or hub id of a pretrained model.
        table: variants with labels, such as All_Tissues.csv of the Genomics Long-Range Benchmark.
        genome: FASTA file of their assembly.
        out: folder of the results: report.html, report.md, results.json, rows.tsv with one row per
            row of the table, and the states that are read again when the command is repeated.
        context_length: bases around each variant that the model reads.
        window: bases around the variant over which its states are averaged, an odd number.
        test_contigs: contig, or a list [chr9,chr10], to test on where the table has no column
            split.
        rc_mode: "none" averages over the + strand only; any other value over both strands.
        protocol: "clean", or "paper" with the original's choices; the differences are listed at
            https://caduceus-jax.github.io/caduceus-jax/benchmarks-protocols/
        seeds: seeds of the training rows that are drawn; one result for each.
        dtype: type of activations and matrix products.
        batch_size: windows per batch; null chooses it for the device.
    """

    model: str
    table: str = ""
    genome: str = ""
    out: str = "runs/eqtl"
    context_length: int = 131_072
    window: int = 1_537
    test_contigs: str | list[str] = ""
    rc_mode: Literal["none", "posthoc", "equivariant"] = "equivariant"
    protocol: Protocol = "clean"
    seeds: list[int] = dataclasses.field(default_factory=lambda: [1, 2, 3, 4, 5])
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.context_length < 1:
            raise UserError(f"context_length is {self.context_length}; it must be at least 1")
        if self.window < 1 or self.window % 2 == 0:
            raise UserError(f"window is {self.window}; it must be an odd number of bases")
        if not self.seeds:
            raise UserError("seeds is empty: name at least one")


@dataclasses.dataclass(frozen=True)
class MaskedEvaluation:
    """Measures how well a model predicts masked bases, by kind of region.

    Args:
        model: folder or hub id of a pretrained model.
        genome: FASTA file; lower case is a repeat.
        annotation: BED (kinds in the fourth column), GFF or GTF (in the third) of its regions.
        out: folder of the results: report.html, report.md and results.json.
        contigs: contig, or a list [chr1,chr2], to take windows from; empty takes all.
        context_length: bases per window, all of which the model reads.
        windows: largest number of windows, spread evenly.
        mask_probability: share of a window's bases that are masked, all in one pass.
        dtype: type of activations and matrix products.
        batch_size: windows per batch; null chooses it for the device.
    """

    model: str
    genome: str = ""
    annotation: str = ""
    out: str = "runs/masked"
    contigs: str | list[str] = ""
    context_length: int = 1_024
    windows: int = 1_000
    mask_probability: float = 0.15
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("context_length", "windows"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 1 <= round(self.context_length * self.mask_probability) <= self.context_length:
            raise UserError(
                f"mask_probability is {self.mask_probability}, which masks none of the "
                f"{self.context_length} bases, or more than there are"
            )
