"""Attempts to decide an order: a failed order may be decided anew, each time by verdicts of its own."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ecosystem.audit.judging.history import Observed, OrderHistory
from ecosystem.audit.sources import Source
from schemas.messages import ATTEMPT_SEPARATOR, FIRST_ATTEMPT, OrderState

_OF_ATTEMPT = frozenset({Source.EMAILS, Source.EMAILS_REJECTED, Source.EMAILS_DELIVERED})
"""Sources with facts of each attempt, besides those that `OrderHistory` has lists for."""


def attempts_of(order: OrderHistory) -> list[OrderHistory]:
    """Returns a history of each attempt that the orders service accepted, the last one with all other facts.

    It accepts a later attempt only if the one before has failed.
    """
    numbers = sorted({seen.message.attempt_number for seen in (*order.posts, *order.finals)})
    if numbers in ([], [FIRST_ATTEMPT]):
        return [order]
    result: list[OrderHistory] = []
    for number in numbers:
        result.append(_of_attempt(order, number))
        if result[-1].states != {OrderState.FAILED}:
            break
    last = result[-1]
    last.timers, last.unreadable, last.unreadable_rows = order.timers, order.unreadable, order.unreadable_rows
    last.rows += [row for row in order.rows if row.message is None or row.message.order is None]
    last.rows.sort(key=lambda row: row.fact[1:3])
    for source, seen in order.others.items():
        if source not in _OF_ATTEMPT:
            last.others[source] = seen
    return result


def _of_attempt(order: OrderHistory, number: int) -> OrderHistory:
    rows = [row for row in order.rows if row.message is not None and row.message.order is not None]
    others: dict[Source, list[Observed[Any]]] = defaultdict(list)
    for source in _OF_ATTEMPT & order.others.keys():
        others[source] = _split(order.others[source], number)
    return OrderHistory(
        order.id,
        posts=[seen for seen in order.posts if seen.message.attempt_number == number],
        finals=[seen for seen in order.finals if seen.message.attempt_number == number],
        verdicts=[seen for seen in order.verdicts if seen.message.attempt_number == number],
        rows=[row for row in rows if row.message is not None and row.message.attempt == number],
        reservations=_split(order.reservations, number),
        others=others,
        moving=order.moving,
    )


def _split(seen: Iterable[Observed[Any]], number: int) -> list[Observed[Any]]:
    """The facts of an attempt, `about` without its number."""
    result = []
    for one in seen:
        about, _, attempt = one.fact.about.partition(ATTEMPT_SEPARATOR)
        if int(attempt or FIRST_ATTEMPT) == number:
            result.append(Observed(one.message, one.fact._replace(about=about)))
    return result
