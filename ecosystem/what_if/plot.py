"""Draws a difference: orders and value by what would have changed."""

from pathlib import Path
from typing import Any

from ecosystem.what_if.difference import Difference
from ecosystem.what_if.report import reasons, sorted_changes

FORMATS = ("svg", "png", "pdf")
"""Formats of a plot, by the ending of its file."""

_BAR_INCHES = 0.45
_MOST_BARS = 20
"""Kinds of changes that are drawn, the most frequent ones."""


class PlotUnavailable(Exception):
    """A plot cannot be drawn. The text says what to install."""


def figure_class() -> Any:
    """Returns the class of figures. Raises `PlotUnavailable` if the library is not installed."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no state
    except ImportError as error:
        raise PlotUnavailable(f"--plot needs matplotlib ({error}): pip install 'faust-orders[plot]'") from None
    return Figure


def plot(difference: Difference, path: Path, title: str, currency: str) -> None:
    """Writes bars of orders and of value, one for each kind of change."""
    changes = sorted_changes(difference)[:_MOST_BARS]
    labels = [f"{before.state} → {after.state}\n{reasons(before, after)}" for before, after, _ in changes]
    figure = figure_class()(figsize=(11, 1.8 + _BAR_INCHES * max(len(changes), 2)), layout="constrained")
    of_orders, of_value = figure.subplots(1, 2, sharey=True)
    for axes, name, values in (
        (of_orders, "orders", [tally.orders for _, _, tally in changes]),
        (of_value, f"value, {currency}", [float(tally.value) for _, _, tally in changes]),
    ):
        bars = axes.barh(labels, values)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
        axes.set_xlabel(name)
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    if changes:
        of_orders.invert_yaxis()  # the most frequent change above
    changed = difference.changed.orders
    figure.suptitle(f"{title}: {changed:,} of {difference.all.orders:,} orders would have ended otherwise")
    figure.savefig(path)
