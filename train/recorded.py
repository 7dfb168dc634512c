"""The settings of a run as they are recorded, and what may differ when it continues."""

import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from caduceus_jax.errors import UserError
from caduceus_jax.files import write_text
from caduceus_jax.train.config import LAUNCH, PretrainConfig, flat, plain

# These may differ between a run and its continuation: like the number of devices, they change
# computed numbers by rounding only; or they change what is reported; or they help a run past
# what it would fail at.
_FREE = (
    *("out", "log_every", "eval_every", "checkpoint_every", "keep", "resume"),
    *("microbatches", "fsdp", "sequence", "tensor", "remat", "scan", "watchdog_seconds"),
    *(
        "max_skipped",
        "skip_spikes",
        "layer_norms",
        "eval_tasks",
        "wandb",
        "profile_steps",
        "dry_run",
    ),
    # Whether genomes elsewhere are the same is decided by their digests.
    *("data.fasta", "data.workers", "data.threads"),
    *("data.validation_windows", "data.validation_masks"),
    *("checkpoint_minutes", "keep_every", "strict", *LAUNCH),
)


def save_config(config: PretrainConfig, path: pathlib.Path) -> None:
    """Writes the whole config as a recipe that `--config` reads again, in one piece."""
    settings = {key: value for key, value in plain(config).items() if key not in LAUNCH}
    write_text(path, yaml.safe_dump(settings, sort_keys=False))


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """Reads the settings that `save_config` wrote, as plain values.

    Raises:
        UserError: the file is not what was written.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(
            f"{path} is not as it was written: remove it, and the settings are compared with those "
            "in the checkpoint"
        )
    return settings


def check_same_run(
    config: PretrainConfig, recorded: Mapping[str, Any], source: pathlib.Path
) -> None:
    """Checks that the run with the recorded settings is the one that `config` describes.

    Args:
        config: the settings now.
        recorded: the settings then, as plain values.
        source: the file or folder that they were read from.

    Raises:
        UserError: the folder holds another run; the message names the first settings that differ.
    """
    # What an older version wrote lacks newer settings, which had their defaults then.
    before = {**flat(plain(PretrainConfig())), **flat(dict(recorded))}
    lasting = _longer(config, before)
    differing = [
        f"{key} (there {before.get(key)}, now {value})"
        for key, value in flat(plain(config)).items()
        if key not in (*_FREE, *lasting) and not _same(key, before.get(key), value)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        again = f", or continue it with --config {source}" if source.suffix == ".yaml" else ""
        raise UserError(
            f"{source.parent} holds another run, with other {', '.join(differing[:3])}{more}: "
            f"choose another folder with --out (--init {source.parent} begins there with these "
            f"weights){again}"
        )


def _same(key: str, before: Any, now: Any) -> bool:
    """Tells whether a setting is as it was; stages may have been added."""
    if key == "stages":
        before, now = before or [], now or []
        return now[: len(before)] == before
    return before == now


def _longer(config: PretrainConfig, before: Mapping[str, Any]) -> tuple[str, ...]:
    """Decides whether a run may be made longer, and returns the settings that may then differ.

    Raises:
        UserError: its schedule does not say how.
    """
    then, now, schedule = before.get("steps"), config.steps, config.optimizer
    if not isinstance(then, int) or then == now:
        return ()
    if schedule.schedule == "wsd" and schedule.decay_steps is None:
        return ("steps",)
    if now > then and schedule.decay_steps is not None:
        return ("steps", "optimizer.decay_steps")
    raise UserError(
        f"steps was {then} when this run began, and is {now} now: "
        + (
            f"with optimizer.decay_steps {then} the rest is trained at the smallest learning rate, "
            f"with optimizer.decay_steps {now} at that of a run of {now} steps"
            if now > then
            else "only a run with optimizer.schedule wsd can be made shorter"
        )
        + ("; a stage in stages has its own schedule" if now > then else "")
        + "; or choose another folder with --out, and begin there with --init"
    )
