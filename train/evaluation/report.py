"""The report of an evaluation: one HTML file that needs no server, Markdown, and JSON."""

import base64
import datetime
import html
import io
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.figure

from caduceus_jax.files import write_json, write_text
from caduceus_jax.markdown import table as markdown_table
from caduceus_jax.version import __version__

MARKDOWN, PAGE, RESULTS = "report.md", "report.html", "results.json"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
table { border-collapse: collapse; font-size: 13px; }
td { white-space: nowrap; }
th, td { border-bottom: 1px solid #ddd; padding: .35em .8em; text-align: right; }
th { vertical-align: bottom; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
tr:hover td { background: #f5f5f5; }
.scroll { overflow-x: auto; }
footer { color: #666; font-size: 13px; margin-top: 2em; }
img { max-width: 100%; }
h2 { margin-top: 2em; }
"""


class Picture(NamedTuple):
    """One picture of a report, under a heading of its own."""

    heading: str
    alt: str  # what the picture shows, for people who cannot see it
    figure: matplotlib.figure.Figure


class Report(NamedTuple):
    """Holds what a report shows."""

    title: str
    facts: str  # one paragraph: what was run, and how the numbers are to be read
    table: list[list[str]]  # the header, then the rows
    text_columns: int = 1  # so many columns hold text, and the rest numbers
    pictures: Sequence[Picture] = ()


def write_report(folder: pathlib.Path, report: Report, results: Any) -> list[pathlib.Path]:
    """Writes report.html, report.md and results.json.

    Args:
        folder: made if it does not exist.
        report: the report.
        results: everything, for programs; numbers that are not finite become null.

    Returns:
        The paths of the three files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (PAGE, MARKDOWN, RESULTS)]
    write_text(paths[0], _page(report))
    write_text(paths[1], "\n".join(markdown(report)) + "\n")
    write_json(paths[2], results)
    return paths


def markdown(report: Report) -> list[str]:
    """Formats the title, the facts and the table as lines of Markdown."""
    header, *rows = report.table
    table = markdown_table(header, rows, numbers_from=report.text_columns)
    return [f"# {report.title}", "", report.facts, "", *table]


def _page(report: Report) -> str:
    cells = "".join(
        _html_row("td" if i else "th", row, report.text_columns)
        for i, row in enumerate(report.table)
    )
    pictures = "".join(map(_html_picture, report.pictures))
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(report.title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(report.title)}</h1>
<p>{html.escape(report.facts)}</p>
<div class="scroll"><table>
{cells}</table></div>
{pictures}<footer>caduceus-jax {__version__}, {made}</footer>
</body></html>
"""


def _html_row(tag: str, row: Sequence[str], text_columns: int) -> str:
    cells = "".join(
        f"<{tag}{' class=text' if i < text_columns else ''}>{html.escape(cell)}</{tag}>"
        for i, cell in enumerate(row)
    )
    return f"<tr>{cells}</tr>\n"


def _html_picture(picture: Picture) -> str:
    image = io.BytesIO()
    picture.figure.savefig(image, format="png")
    data = base64.b64encode(image.getvalue()).decode()
    return (
        f"<h2>{html.escape(picture.heading)}</h2>\n"
        f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{data}">\n'
    )
