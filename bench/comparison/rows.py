"""The rows of a comparison: what load each puts on a system."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One load.

    Arguments:
        name: on the command line and in JSON.
        title: in tables.
        arguments: of the generator.
        unit: what the rate counts, such as `orders`.
        share: of the row's seconds that one run, or step, takes.
        steps: runs of the generator, one after another, that the row is likely to take.
        needs_go: whether `bench/load.py` lacks this load.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    unit: str = "orders"
    share: float = 1.0
    steps: int = 1
    needs_go: bool = False

    def takes_s(self, seconds: float) -> float:
        """Returns about how long the row takes, with a second of pause and one in which requests end."""
        return self.steps * self.share * seconds + 2

    @property
    def rate(self) -> float | None:
        """Orders a second of an open loop; `None` for other loads."""
        return float(self.arguments[1]) if self.name.startswith("open-") else None


def _closed(clients: int) -> Row:
    return Row(f"closed-{clients}", f"{clients:,} clients", ("-clients", str(clients)))


def _open(rate: int) -> Row:
    return Row(f"open-{rate}", f"{rate:,}/s", ("-rate", str(rate)))


IDLE = Row("idle", "no load", ())
FLOOD = Row("flood", "highest rate, p99 ≤ 250 ms", ("-flood",), share=0.4, steps=7, needs_go=True)
READS = Row("reads", "reads, 64 clients", ("-reads", "200", "-clients", "64"), "reads", needs_go=True)
HALF_READS = Row(
    "reads-half", "reads at half of that rate", ("-reads", "200", "-connections", "64"), "reads", needs_go=True
)
"""On the connections of the row that tells the rate, as `wrk2` does it: latency includes the wait for one."""
ONCE = Row("once-64", "64 clients, one request an order", ("-once", "-clients", "64"), needs_go=True)
ROWS = {
    row.name: row
    for row in (
        IDLE,
        *(_closed(clients) for clients in (64, 256, 1024)),
        *(_open(rate) for rate in (50, 200, 500, 1000, 1500, 2000, 3000)),
        FLOOD,
        ONCE,
        Row("once-256", "256 clients, one request an order", ("-once", "-clients", "256"), needs_go=True),
        READS,
        HALF_READS,
    )
}
USUAL = (
    *("idle", "closed-64", "closed-256", "closed-1024"),
    *("open-50", "open-200", "open-500", "open-1000", "open-2000"),
    *("flood", "once-64", "reads", "reads-half"),
)
QUICK = ("closed-64", "closed-256", "open-200", "reads")
ALONE = ("closed-64", "closed-256", "open-50", "open-200", "open-500")
"""Of a run without a peer, unless rows are named."""
SMOKE = ("idle", "closed-64", "open-50", "once-64", "reads", "reads-half")
"""Each kind of load once, but for the flood, for breakage."""


def chosen(names: Sequence[str]) -> list[Row]:
    """Returns rows by name, in the order of `ROWS`: reads at half of a rate come after the reads that tell the rate."""
    return [row for row in ROWS.values() if row.name in names]
