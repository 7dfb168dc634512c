"""Pictures of regions: logos of what a model predicts and of what it looks at, heat maps."""

import pathlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import polars
from jaxtyping import Float, Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.scoring.per_base import information

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MOST_BASES = 1_000
_BASES = "ACGT"
_BASES_A_ROW = 100
_FEWEST_A_ROW = 30  # or letters would be wider than high
# The colours of sequence logos since Schneider & Stephens (1990).
_COLOURS = {"A": "#109648", "C": "#255c99", "G": "#f7b32b", "T": "#d62839"}
_INCHES_A_BASE = 0.14
_INCHES_BESIDE = 1.7
_TICK_INCHES = 1.0  # room that a position needs


class _Drawn(NamedTuple):
    """A region as it is drawn, from the left to the right."""

    position: Int[np.ndarray, " bases"]  # from 1
    reference: Int[np.ndarray, " bases"]  # index in ACGT; -1 for N
    llr: Float[np.ndarray, "bases 4"]  # NaN where there is none; 0 for the reference


def check_length(bases: int) -> None:
    """Refuses regions that no picture shows legibly.

    Raises:
        UserError: the region has more than 1,000 bases.
    """
    if bases > MOST_BASES:
        raise UserError(
            f"a picture shows at most {MOST_BASES:,} bases and the region has {bases:,}: draw a "
            "part of it, or write a table or a track"
        )


def draw_mutagenesis(
    frame: polars.DataFrame,
    *,
    strand: Literal["+", "-"] = "+",
    model: str = "",
    title: str | None = None,
    column: str = "llr",
) -> "Figure":
    """Draws every single-base change of a region under what the model predicts there.

    The logo's stacks are as high as the model is certain: 2 bits less the entropy of its four
    probabilities, each letter in proportion to its own. Of a fine-tuned model the logo shows the
    reference, each base as high as the mean of its three changes is low: what the model's output
    owes to it. In the heat map a dot marks the reference. Rows of the picture have up to 100 bases
    each.

    Args:
        frame: table from `mutagenesis`, of one region.
        strand: "+", or "-" to read the other strand from its 5' end, letters complemented.
        model: name of the model in the title.
        title: title of the figure; by default it names the region, the strand and the model.
        column: name of the column to draw; for a fine-tuned model, one of the columns of its
            outputs.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        UserError: no such column, several contigs, bases that do not follow one another, none, or
            too many.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    drawn, chrom = _drawn(frame, strand, column)
    bases = len(drawn.position)
    rows = -(-bases // _BASES_A_ROW)
    a_row = max(-(-bases // rows), _FEWEST_A_ROW)
    likelihood = column == "llr"
    logo = _letter_heights(drawn.llr) if likelihood else _owed_heights(drawn)
    said = "information\n(bits)" if likelihood else "-mean of\nchanges"
    width = max(a_row * _INCHES_A_BASE + _INCHES_BESIDE, 6.5)
    layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.02, hspace=0.0, wspace=0.0)
    figure = Figure(figsize=(width, 0.7 + 2.15 * rows), dpi=150, layout=layout)
    first, last = drawn.position.min(), drawn.position.max()
    name = f"{chrom}:{first:,}-{last:,}, {strand} strand" + (f", {model}" if model else "")
    figure.suptitle(name if title is None else title, fontsize=11, wrap=True)
    # A thin row of nothing keeps one pair of axes from the next.
    heights = [1.0, 0.62, 0.12] * rows
    axes = figure.subplots(3 * rows, 1, gridspec_kw={"height_ratios": heights}, squeeze=False)[:, 0]
    scale = float(np.nanmax(np.abs(drawn.llr), initial=0.0)) or 1.0
    limits = _limits(logo)
    images = []
    for row in range(rows):
        above, below, gap = axes[3 * row : 3 * row + 3]
        gap.set_axis_off()
        part = slice(row * a_row, min((row + 1) * a_row, bases))
        some = _Drawn(*(column[part] for column in drawn))
        _draw_logo(above, logo[part], limits, a_row, said)
        if not likelihood:
            above.axhline(0, color="0.5", linewidth=0.5, zorder=0)
        images.append(_draw_heat_map(below, some, scale, a_row))
        _label_positions(below, some.position, a_row, width)
    read = ", - strand from its 5' end" if strand == "-" else ""
    axes[3 * rows - 2].set_xlabel(f"position, from 1{read}; dots: the reference", fontsize=9)
    bar = figure.colorbar(images[-1], ax=list(axes), fraction=0.02, pad=0.01, aspect=18 + 10 * rows)
    text = "log p(alt) - log p(ref), nats" if likelihood else column.replace("_", " ")
    bar.set_label(text, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def _drawn(frame: polars.DataFrame, strand: str, column: str) -> tuple[_Drawn, str]:
    if column not in frame.columns:
        raise UserError(f"the table has no column {column}; it has {', '.join(frame.columns)}")
    if strand not in ("+", "-"):
        raise UserError(f"strand is {strand!r}; it is + or -")
    chroms = frame["chrom"].unique().to_list()
    if len(chroms) != 1 or frame["ref"].null_count():
        raise UserError(f"a picture shows one region of one contig, not of {len(chroms)}")
    position, row = np.unique(frame["pos"].to_numpy(), return_inverse=True)
    check_length(len(position))
    if position[-1] - position[0] + 1 != len(position) or len(frame) > 3 * len(position):
        raise UserError("a picture shows one region: these bases do not follow one another")
    index = {base: i for i, base in enumerate(_BASES)}
    reference = np.full(len(position), -1)
    reference[row] = [index.get(base, -1) for base in frame["ref"].to_list()]
    alt = np.array([index.get(base, -1) for base in frame["alt"].to_list()])
    llr = np.full((len(position), 4), np.nan)
    change = alt >= 0
    llr[row[change], alt[change]] = frame[column].fill_null(np.nan).to_numpy()[change]
    scored = ~np.isnan(llr).all(axis=1)
    llr[scored, reference[scored]] = 0.0
    if strand == "-":
        # The complement of index i is 3 - i.
        reference = np.where(reference >= 0, 3 - reference, -1)[::-1]
        position, llr = position[::-1], llr[::-1, ::-1]
    return _Drawn(position, reference, llr), chroms[0]


def _letter_heights(llr: Float[np.ndarray, "bases 4"]) -> Float[np.ndarray, "bases 4"]:
    """Returns the bits of each letter: the ratios to one base tell all four probabilities."""
    odds = np.exp(llr - llr.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True) * information(llr)[:, None]


def _owed_heights(drawn: _Drawn) -> Float[np.ndarray, "bases 4"]:
    """Returns the heights of the reference's letters: what the output loses without each."""
    heights = np.zeros(drawn.llr.shape)
    scored = np.flatnonzero(~np.isnan(drawn.llr).any(axis=1))
    # The reference itself changes nothing, so that the sum is that of three.
    heights[scored, drawn.reference[scored]] = -drawn.llr[scored].sum(axis=1) / 3
    return heights


def _limits(heights: Float[np.ndarray, "bases 4"]) -> tuple[float, float]:
    """Returns the ends of an axis on which all letters are seen."""
    heights = np.nan_to_num(heights)
    above = float(np.maximum(heights, 0).sum(axis=1).max(initial=0)) * 1.05
    below = float(np.minimum(heights, 0).sum(axis=1).min(initial=0)) * 1.05
    return below, above if above > below else 0.01


def draw_attribution(
    frame: polars.DataFrame, *, model: str = "", method: str = "", title: str | None = None
) -> "Figure":
    """Draws the attributions of one sequence as a logo, up to 100 bases in a row.

    A letter is as high as the attribution of its base; those that are negative hang below the line.

    Args:
        frame: table from `attribute`, of one sequence.
        model: name of the model in the title.
        method: name of the method in the title.
        title: title of the figure; by default it names the sequence, the model and the method.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        UserError: several sequences, none, or too many bases.
    """
    from matplotlib.figure import Figure

    if len(names := frame["name"].unique()) != 1 or frame["ref"].null_count():
        raise UserError(f"a picture shows one sequence, not {len(names)}")
    bases = len(frame)
    check_length(bases)
    rows = -(-bases // _BASES_A_ROW)
    a_row = max(-(-bases // rows), _FEWEST_A_ROW)
    index = np.array([_BASES.find(base) for base in frame["ref"].to_list()])
    heights = np.zeros((bases, 4))
    known = np.flatnonzero(index >= 0)
    heights[known, index[known]] = frame["attribution"].fill_null(0).to_numpy()[known]
    width = max(a_row * _INCHES_A_BASE + _INCHES_BESIDE, 6.5)
    figure = Figure(figsize=(width, 0.8 + 1.5 * rows), dpi=150, layout="constrained")
    name = str(names[0])
    if "chrom" in frame.columns:
        name = f"{frame['chrom'][0]}:{frame['pos'][0]:,}-{frame['pos'][-1]:,}"
    default = ", ".join(text for text in (name, model, method.replace("_", " ")) if text)
    figure.suptitle(default if title is None else title, fontsize=11, wrap=True)
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    edge = 0.05 * (float(np.abs(heights).max(initial=0)) or 1.0)
    limits = (min(float(heights.min()), 0.0) - edge, max(float(heights.max()), 0.0) + edge)
    for row, axis in enumerate(axes):
        part = slice(row * a_row, min((row + 1) * a_row, bases))
        _draw_logo(axis, heights[part], limits, a_row, "attribution")
        axis.axhline(0, color="0.5", linewidth=0.5, zorder=0)
        _label_positions(axis, frame["pos"].to_numpy()[part], a_row, width)
    axes[-1].set_xlabel("position, from 1", fontsize=9)
    return figure


def short_name(model: str) -> str:
    """Returns what a picture calls a model: a hub id as it is, of a path the last two names."""
    return "/".join(pathlib.Path(model).parts[-2:]).lstrip("/")


def _draw_logo(
    axes: Any,
    heights: Float[np.ndarray, "bases 4"],
    limits: tuple[float, float],
    a_row: int,
    label: str,
) -> None:
    from matplotlib.collections import PathCollection
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    font = FontProperties(family="DejaVu Sans", weight="bold")
    outlines = {base: TextPath((0, 0), base, size=1, prop=font) for base in _BASES}
    paths, colours = [], []
    for column, stack in enumerate(heights):
        above = below = 0.0
        for i in np.argsort(np.abs(stack)):
            if not abs(stack[i]) > 0:
                continue
            outline, down = outlines[_BASES[i]], min(stack[i], 0.0)
            box = outline.get_extents()
            # What is negative stands upright, below the line.
            bottom = above if stack[i] > 0 else below + down
            fitted = (
                Affine2D()
                .translate(-box.x0, -box.y0)
                .scale(0.92 / box.width, abs(stack[i]) / box.height)
                .translate(column - 0.46, bottom)
            )
            paths.append(outline.transformed(fitted))
            colours.append(_COLOURS[_BASES[i]])
            above, below = above + max(stack[i], 0.0), below + down
    axes.add_collection(PathCollection(paths, facecolors=colours, linewidths=0), autolim=False)
    axes.set(xlim=(-0.5, a_row - 0.5), ylim=limits, xticks=[])
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_heat_map(axes: Any, drawn: _Drawn, scale: float, a_row: int) -> "AxesImage":
    from matplotlib import colormaps

    image = axes.imshow(
        np.ma.masked_invalid(drawn.llr.T),
        cmap=colormaps["RdBu"].with_extremes(bad="0.85"),
        vmin=-scale,
        vmax=scale,
        aspect="auto",
        interpolation="nearest",
    )
    known = np.flatnonzero(drawn.reference >= 0)
    axes.plot(known, drawn.reference[known], ".", color="black", markersize=3)
    axes.set(xlim=(-0.5, a_row - 0.5), ylim=(3.5, -0.5))
    axes.set_yticks(range(4), list(_BASES), fontsize=8, family="monospace")
    axes.set_ylabel("alt", fontsize=8)
    return image


def _label_positions(axes: Any, position: np.ndarray, a_row: int, width: float) -> None:
    inches = (width - _INCHES_BESIDE) / a_row
    steps = [1, 2, 5, 10, 20, 50]
    step = next((s for s in steps if s * inches >= _TICK_INCHES), steps[-1])
    at = np.flatnonzero(position % step == 0)
    at = at if len(at) else np.zeros(1, np.int64)
    axes.set_xticks(at, [f"{p:,}" for p in position[at].tolist()], fontsize=8)
