"""What the pictures draw: cells, letters, dots and positions, on either strand."""

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.plots import draw_mutagenesis

polars = pytest.importorskip("polars")
pytest.importorskip("matplotlib")

_HALVES = np.log([0.5, 0.25, 0.125, 0.125])  # 0.25 bits


def make(references: str, first: int = 1):
    """Each base's probabilities are 1/2 for A, 1/4 for C, 1/8 for G and T."""
    rows = []
    for i, ref in enumerate(references):
        if ref == "N":
            rows.append(("chr1", first + i, "N", None, "ambiguous", None))
            continue
        for alt in (base for base in "ACGT" if base != ref):
            llr = _HALVES["ACGT".index(alt)] - _HALVES["ACGT".index(ref)]
            rows.append(("chr1", first + i, ref, alt, "ok", llr))
    names = ["chrom", "pos", "ref", "alt", "status", "llr"]
    return polars.DataFrame(rows, schema=names, orient="row")


def cells(figure) -> np.ndarray:
    (image,) = (axes.images[0] for axes in figure.axes if axes.images)
    return np.ma.filled(image.get_array(), np.nan)


def letters(axes) -> list[tuple[int, float, float]]:
    """Column, bottom and top of each letter of a logo."""
    (drawn,) = axes.collections
    boxes = [path.get_extents() for path in drawn.get_paths()]
    return [(round((box.x0 + box.x1) / 2), box.y0, box.y1) for box in boxes]


def test_the_heat_map_by_hand():
    figure = draw_mutagenesis(make("ANG", 99), model="tiny")
    log2 = np.log(2)
    expected = [[0, np.nan, 2], [-1, np.nan, 1], [-2, np.nan, 0], [-2, np.nan, 0]]
    np.testing.assert_allclose(cells(figure), log2 * np.array(expected), atol=1e-6)
    logo, heat_map = figure.axes[:2]
    assert heat_map.images[0].get_clim() == pytest.approx((-2 * log2, 2 * log2))
    assert [text.get_text() for text in heat_map.get_yticklabels()] == ["A", "C", "G", "T"]
    (dots,) = heat_map.lines
    np.testing.assert_array_equal(dots.get_xydata(), [(0, 0), (2, 2)])
    assert figure._suptitle.get_text() == "chr1:99-101, + strand, tiny"
    assert heat_map.get_xlabel() == "position, from 1; dots: the reference"
    assert figure.axes[-1].get_ylabel() == "log p(alt) - log p(ref), nats"


def test_the_logo_by_hand():
    """0.25 bits a stack: 1/32 each for the two least, 1/16, 1/8, the likeliest on top."""
    logo = draw_mutagenesis(make("ANG")).axes[0]
    bottoms, tops = [0, 1 / 32, 1 / 16, 1 / 8], [1 / 32, 1 / 16, 1 / 8, 1 / 4]
    found = letters(logo)
    assert [column for column, _, _ in found] == [0] * 4 + [2] * 4
    np.testing.assert_allclose([bottom for _, bottom, _ in found], bottoms * 2, atol=1e-6)
    np.testing.assert_allclose([top for _, _, top in found], tops * 2, atol=1e-6)


def test_the_other_strand_is_read_from_its_end():
    figure = draw_mutagenesis(make("ANG", 12_345), strand="-")
    log2 = np.log(2)
    # Rows are the - strand's A, C, G, T: the + strand's T, G, C, A.
    expected = [[0, np.nan, -2], [0, np.nan, -2], [1, np.nan, -1], [2, np.nan, 0]]
    np.testing.assert_allclose(cells(figure), log2 * np.array(expected), atol=1e-6)
    heat_map = figure.axes[1]
    np.testing.assert_array_equal(heat_map.lines[0].get_xydata(), [(0, 1), (2, 3)])
    assert figure._suptitle.get_text() == "chr1:12,345-12,347, - strand"
    assert heat_map.get_xlabel() == (
        "position, from 1, - strand from its 5' end; dots: the reference"
    )
    # No round position: the first base is named.
    labels = [text.get_text() for text in heat_map.get_xticklabels()]
    assert (heat_map.get_xticks().tolist(), labels) == ([0], ["12,347"])


def test_long_regions_are_split_into_rows():
    """250 bases: three rows of 84, 84 and 82, with the same scales."""
    figure = draw_mutagenesis(make("ACGTA" * 50, 1_000))
    maps = [axes for axes in figure.axes if axes.images and axes.get_yticklabels()]
    maps = [axes for axes in maps if axes.get_ylabel() == "alt"]
    assert [axes.images[0].get_array().shape for axes in maps] == [(4, 84), (4, 84), (4, 82)]
    assert {axes.get_xlim() for axes in maps} == {(-0.5, 83.5)}
    assert len({axes.images[0].get_clim() for axes in maps}) == 1
    ticks = [
        (row, x, text.get_text())
        for row, axes in enumerate(maps)
        for x, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    ]
    assert (0, 10, "1,010") in ticks
    assert (1, 6, "1,090") in ticks
    assert all(label == f"{1_000 + 84 * row + x:,}" for row, x, label in ticks)


@pytest.mark.parametrize(
    ("frame", "options", "says"),
    [
        (make("A" * 1_001), {}, "a picture shows at most 1,000 bases and the region has 1,001: "),
        (make("A").clear(), {}, "a picture shows one region of one contig, not of 0"),
        (polars.concat([make("A"), make("A", 9)]), {}, "a picture shows one region: these bases"),
        (polars.concat([make("A"), make("A")]), {}, "a picture shows one region: these bases"),
        (make("A"), {"strand": "."}, "strand is '.'; it is \\+ or -"),
    ],
)
def test_what_cannot_be_drawn(frame, options, says):
    with pytest.raises(UserError, match=f"^{says}"):
        draw_mutagenesis(frame, **options)


def test_a_fine_tuned_models_letters_are_as_high_as_the_output_owes_to_them():
    frame = make("AC").rename({"llr": "log_odds_ratio_x"})
    frame = frame.with_columns(log_odds_ratio_x=polars.Series([-3.0, -6.0, 0.0, 2.0, 1.0, 0.0]))
    for strand, order in (("+", [0, 1]), ("-", [1, 0])):
        figure = draw_mutagenesis(frame, strand=strand, column="log_odds_ratio_x")
        found = {column: (low, high) for column, low, high in letters(figure.axes[0])}
        assert found[order[0]] == pytest.approx((0, 3)) and found[order[1]] == pytest.approx(
            (-1, 0)
        )
        assert figure.axes[-1].get_ylabel() == "log odds ratio x"
    with pytest.raises(UserError, match="has no column llr; it has chrom"):
        draw_mutagenesis(frame)
