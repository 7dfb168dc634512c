"""The report of `plan`, as Markdown."""

from typing import Any

from caduceus_jax import markdown
from caduceus_jax.train.planning.divisions import Division
from caduceus_jax.train.planning.topology import GIB


def lines(report: dict[str, Any]) -> list[str]:
    """Formats a plan.

    Args:
        report: the report that `plan` prints as JSON.
    """
    share = share_of(report)
    windows, needed = report["windows"], report["needed_bytes"]
    verdict = "fits" if report["fits"] else "does not fit"
    size = f"{needed / GIB:.2f}" if needed else "more than"
    sizes = " x ".join(f"{name} {size}" for name, size in report["mesh"].items() if size > 1)
    lines = [
        f"{report['topology']}: {report['devices']} devices{sizes and ', '}{sizes}; "
        f"{windows:,} window{'s' * (windows > 1)} of {report['tokens_per_window']:,} tokens per "
        f"step, {report['windows_per_group']} {share}",
        f"{verdict}: {size}{' of' * bool(needed)} {report['available_bytes'] / GIB:.2f} GiB on "
        "each device",
        f"lowered in {report['lower_seconds']:.1f} s, compiled in "
        f"{report['compile_seconds']:.1f} s, {report['host_bytes'] / GIB:.2f} GiB of this "
        "machine's memory",
    ]
    if report["memory"] is not None:
        rows = [(kind, f"{size / GIB:.3f}") for kind, size in report["memory"].items()]
        lines += _table("memory of each device", ["GiB"], rows)
        rows = [
            (
                f"{row['kind']}, {row['origin']}: {_short(row['shape'])}",
                f"{row['count']:,}",
                f"{row['bytes'] / 2**20:.2f}",
            )
            for row in report["collectives"]
        ]
        lines += _table(
            "collective, and its result on a device", ["per step", "MiB per step"], rows
        )
    rows = [
        (
            kind,
            f"{cost['flops'] / 1e12:.4g}",
            f"{cost['exponentials'] / 1e9:.4g}",
            f"{cost['bytes'] / 1e9:.4g}",
        )
        for kind, cost in report["per_device"].items()
    ]
    lines += _table("counted of each device", ["TFLOP", "G exponentials", "GB moved"], rows)
    if (predicted := report["predicted"]) is not None:
        lines += _predicted(predicted)
    if (largest := report["largest_windows_per_group"]) is not None:
        rows = [
            (
                str(attempt["windows"]),
                "yes" if attempt["fits"] else "no",
                f"{attempt['needed'] / GIB:.2f}" if attempt["needed"] else "not said",
                f"{attempt['compile_seconds']:.0f}",
            )
            for attempt in report["tried"]
        ]
        lines += _table(f"windows {share}", ["fits", "GiB", "compiled in s"], rows)
        lines += _divided(report["divisions"])
        lines += ["", f"largest that fits: {largest} window{'s' * (largest != 1)} {share}"]
    return lines


def _divided(divisions: list[dict[str, Any]]) -> list[str]:
    """Writes the divisions that were tried as a table."""
    rows = []
    for division in (Division(**row) for row in divisions):
        needed = f"{division.needed / GIB:.2f}" if division.needed else "not said"
        sent = "" if division.sent is None else f"{division.sent / 2**20:,.0f}"
        fits = "yes" if division.fits else "no"
        seconds = f"{division.compile_seconds:.0f}"
        rows.append((division.words() or "windows only", fits, needed, sent, seconds))
    heads = ["fits", "GiB", "MiB sent per step", "compiled in s"]
    return _table("division with the same batch", heads, rows) if rows else []


def share_of(report: dict[str, Any]) -> str:
    """Names who computes a window.

    Args:
        report: the report that `plan` prints as JSON.
    """
    size = report["mesh"]["sequence"] * report["mesh"]["tensor"]
    return "per device" if size == 1 else f"per group of {size} devices"


def _predicted(predicted: dict[str, dict[str, float | None]]) -> list[str]:
    """Writes the bounds of each kind of work, and their sum."""
    rows = [
        (kind, *("" if bound is None else f"{1e3 * bound:.4g}" for bound in found.values()))
        for kind, found in predicted.items()
    ]
    least = sum(found["least"] or 0 for found in predicted.values())
    heads = ["arithmetic", "exponentials", "memory", "links", "at least"]
    return [
        *_table("predicted at published peaks, ms per step", heads, rows),
        "",
        f"predicted, not measured: a step takes at least {least:.3g} s, one kind of work after "
        "the other",
    ]


def _short(shape: str) -> str:
    """Shortens a tuple to its first array; all of them are in the JSON."""
    first, *others = shape.strip("()").split(", ")
    return f"{first} and {len(others)} more" if others else first


def _table(first: str, others: list[str], rows: list[tuple[str, ...]]) -> list[str]:
    return ["", *markdown.table([first, *others], rows, numbers_from=1)]
