"""Tables in Markdown."""

from collections.abc import Sequence


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers_from: int | None = None
) -> list[str]:
    """Formats a table.

    Args:
        header: one name per column.
        rows: cells as text or as values, one sequence per row; a | in a cell is escaped.
        numbers_from: columns from this one on (0-based) are aligned to the right; None aligns all
            to the left.

    Returns:
        The lines of the table, without a blank line before or after it.
    """
    plain = len(header) if numbers_from is None else numbers_from
    marks = ["---"] * plain + ["---:"] * (len(header) - plain)
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in (header, *rows)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], marks, *cells[1:])]
