"""Plots of a comparison as SVG: rates by number of clients, and latencies by rate."""

from pathlib import Path
from typing import Any

from bench.comparison.report import Report, latency, medians, per_second
from bench.comparison.rows import ROWS

_COLOURS = ("#1f6feb", "#d1711c")


def plot(report: Report, path: Path) -> Path | None:
    """Draws the figures of all systems. Returns the path; `None` if there is nothing to draw or no matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return None
    closed = [row for row in ROWS.values() if row.name.startswith("closed-") and row.name in report["rows"]]
    opened = [row for row in ROWS.values() if row.rate is not None and row.name in report["rows"]]
    if not closed and not opened:
        return None
    # Ids from a fixed salt, text as text: the same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        names = list(report["systems"])
        for number, name in enumerate(names):
            colour = _COLOURS[number % len(_COLOURS)]
            heights = [medians(report, row.name, name, per_second) or 0 for row in closed]
            width = 0.8 / len(names)
            left.bar([n + width * number for n in range(len(closed))], heights, width, color=colour, label=name)
            for p, style in (("p50", "-"), ("p99", ":")):
                points = [(row.rate, medians(report, row.name, name, latency(p))) for row in opened]
                known = [(rate, ms) for rate, ms in points if ms is not None]
                if known:
                    right.plot(*zip(*known, strict=True), style, color=colour, marker=".", label=f"{name}, {p}")
        _label(left, right, [row.title for row in closed], len(names))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _label(left: Any, right: Any, titles: list[str], systems: int) -> None:
    left.set_xticks([n + 0.4 - 0.4 / systems for n in range(len(titles))], titles)
    left.set_ylabel("orders/s")
    left.legend(frameon=False)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("orders/s, open loop")
    right.set_ylabel("POST to VALIDATED, ms")
    right.legend(frameon=False)
