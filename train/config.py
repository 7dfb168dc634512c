"""The settings of a pretraining run: frozen dataclasses, which a YAML recipe overrides.

The docstrings are the manual page of `caduceus-jax pretrain --help`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from caduceus_jax.errors import UserError
from caduceus_jax.files import check_local
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.settings import advanced, recipe_only
from caduceus_jax.train.data.config import DataConfig, Names
from caduceus_jax.train.storage.remote import check_address

# Standard deviations above their mean from which on a loss or a gradient norm is a spike.
SIGMA = 6.0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer with its schedule and clipping; AdamW as in the original by default.

    Args:
        name: "adamw" (Loshchilov & Hutter 2019); "adafactor" (Shazeer & Stern 2018), which keeps
            one number per row and column of a matrix; "muon" (Jordan et al. 2024) for the input
            and output projections, and AdamW for all else.
        moments: dtype in which AdamW's moments are stored; bfloat16 takes half the memory.
        lr: largest learning rate, reached at the end of the warm-up.
        lr_init: learning rate of the very first step.
        lr_min: learning rate at the end of the decay, and after it.
        schedule: "cosine" decays from the end of the warm-up to the last step; "wsd" keeps the
            largest rate and decays in the last steps only, so that a run can be made longer.
        warmup_fraction: this share of the steps is a linear warm-up.
        decay_fraction: this share of the steps, at their end, is the decay of "wsd".
        decay_steps: length of the schedule in steps; null is the number of steps of the run. After
            it the rate stays at lr_min: a finished run is continued at that rate with more steps
            and the former number of steps here.
        beta1: decay of the gradients' running mean.
        beta2: decay of the squared gradients' running mean.
        epsilon: added to the root of the latter.
        weight_decay: pull to zero per step and unit of learning rate; not on the embedding,
            biases, A_log and D.
        clip_norm: gradients of a larger global norm are scaled down to it.
    """

    name: Literal["adamw", "adafactor", "muon"] = advanced("adamw")
    moments: Literal["float32", "bfloat16"] = advanced("float32")
    lr: float = 8e-3
    lr_init: float = advanced(1e-6)
    lr_min: float = advanced(1e-4)
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup_fraction: float = 0.1
    decay_fraction: float = advanced(0.2)
    decay_steps: int | None = advanced(None)
    beta1: float = advanced(0.9)
    beta2: float = advanced(0.95)
    epsilon: float = advanced(1e-8)
    weight_decay: float = 0.1
    clip_norm: float = advanced(1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_fraction < 1:
            raise UserError(
                f"optimizer.warmup_fraction is {self.warmup_fraction}; it is at least 0 and below 1"
            )
        if not 0 < self.decay_fraction <= 1 - self.warmup_fraction:
            raise UserError(
                f"optimizer.decay_fraction is {self.decay_fraction}; it is above 0 and at most "
                "1 - warmup_fraction"
            )
        if self.decay_steps is not None and self.decay_steps < 1:
            raise UserError(f"optimizer.decay_steps is {self.decay_steps}; it is at least 1")
        for name in ("lr", "clip_norm", "epsilon"):
            if not getattr(self, name) > 0:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}; it is above 0")
        if self.moments == "bfloat16" and self.name == "adafactor":
            raise UserError("optimizer.moments is bfloat16, but adafactor has no moments to store")
        # A running mean that changes by less than half of its last digit stands still.
        if self.moments == "bfloat16" and self.beta2 > 0.98:
            raise UserError(
                f"optimizer.moments is bfloat16, whose 8 bits lose the changes of beta2 "
                f"{self.beta2}: use beta2 of at most 0.98, or moments float32"
            )


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Settings of a training step: all that a compiled program depends on.

    Args:
        model: the architecture.
        optimizer: settings of the optimizer.
        steps: number of optimizer steps.
        batch_size: windows per step, over all devices.
        microbatches: each device computes its windows in this many pieces, one after the other,
            with the memory of one; the step is the same.
        max_length: tokens per window.
        fsdp: devices that share parameters and the optimizer's state, each with windows of its
            own; for models of more than about 100 million parameters.
        sequence: devices that share the length of each window, for windows that are too long for
            one. All devices together are a multiple of fsdp x sequence x tensor.
        tensor: devices that share the inner channels (model.d_model x model.expand); they exchange
            activations, so prefer `sequence`.
        dtype: type of activations and matrix products; parameters, norms and the recurrence are
            float32 either way.
        scan: implementation of the selective scan: "auto" picks for the device; "pallas_triton"
            and "triton" are fused kernels for NVIDIA GPUs, "mosaic_tpu" for TPUs.
        remat: "blocks" computes each block again in the backward pass: less memory, more time;
            "scans" does too, but keeps what the scans returned, and runs none of them again; "none"
            keeps what is inside. true and false mean "blocks" and "none".
        seed: the seed of the initial weights, the order of the windows and the masks.
        ema_decay: decay of a running mean of the weights, such as 0.999, which is then what is
            validated and exported; null is none. The first steps weigh more.
        z_loss: weight in the training loss of the square of the logits' logsumexp, such as 1e-4,
            which keeps the logits small; 0 is off.
        layer_norms: also log each layer's gradient norm, and the size of its update relative to
            its weights, as grad_norm_layers and update_ratio_layers.
        skip_spikes: also skip a step whose loss, or logarithm of its gradient norm, lies more than
            this many standard deviations above the mean of the 128 steps before it; true is 6,
            false is never.
    """

    model: CaduceusConfig = CaduceusConfig(rcps=True)
    optimizer: OptimizerConfig = OptimizerConfig()
    steps: int = 10_000
    batch_size: int = 8
    microbatches: int = 1
    max_length: int = 1024
    fsdp: int = 1
    sequence: int = 1
    tensor: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan: Literal["auto", "chunked", "pallas_triton", "triton", "mosaic_tpu"] = "auto"
    remat: Literal["none", "blocks", "scans"] | bool = "none"
    seed: int = 0
    ema_decay: float | None = advanced(None)
    z_loss: float = advanced(0.0)
    layer_norms: bool = advanced(False)
    skip_spikes: bool | float = advanced(False)

    def __post_init__(self) -> None:
        if isinstance(self.remat, bool):
            object.__setattr__(self, "remat", "blocks" if self.remat else "none")
        sizes = ("steps", "batch_size", "max_length", "microbatches", "fsdp", "sequence", "tensor")
        _check_positive(self, sizes)
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}; it is at least 0 and below 2**32")
        if self.spike_sigma is not None and not self.spike_sigma > 0:
            raise UserError(f"skip_spikes is {self.skip_spikes}; it is above 0, or false")
        if not self.z_loss >= 0:
            raise UserError(f"z_loss is {self.z_loss}; it is at least 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}; it is between 0 and 1, or null")
        self._check_shards()

    @property
    def spike_sigma(self) -> float | None:
        """Standard deviations from which on a step is a spike; None if none is skipped."""
        if isinstance(self.skip_spikes, bool):
            return SIGMA if self.skip_spikes else None
        return self.skip_spikes

    def _check_shards(self) -> None:
        wide, d_model = self.model.d_inner, self.model.d_model
        for name, size, what in (
            ("tensor", wide, f"{wide} inner channels (model.d_model x model.expand)"),
            ("fsdp", d_model, f"{d_model} channels of model.d_model"),
        ):
            if size % getattr(self, name):
                raise UserError(
                    f"{name} is {getattr(self, name)}, by which the {what} do not divide"
                )
        tokens, left = divmod(self.max_length, self.sequence)
        if left:
            raise UserError(
                f"max_length is {self.max_length}, which {self.sequence} devices along the "
                f"sequence cannot share evenly: use {(tokens + 1) * self.sequence}"
            )
        if self.sequence > 1 and tokens < self.model.d_conv - 1:
            raise UserError(
                f"max_length is {self.max_length}, of which each of {self.sequence} devices along "
                f"the sequence has {tokens}; model.d_conv {self.model.d_conv} needs at least "
                f"{self.model.d_conv - 1}"
            )


@dataclasses.dataclass(frozen=True)
class PretrainConfig(StepConfig):
    """One pretraining run.

    Args:
        model: the architecture; left out if `init` names a model, whose own it then is.
        optimizer: settings of the optimizer.
        steps: number of optimizer steps. A run is made longer by a larger number; the learning
            rate's schedule says how (optimizer.schedule, optimizer.decay_steps).
        batch_size: windows per step, over all devices.
        microbatches: each device computes its windows in this many pieces, one after the other,
            with the memory of one; the step is the same.
        max_length: tokens per window.
        fsdp: devices that share parameters and the optimizer's state, each with windows of its
            own; for models of more than about 100 million parameters.
        sequence: devices that share the length of each window, for windows that are too long for
            one. All devices together are a multiple of fsdp x sequence x tensor.
        tensor: devices that share the inner channels (model.d_model x model.expand); they exchange
            activations, so prefer `sequence`.
        dtype: type of activations and matrix products; parameters, norms and the recurrence are
            float32 either way.
        scan: implementation of the selective scan: "auto" picks for the device; "pallas_triton"
            and "triton" are fused kernels for NVIDIA GPUs, "mosaic_tpu" for TPUs.
        remat: "blocks" computes each block again in the backward pass: less memory, more time;
            "scans" does too, but keeps what the scans returned, and runs none of them again; "none"
            keeps what is inside. true and false mean "blocks" and "none".
        seed: the seed of the initial weights, the order of the windows and the masks.
        ema_decay: decay of a running mean of the weights, such as 0.999, which is then what is
            validated and exported; null is none. The first steps weigh more.
        z_loss: weight in the training loss of the square of the logits' logsumexp, such as 1e-4,
            which keeps the logits small; 0 is off.
        layer_norms: also log each layer's gradient norm, and the size of its update relative to
            its weights, as grad_norm_layers and update_ratio_layers.
        skip_spikes: also skip a step whose loss, or logarithm of its gradient norm, lies more than
            this many standard deviations above the mean of the 128 steps before it; true is 6,
            false is never.
        out: folder of the run, shared or at gs:// or s3://: config.yaml, metrics.jsonl, loss.png,
            tensorboard/, checkpoints/ and model/, the trained model in Hugging Face layout.
        init: model to begin from instead of random weights: a folder, a hub id, or a run or one
            of its checkpoints; with its own architecture and tokenizer.
        init_optimizer: also begin with the optimizer's state of that checkpoint; its own count of
            steps starts over.
        data: the sequence.
        log_every: steps between two lines of metrics.
        eval_every: steps between two validations; there is one after the last step too.
        checkpoint_every: steps between two checkpoints; there is one after the last step too.
        checkpoint_minutes: there is also one when the last is this old, at the next line of
            metrics; null is none.
        keep: number of the newest checkpoints that are kept.
        keep_every: checkpoints at multiples of this many steps are made and kept too; null keeps
            no more.
        strict: end with status 3 if the newest checkpoint is damaged; otherwise the run continues
            from the newest that is intact.
        max_skipped: a step whose loss or gradient is not finite changes only the position in the
            data; the run ends after this many of them in a row.
        watchdog_seconds: a process ends with status 1, and shows where it stands, when no step was
            finished for this long, or for ten times the median step if that is longer; null never
            ends it.
        eval_tasks: tasks that a linear probe of the model is scored on at every validation: folders
            with tables train and test (csv, tsv or parquet; columns sequence and label), or
            splice, 2,400 short sequences that come with the package; a list [splice,my_task].
        wandb: project of Weights & Biases (pip install wandb) that gets the metrics too.
        profile_steps: steps to trace, such as 10:13 for 10, 11 and 12; into profile/ in `out`. In a
            recipe it needs quotes, "10:13".
        resume: "auto" continues the run that is found in `out`; "never" only starts new ones.
        stages: further stages of the run, in a recipe: a list of settings such as
            {max_length: 32768, batch_size: 32, steps: 10000, lr: 2.0e-3}, each with its own steps,
            windows, batch and learning rate; what a stage leaves out is as in the one before. The
            settings above are the first stage. Stages may be added when a run continues.
        dry_run: make every check of a run, compile one step, report its memory, and stop.
        coordinator: host:port of the first of several processes, which all share `out`. By default
            they find each other on TPU pods, under SLURM and under Open MPI.
        processes: number of processes; 1 is this one alone, whatever the environment is.
        process: number of this process, from 0.
    """

    out: str = "runs/pretrain"
    init: str = ""
    init_optimizer: bool = advanced(False)
    data: DataConfig = DataConfig()
    log_every: int = advanced(10)
    eval_every: int = 500
    checkpoint_every: int = 500
    checkpoint_minutes: float | None = advanced(None)
    keep: int = 2
    keep_every: int | None = advanced(None)
    strict: bool = advanced(False)
    max_skipped: int = advanced(10)
    watchdog_seconds: float | None = advanced(100.0)
    eval_tasks: Names = ""
    wandb: str = ""
    profile_steps: str = advanced("")
    resume: Literal["auto", "never"] = "auto"
    stages: list[dict[str, Any]] | None = recipe_only(None)
    dry_run: bool = False
    coordinator: str | None = advanced(None)
    processes: int | None = advanced(None)
    process: int | None = advanced(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, ("log_every", "eval_every", "checkpoint_every", "keep"))
        _check_positive(self, ("max_skipped",))
        for name in ("keep_every", "checkpoint_minutes", "watchdog_seconds"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise UserError(f"{name} is {value}; it is above 0, or null")
        check_address("out", self.out)
        check_local("init", self.init)
        _ = self.profiled
        if self.init_optimizer and not self.init:
            raise UserError("init_optimizer is set, but no checkpoint is named: set init")
        if not self.init:  # whose architecture is not known yet
            self.check_strands()

    @property
    def profiled(self) -> range:
        """The steps to trace; empty if there are none."""
        if not self.profile_steps:
            return range(0)
        first, _, end = self.profile_steps.partition(":")
        steps = range(int(first), int(end)) if first.isdecimal() and end.isdecimal() else ()
        if not steps or not steps[0]:
            raise UserError(
                f"profile_steps is {self.profile_steps}; it is first:end, such as 10:13 for steps "
                "10, 11 and 12"
            )
        return range(steps[0], steps[-1] + 1)

    def check_strands(self) -> None:
        """Checks that the data show the strands that the model needs.

        Raises:
            UserError: data.rc_mode contradicts model.rcps.
        """
        if self.model.rcps and self.data.rc_mode != "equivariant":
            raise UserError(
                f"data.rc_mode is {self.data.rc_mode}, but model.rcps reads both strands by "
                "construction: use data.rc_mode equivariant, or model.rcps false"
            )
        if not self.model.rcps and self.data.rc_mode == "equivariant":
            raise UserError(
                "data.rc_mode is equivariant, but the model is not (model.rcps is false): use "
                "data.rc_mode augment or none, or model.rcps true"
            )


def _check_positive(config: Any, names: Sequence[str]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}; it is at least 1")


# These are told each process where it is started, and do not stand in a recipe.
LAUNCH = ("coordinator", "processes", "process")


def plain(config: Any) -> dict[str, Any]:
    """Turns a config (a dataclass) into nested dictionaries of plain values, as YAML has them."""
    return _lists(dataclasses.asdict(config))


def shared(config: PretrainConfig) -> dict[str, Any]:
    """Returns each setting that all processes of a run have in common, by its dotted name."""
    return {name: value for name, value in flat(plain(config)).items() if name not in LAUNCH}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(v) for key, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Gives nested settings dotted names: {"model": {"d_model": 64}} -> {"model.d_model": 64}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return found
