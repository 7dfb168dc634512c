"""The settings of a fine-tuning run: frozen dataclasses, which a YAML recipe overrides.

The docstrings are the manual page of `caduceus-jax finetune --help`.
"""

import dataclasses
from typing import Literal

from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.task import Kind as Kind
from caduceus_jax.model.heads import Pooling
from caduceus_jax.settings import positional
from caduceus_jax.train.config import OptimizerConfig

Method = Literal["all", "lora", "probe"]
Protocol = Literal["clean", "paper"]


@dataclasses.dataclass(frozen=True)
class TracksConfig:
    """Signals along a genome (the task tracks).

    Args:
        bigwig: bigWig file, or a list; bases without a value are read as 0, and counted.
        genome: FASTA file of the same assembly.
        regions: BED file of the regions to use, its fourth column train, validation or test.
            Regions without a fourth column, and whole contigs without a file, train on their
            first 80 %, validate on the next 10 % and test on the last.
        length: bases of a window; windows that are mostly N are left out.
        stride: bases from one window to the next; null is `length`, no overlap.
        bin_size: bases of a bin; what is predicted is log(1 + mean of the bin).
    """

    bigwig: str | list[str] = ""
    genome: str = ""
    regions: str = ""
    length: int = 2_048
    stride: int | None = None
    bin_size: int = 128

    def __post_init__(self) -> None:
        for name in ("length", "stride", "bin_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.tracks.{name} is {value}; it is at least 1")
        if self.length % self.bin_size:
            raise UserError(
                f"data.tracks.length is {self.length}, not a multiple of bin_size {self.bin_size}"
            )


@dataclasses.dataclass(frozen=True)
class GenesConfig:
    """Expression of genes from the sequence around their starts (the task genes).

    Args:
        table: one row per gene, .csv, .tsv (either with .gz) or .parquet, with the columns below,
            the values to predict (`label`), and perhaps split (train, valid, test).
        genome: FASTA file of its assembly.
        chrom: column with the contig.
        position: column with the transcription start site.
        one_based: positions count from 1; false: from 0.
        signals: bigWig file, or a list, that the model reads beside the sequence, as log(1 + x).
        length: bases around the site, N outside the contig.
        validation_contigs: contigs to validate on, where the table has no column split.
        test_contigs: contigs to test on, where the table has no column split.
    """

    table: str = ""
    genome: str = ""
    chrom: str = "chrom"
    position: str = "tss"
    one_based: bool = True
    signals: str | list[str] = ""
    length: int = 200_000
    validation_contigs: str | list[str] = ""
    test_contigs: str | list[str] = ""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UserError(f"data.genes.length is {self.length}; it is at least 1")


@dataclasses.dataclass(frozen=True)
class LabelledConfig:
    """Labelled sequences: a published task, or your own files.

    Args:
        task: a published task, such as genomic_benchmarks/human_enhancers_cohn, whose files are in
            `folder`; or tracks or genes, with settings of their own. Where it is empty, `train`
            and `test` name files.
        folder: folder of the published files; what is missing there is downloaded if it can be.
        train: table (.csv, .tsv, either with .gz, or .parquet) or FASTA of training sequences.
        validation: a file to choose the epoch by; by default a part of `train`.
        test: a file of sequences for the result that is reported.
        sequence: column of the tables with the sequences.
        label: column of the tables with the labels, or with the values to regress: [a,b] for
            several. In a FASTA file the label is what follows the last | of a header line.
        kind: kind of labels: "classification"; "multi_label", any number of labels per sequence, as
            columns [a,b] of 0 and 1 or as one column of names joined by ; or "regression" of one or
            several values.
        max_length: longest sequence in tokens; null takes the length of the longest training one.
            Longer ones are cut at the end.
        validation_fraction: fraction of the training sequences used for validation when no file is
            given for it; which sequences depends on the seed.
        tracks: settings of the task tracks.
        genes: settings of the task genes.
    """

    task: str = ""
    folder: str = ""
    train: str = ""
    validation: str = ""
    test: str = ""
    sequence: str = "sequence"
    label: str | list[str] = "label"
    kind: Kind = "classification"
    max_length: int | None = None
    validation_fraction: float = 0.1
    tracks: TracksConfig = TracksConfig()
    genes: GenesConfig = GenesConfig()

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise UserError(
                f"data.validation_fraction is {self.validation_fraction}; it is between 0 and 1"
            )
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"data.max_length is {self.max_length}; it is at least 1")
        if self.task and (self.train or self.test):
            raise UserError("data.task names the files itself: leave data.train and data.test out")
        if self.kind == "tracks":
            raise UserError("data.kind is tracks, which is a task: use data.task tracks")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """One fine-tuning, repeated with several seeds.

    Args:
        out: folder of the results: config.yaml, summary.json, and for each seed result.json,
            metrics.jsonl, predictions.tsv, model/ and, with the method lora, adapter/.
        model: folder or hub id of a pretrained model, or of a classifier to continue from; where it
            is empty, `architecture` is trained from scratch.
        architecture: architecture of a model from scratch.
        data: the labelled sequences.
        optimizer: settings of the optimizer.
        method: "all" trains the whole model; "lora" low-rank changes of its projections (Hu et al.
            2022) and the head; "probe" a linear model on its frozen embeddings.
        lora_rank: rank of these changes.
        lora_alpha: low-rank updates are scaled by lora_alpha / lora_rank.
        new_head: draw a new head even if the model has one for the same labels. A head for other
            labels, or for the same ones in another order, is always replaced.
        class_weights: "balanced" makes every class (of several labels, both sorts of each) count
            alike in the training loss, however rare it is.
        pooling: reduction of a sequence's hidden states to one, before the linear head; null takes
            the one recorded with a fine-tuned model, or else mean.
        rc_mode: "none"; "augment" trains on either strand with equal odds; "posthoc" does so too,
            and averages the predictions for both strands when it validates and tests;
            "equivariant" goes with models that read both by construction. Null takes
            "equivariant" for these, and otherwise what is recorded with a fine-tuned model.
        protocol: "clean", or "paper" with the original's quirks: padding on the left that the model
            reads, and a schedule that is as long as if the test sequences were trained on too.
            The whole list: https://caduceus-jax.github.io/caduceus-jax/benchmarks-protocols/
        metric: the validation score that chooses the epoch that is tested; null takes the task's.
        epochs: passes over the training sequences.
        patience: stop after so many epochs without a better validation score; null never stops.
        batch_size: sequences per step, over all devices.
        dtype: type of activations and matrix products.
        remat: compute each block again in the backward pass: less memory, more time.
        seeds: seeds of the validation part, head, order and strands; one result for each.
    """

    out: str = "runs/finetune"
    model: str = positional("")
    architecture: CaduceusConfig = CaduceusConfig(rcps=True)
    data: LabelledConfig = LabelledConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-3)
    method: Method = "all"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    new_head: bool = False
    class_weights: Literal["none", "balanced"] = "none"
    pooling: Pooling | None = None
    rc_mode: Literal["none", "augment", "posthoc", "equivariant"] | None = None
    protocol: Protocol = "clean"
    metric: str | None = None
    epochs: int = 10
    patience: int | None = None
    batch_size: int = 128
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    seeds: list[int] = dataclasses.field(default_factory=lambda: [1, 2, 3, 4, 5])

    def __post_init__(self) -> None:
        for name in ("lora_rank", "epochs", "patience", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it is at least 1")
        if self.class_weights == "balanced" and self.data.kind == "regression":
            raise UserError("class_weights is balanced, but data.kind regression has no classes")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds are {self.seeds}; name at least one, and none twice")
        if wrong := [seed for seed in self.seeds if not 0 <= seed < 2**32]:
            raise UserError(f"a seed is {wrong[0]}; it is at least 0 and below 2**32")
