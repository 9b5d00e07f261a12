"""Shows a difference: as tables, and as JSON."""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecosystem.clients.wording import counted
from ecosystem.what_if.difference import Case, Difference, Tally
from ecosystem.what_if.outcomes import Outcome
from schemas.messages import OrderState
from schemas.money import format_amount

_NONE = Tally()
_UNDECIDED = (
    "Undecided by timing: the records do not tell in which order a service read its inputs. Are the settings of the "
    "environment those that were in force?"
)


def reasons(before: Outcome, after: Outcome) -> str:
    """Why an order would end otherwise: the reason that is new or, if there is none, the one that is gone."""
    return ", ".join(after.reasons or before.reasons) or "-"


def sorted_changes(difference: Difference) -> list[tuple[Outcome, Outcome, Tally]]:
    """The changes, the most frequent first."""
    changes = ((before, after, tally) for (before, after), tally in difference.changes.items())
    return sorted(changes, key=lambda change: (-change[2].orders, change[0], change[1]))


def print_report(
    difference: Difference, console: Console, settings: Mapping[str, str], currency: str, seconds: float
) -> None:
    """Prints tables."""
    changed = difference.changed
    said = ", ".join(f"{name.upper()}={value}" for name, value in settings.items()) or "the settings of the environment"
    console.print(
        f"{_tally(difference.all, currency)} judged under {said}. "
        f"[bold]{_tally(changed, currency)} would have ended otherwise.[/bold]"
    )
    if changed.orders:
        console.print(_changes(difference, currency))
        console.print(_states(difference, currency))
        console.print(_cases(difference.cases, changed.orders, currency))
    if difference.undecided.orders:
        console.print(f"[yellow]{_tally(difference.undecided, currency)}: {_UNDECIDED}[/yellow]")
        console.print(_undecided(difference.undecided_cases, difference.undecided.orders, currency))
    rate = difference.all.orders / seconds if seconds else 0.0
    console.print(
        f"{counted(difference.records, 'record')} in {seconds:.1f} s, {rate:,.0f} orders/s; {difference.rejected:,} "
        "were no valid messages.",
        style="dim",
    )


def as_json(difference: Difference, settings: Mapping[str, str], currency: str, seconds: float) -> str:
    """Returns a JSON object. Amounts are text, so that none is rounded."""
    states = {*difference.before, *difference.after}
    content = {
        "settings": {name.upper(): value for name, value in settings.items()},
        "currency": currency,
        "orders": _plain(difference.all),
        "changed": _plain(difference.changed),
        "changes": [
            {"from": _outcome(before), "to": _outcome(after), **_plain(tally)}
            for before, after, tally in sorted_changes(difference)
        ],
        "states": {
            state.value: {
                "before": _plain(difference.before.get(state, _NONE)),
                "after": _plain(difference.after.get(state, _NONE)),
            }
            for state in OrderState
            if state in states
        },
        "cases": [_case(case) for case in difference.cases],
        "undecided": {
            **_plain(difference.undecided),
            "cases": [_case(case) for case in difference.undecided_cases],
        },
        "records": difference.records,
        "rejected": difference.rejected,
        "seconds": round(seconds, 3),
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def _changes(difference: Difference, currency: str) -> Table:
    table = _table("Orders that would have ended otherwise", "ended", "would end", "because of", "orders", "value")
    for before, after, tally in sorted_changes(difference):
        _row(table, before.state, after.state, reasons(before, after), tally, currency)
    return table


def _states(difference: Difference, currency: str) -> Table:
    table = _table("All orders", "state", "orders", "value", "orders then", "value then", "change of value")
    for state in OrderState:
        before, after = difference.before.get(state, _NONE), difference.after.get(state, _NONE)
        if before.orders or after.orders:
            change = after.value - before.value
            table.add_row(
                state,
                f"{before.orders:,}",
                _amount(before.value, currency),
                f"{after.orders:,}",
                _amount(after.value, currency),
                f"{'+' if change > 0 else ''}{_amount(change, currency)}",
            )
    return table


def _cases(cases: Iterable[Case], total: int, currency: str) -> Table:
    shown = list(cases)
    table = _table(f"{len(shown):,} of {total:,} such orders", "order", "value", "ended", "would end", "because of")
    for case in shown:
        before, after = case.recomputed, case.changed
        table.add_row(case.order_id, _amount(case.value, currency), before.state, after.state, reasons(before, after))
    return table


def _undecided(cases: Iterable[Case], total: int, currency: str) -> Table:
    shown = list(cases)
    table = _table(f"{len(shown):,} of {total:,} such orders", "order", "value", "recorded", "recomputed")
    for case in shown:
        table.add_row(case.order_id, _amount(case.value, currency), _text(case.recorded), _text(case.recomputed))
    return table


_RIGHT = {"orders", "value", "orders then", "value then", "change of value"}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column in _RIGHT else "left", overflow="fold")
    return table


def _row(table: Table, before: str, after: str, because: str, tally: Tally, currency: str) -> None:
    table.add_row(before, after, because, f"{tally.orders:,}", _amount(tally.value, currency))


def _amount(amount: Decimal, currency: str) -> str:
    return format_amount(amount, currency)


def _tally(tally: Tally, currency: str) -> str:
    return f"{counted(tally.orders, 'order')} ({_amount(tally.value, currency)})"


def _text(outcome: Outcome) -> str:
    return f"{outcome.state} {', '.join(outcome.reasons)}".rstrip()


def _plain(tally: Tally) -> dict[str, Any]:
    return {"orders": tally.orders, "value": f"{tally.value:f}"}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {"state": outcome.state.value, "reasons": list(outcome.reasons)}


def _case(case: Case) -> dict[str, Any]:
    return {
        "id": case.order_id,
        "value": f"{case.value:f}",
        "recorded": _outcome(case.recorded),
        "recomputed": _outcome(case.recomputed),
        "changed": _outcome(case.changed),
    }
