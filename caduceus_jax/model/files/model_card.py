"""The model card: README.md beside a saved model, as the Hugging Face hub shows it."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from caduceus_jax import markdown
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.version import __version__

README = "README.md"
# Cards with this line are written anew with their model; others are left alone.
_MARK = "<!-- written by caduceus-jax -->"
_ORIGINAL = "https://arxiv.org/abs/2403.03234"


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Holds facts that a model's files do not tell; what is not known is left out of the card.

    Args:
        name: the name of the model; by default that of its folder or run.
        data: training data, such as genomes and their assemblies.
        tokens: bases seen in training, with repetitions.
        recipe: the recipe or command it was trained with.
        commit: commit of the code that trained it.
        metrics: name -> value on held-out data.
        rc_error: largest difference between the output for a reverse complement and what it
            should be.
        license: an identifier of the hub, such as "apache-2.0".
        base_model: hub id or folder of the model that was fine-tuned.
    """

    name: str = ""
    data: str = ""
    tokens: int | None = None
    recipe: str = ""
    commit: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rc_error: float | None = None
    license: str = ""
    base_model: str = ""


def write(
    folder: pathlib.Path,
    config: CaduceusConfig,
    parameters: int,
    task: TaskDescription | None = None,
    card: ModelCard | None = None,
) -> None:
    """Writes README.md, unless there is one that somebody else wrote.

    Args:
        folder: the folder of the model.
        config: the architecture.
        parameters: number of parameters.
        task: meaning of the outputs of a fine-tuned model; None for a language model.
        card: further facts.
    """
    path = folder / README
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    # The model of a run is in runs/NAME/model, or in runs/NAME/seed-1/model.
    names = [name for name in folder.resolve().parts if not re.fullmatch(r"model|seed-\d+", name)]
    text = _text(card or ModelCard(), names[-1], config, parameters, task)
    path.write_text(text, encoding="utf-8")


def _text(
    card: ModelCard,
    folder: str,
    config: CaduceusConfig,
    parameters: int,
    task: TaskDescription | None,
) -> str:
    tags = ["dna", "genomics", "caduceus", "jax"]
    front = ["library_name: caduceus-jax", "tags:", *(f"- {tag}" for tag in tags)]
    if task is None:
        front.append("pipeline_tag: fill-mask")
    if card.license:
        front.append(f"license: {card.license}")
    if "/" in card.base_model and not card.base_model.startswith(("/", ".")):
        front.append(f"base_model: {card.base_model}")
    rows = [(name, value) for name, value in _facts(card, config, parameters, task) if value]
    lines = ["---", *front, "---", _MARK, "", f"# {card.name or folder}", ""]
    lines += [_summary(config, task), "", *markdown.table(("", ""), rows), ""]
    if card.metrics:
        metrics = [(name, f"{value:.4g}") for name, value in card.metrics.items()]
        lines += ["## Metrics", "", *markdown.table(("held-out data", "value"), metrics), ""]
    tracks = task is not None and task.kind == "tracks"
    loader = "cj.CaduceusForTracks.from_pretrained" if tracks else "cj.load"
    lines += [
        "## Use",
        "",
        "```python",
        "import caduceus_jax as cj",
        "",
        f'model = {loader}("PATH OR HUB ID OF THIS MODEL")',
        "```",
        "",
        f"Written by caduceus-jax {__version__}. The architecture is that of "
        f"[Caduceus]({_ORIGINAL}) (Schiff et al. 2024)"
        + ("." if tracks else ", and the original's PyTorch code loads it too."),
    ]
    return "\n".join(lines) + "\n"


def _summary(config: CaduceusConfig, task: TaskDescription | None) -> str:
    kind = "Caduceus-Ph" if config.bidirectional else "one reading direction"
    if config.rcps:
        kind = "Caduceus-PS, equivariant to the reverse complement"
    what = "masked language model of DNA" if task is None else f"model fine-tuned for {task.kind}"
    return f"A {what} ({kind})."


def _facts(
    card: ModelCard, config: CaduceusConfig, parameters: int, task: TaskDescription | None
) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("parameters", f"{parameters:,}"),
        ("d_model x n_layer", f"{config.d_model} x {config.n_layer}"),
        ("vocabulary", f"{config.vocab_size} tokens, one per base"),
        ("training data", card.data),
        ("bases seen in training", f"{card.tokens:,}" if card.tokens else ""),
        ("fine-tuned from", card.base_model),
        ("recipe", card.recipe),
        ("commit", card.commit),
        ("licence", card.license),
    ]
    if task is not None:
        facts += [
            ("outputs", ", ".join(task.labels)),
            ("longest training sequence", f"{task.max_length:,} bases" if task.max_length else ""),
            ("rc_mode", "equivariant" if config.rcps else task.rc_mode or "none"),
            ("pooling", task.pooling if task.kind != "tracks" else ""),
            ("bases per bin", str(task.bin_size) if task.kind == "tracks" else ""),
        ]
    if card.rc_error is not None:
        facts.append(("error on reverse complements", f"{card.rc_error:.1e} at most"))
    return facts
