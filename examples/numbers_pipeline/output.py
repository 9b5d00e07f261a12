"""What commands print: finished inputs, the way of an input, and the table of times."""

import json
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from ecosystem.replay.records import Mark
from examples.numbers_pipeline.queries import FinishedInput, StageTiming, StoredRecord, shown

_MOST = 6
"""Numbers of an input that are printed."""


def line(finished: FinishedInput) -> str:
    """One line about an input that has finished.

    >>> line(FinishedInput("a-1", "[3, 20]", b'{"id": "a-1", "numbers": [9]}', 0.012, None))
    'a-1         3 20 → 9   12 ms'
    """
    numbers = json.loads(finished.numbers or "[]")
    before = " ".join(map(str, numbers[:_MOST])) + (" …" if len(numbers) > _MOST else "")
    after = _again(finished.mark) if finished.mark else _ms(finished.seconds or 0)
    return f"{finished.id:<11} {before} → {shown(finished.result)}   {after}"


def way(records: Iterable[StoredRecord]) -> str:
    """One line per record of an input: its topic, when it came there, what the input has become, and its place."""
    lines, before = [], None
    for record in records:
        at = record.produced_at
        passed = f"{at:%H:%M:%S.%f}"[:-3] if before is None else f"+ {_ms((at - before).total_seconds())}"
        again = f"   {_again(record.mark)}" if record.mark else ""
        lines.append(
            f"{record.topic:<15} {passed:>12}   {shown(record.value):<28} {record.place!s:<20}{again}".rstrip()
        )
        before = at
    return "\n".join(lines)


def times(timings: Iterable[StageTiming]) -> Table:
    """The time of each stage, and of the whole way."""
    table = Table("stage", "inputs", "p50", "p90", "p99", "max")
    for column in table.columns[1:]:
        column.justify = "right"
    for timing in timings:
        seconds = (timing.p50, timing.p90, timing.p99, timing.longest)
        table.add_row(timing.name, str(timing.count), *map(_ms, seconds))
    return table


def plain(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _again(mark: Mark) -> str:
    return f"submitted again from {mark.place}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
