"""The released checkpoints of Caduceus and PlantCaduceus, and their short names."""

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any, Literal

from caduceus_jax.errors import UserError

_CADUCEUS = (
    "Schiff et al. 2024, Caduceus: Bi-Directional Equivariant Long-Range DNA Sequence Modeling",
    "https://arxiv.org/abs/2403.03234",
)
_PLANT = (
    "Zhai et al. 2025, Cross-species modeling of plant genomes at single-nucleotide resolution "
    "using a pretrained DNA language model, PNAS 122(24) e2421738122",
    "https://doi.org/10.1073/pnas.2421738122",
)
_HUMAN = "human (hg38, the 34,021 training segments of Basenji and Enformer)"
_PLANTS = "16 flowering plants (kuleshov-group/Angiosperm_16_genomes)"


@dataclasses.dataclass(frozen=True)
class ReleasedModel:
    """Describes a checkpoint on the Hugging Face hub.

    Args:
        name: short name, accepted wherever a model is named.
        hub_id: owner/name on the hub.
        species: species that the model was pretrained on.
        equivariant: Caduceus-PS, whose output for the reverse complement is the reverse complement
            of its output; otherwise Caduceus-Ph, which reads one strand at a time.
        window: bases per training window; the longest input the model has seen.
        d_model: channels of the residual stream, of one strand.
        n_layer: blocks.
        vocab_size: rows of the embedding.
        megabytes: size of the file of weights, in 10^6 bytes.
        size_from: source of `megabytes`: the list of files on the hub, or 4 bytes per parameter
            where that list was not seen.
        weights: name of the file of weights; a .bin is a PyTorch pickle.
        licence: licence on the model's card.
        purpose: recommended use.
        citation: authors, year and title.
        url: address of the cited paper.
        remark: anything that was found to differ between sources; may be empty.
    """

    name: str
    hub_id: str
    species: str
    equivariant: bool
    window: int
    d_model: int
    n_layer: int
    vocab_size: int
    megabytes: float
    size_from: Literal["hub", "parameters"]
    weights: Literal["model.safetensors", "pytorch_model.bin"]
    licence: str
    purpose: str
    citation: str
    url: str
    remark: str = ""

    @property
    def parameters(self) -> int:
        """Number of parameters, counted from the architecture.

        All released models have tied projections, 16 states, a convolution of width 4, an expansion
        of 2 and a language-model head that reads the embedding.
        """
        inner, rank, states, width = 2 * self.d_model, -(-self.d_model // 16), 16, 4
        shared = self.d_model * 2 * inner + inner * self.d_model + self.d_model  # in, out, norm
        direction = inner * (width + 1) + inner * (rank + 2 * states)  # convolution, x_proj
        direction += inner * (rank + 1) + inner * (states + 1)  # dt_proj, A_log and D
        return self.n_layer * (shared + 2 * direction) + self.d_model * (self.vocab_size + 1)


def _caduceus(
    name: str, kind: str, size: str, window: int, megabytes: float, **facts: Any
) -> ReleasedModel:
    equivariant = kind == "ps"
    d_model, n_layer = (int(part) for part in size.split("x"))
    licence, length, rate = "Apache-2.0", "131k", ""
    if window == 1_024:
        licence = "none on the model's card; the authors' repository is Apache-2.0"
        length, rate = "1k", "_lr-8e-3"
    return ReleasedModel(
        name=name,
        hub_id=f"kuleshov-group/caduceus-{kind}_seqlen-{length}_d_model-{d_model}"
        f"_n_layer-{n_layer}{rate}",
        species=_HUMAN,
        equivariant=equivariant,
        window=window,
        d_model=d_model,
        n_layer=n_layer,
        vocab_size=16,
        megabytes=megabytes,
        weights="model.safetensors",
        citation=_CADUCEUS[0],
        url=_CADUCEUS[1],
        licence=licence,
        **facts,
    )


def _plant(layers: int, d_model: int, megabytes: float, **facts: Any) -> ReleasedModel:
    return ReleasedModel(
        name=f"plantcaduceus-l{layers}",
        hub_id=f"kuleshov-group/PlantCaduceus_l{layers}",
        species=_PLANTS,
        equivariant=True,
        window=512,
        d_model=d_model,
        n_layer=layers,
        vocab_size=8,
        megabytes=megabytes,
        weights="pytorch_model.bin",
        licence="Apache-2.0",
        citation=_PLANT[0],
        url=_PLANT[1],
        **facts,
    )


RELEASED = (
    _caduceus(
        "caduceus-ps-131k",
        "ps",
        "256x16",
        131_072,
        30.9,
        size_from="hub",
        purpose="human variants, embeddings and regulatory elements, where context is long or the "
        "strand is arbitrary: start here",
    ),
    _caduceus(
        "caduceus-ph-131k",
        "ph",
        "256x16",
        131_072,
        30.9,
        size_from="parameters",
        purpose="the same, one strand per pass; scores average the passes over both strands",
    ),
    _caduceus(
        "caduceus-ps-1k",
        "ps",
        "256x4",
        1_024,
        7.75,
        size_from="hub",
        purpose="fine-tuning on human sequences of up to about 1,000 bases",
    ),
    _caduceus(
        "caduceus-ph-1k",
        "ph",
        "256x4",
        1_024,
        7.75,
        size_from="hub",
        purpose="the same; the paper's model for the Nucleotide Transformer tasks",
    ),
    _caduceus(
        "caduceus-ps-1k-118",
        "ps",
        "118x4",
        1_024,
        1.88,
        size_from="parameters",
        purpose="trying things out; the paper's model for Genomic Benchmarks",
    ),
    _caduceus(
        "caduceus-ph-1k-118",
        "ph",
        "118x4",
        1_024,
        1.89,
        size_from="hub",
        purpose="trying things out; the paper's model for Genomic Benchmarks",
    ),
    _plant(20, 384, 83.6, size_from="hub", purpose="plants: testing and quick analyses"),
    _plant(24, 512, 175.0, size_from="hub", purpose="plants, a little larger"),
    _plant(
        28,
        768,
        448.4,
        size_from="parameters",
        purpose="plants, larger",
        remark="the authors' README gives 128 million parameters; 768 channels and 28 layers have "
        "112 million",
    ),
    _plant(
        32,
        1_024,
        902.0,
        size_from="hub",
        purpose="plants: recommended by its authors for research",
    ),
)
_BY_NAME = {model.name: model for model in RELEASED} | {
    model.hub_id.lower(): model for model in RELEASED
}


def find(name: str) -> ReleasedModel | None:
    """Finds a released model by its short name or its hub id.

    Args:
        name: short name or hub id, in upper or lower case; a short name may be written with
            underscores.

    Returns:
        The model, or None if `name` is neither.
    """
    asked = name.strip().lower()
    return _BY_NAME.get(asked) or _BY_NAME.get(asked.replace("_", "-"))


def resolve(name: str) -> str:
    """Translates a short name into a hub id.

    Args:
        name: anything that names a model: a short name, a hub id or a path.

    Returns:
        The hub id of a short name; any other `name` as it is.

    Raises:
        UserError: `name` has no slash, is not a short name, and is close to one.
    """
    if "/" not in name and (model := find(name)):
        return model.hub_id
    if "/" not in name and (near := closest(name)):
        raise UserError(f"{name} is not a file, a folder or a released model; did you mean {near}?")
    return name


def closest(name: str) -> str | None:
    """Finds the short name that looks most like a misspelt one; None if none does."""
    names = [model.name for model in RELEASED]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=1, cutoff=0.75)
    return near[0] if near else None


def facts(model: ReleasedModel) -> Iterator[tuple[str, str]]:
    """Yields all that is known about a model, as pairs of a title and a text."""
    source = {
        "hub": "the hub's list of files, as seen in 2024 and 2025",
        "parameters": "4 bytes per parameter; the hub's list of files was not seen",
    }[model.size_from]
    yield "short name", model.name
    yield "hub id", model.hub_id
    yield "pretrained on", model.species
    yield (
        "kind",
        (
            "Caduceus-PS, equivariant: both strands in one pass"
            if model.equivariant
            else "Caduceus-Ph: one strand per pass"
        ),
    )
    yield "window", f"{model.window:,} bases"
    yield "size", f"{model.parameters:,} parameters, {model.d_model} x {model.n_layer}"
    yield "download", f"{model.megabytes:g} MB, {model.weights} ({source})"
    yield "licence", model.licence
    yield "use it for", model.purpose
    yield "cite", f"{model.citation}, {model.url}"
    if model.remark:
        yield "remark", model.remark
