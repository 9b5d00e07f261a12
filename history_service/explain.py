"""The numbers behind a verdict at its moment, by the rules of the validators, in numbers and in words. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from runtime.state.sessions import Session, add_to_session
from schemas.history import ProductFacts, SessionNumbers, StockNumbers
from schemas.messages import CheckType, RequiredChecks
from schemas.money import format_amount

ORDERS_NAMED = 20
"""Other orders of a session that are named."""


class Moment(NamedTuple):
    """When a check judged an order, as the records tell. Moments are compared; equal times are told apart by the rest.

    Arguments:
        produced_at: when the verdict was produced.
        posted_at: when the order was.
        log: of the verdict, as its partition and offset.
    """

    produced_at: datetime
    posted_at: datetime
    log: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Counted:
    """An order that the fraud check has counted into a session."""

    id: str
    created_at: datetime
    value: Decimal
    at: Moment


def session_numbers(
    order_id: str, counted: Iterable[Counted], gap: timedelta, limit: Decimal, at: Moment | None = None
) -> SessionNumbers | None:
    """The session of an order as the fraud check found it; `None` if the check has not judged the order.

    Arguments:
        order_id: the order.
        counted: the order and others of its customer.
        gap: inactivity that ends a session.
        limit: total at which orders fail.
        at: when a later attempt to decide the order was judged: by the session of that moment, in which the order
            counts once. `None`: when the order was counted.
    """
    before: list[Counted] = []
    own: Counted | None = None
    sessions: Sequence[Session] = ()
    for one in sorted(counted, key=lambda c: c.at):
        if own is not None and (at is None or one.at > at):
            break
        _, sessions = add_to_session(sessions, one.created_at, one.value, gap)
        if one.id == order_id:
            own = one
        else:
            before.append(one)
    if own is None:
        return None
    session = next(s for s in sessions if s.start <= own.created_at <= s.end)
    others = [c for c in before if session.start <= c.created_at <= session.end]
    return SessionNumbers(
        orders=len(others) + 1,
        earlier=tuple(c.id for c in others[-ORDERS_NAMED:]),
        value=own.value,
        total=session.total,
        limit=limit,
        gap_seconds=gap.total_seconds(),
        start=session.start.astimezone(UTC),
        end=session.end.astimezone(UTC),
    )


@dataclass(frozen=True, slots=True)
class Held:
    """An order that has reserved pieces of a product.

    Arguments:
        quantity: pieces.
        at: when they were reserved.
        freed_at: when the order failed or was cancelled.
        shipped_at: when it was shipped.
    """

    quantity: int
    at: Moment
    freed_at: datetime | None = None
    shipped_at: datetime | None = None


class Level(NamedTuple):
    """The pieces of a product that the warehouse has counted; `None` after a tombstone."""

    pieces: int | None
    at: datetime


def stock_numbers(asked: int, level: Level | None, held: Iterable[Held], at: Moment) -> StockNumbers:
    """The stock as the inventory check found it.

    Arguments:
        asked: pieces of the order.
        level: the last one before.
        held: the other orders that have reserved pieces.
        at: when the order was judged.
    """
    moment = at.produced_at
    earlier = [h for h in held if h.at < at]
    gone = [h for h in earlier if _is_past(h.shipped_at, moment)]
    count = level.pieces if level is not None else None
    since = [h.quantity for h in gone if level is not None and h.shipped_at is not None and h.shipped_at > level.at]
    shipped = sum(since) if count is not None else 0
    holding = [h for h in earlier if not _is_past(h.freed_at, moment) and not _is_past(h.shipped_at, moment)]
    reserved = sum(h.quantity for h in holding)
    return StockNumbers(
        counted=count,
        counted_at=level.at.astimezone(UTC) if level is not None and count is not None else None,
        shipped=shipped,
        reserved=reserved,
        available=max(max((count or 0) - shipped, 0) - reserved, 0),
        asked=asked,
    )


def _is_past(time: datetime | None, moment: datetime) -> bool:
    return time is not None and time <= moment


def stock_suffices(numbers: StockNumbers) -> bool:
    """Whether the order gets its pieces."""
    return numbers.counted is not None and 0 < numbers.asked <= numbers.available


class Required(NamedTuple):
    """The checks that decide an order. `known` is false if the setting of a worker says so, not the topic."""

    checks: tuple[CheckType, ...]
    known: bool


def required_checks(
    records: Sequence[tuple[datetime, RequiredChecks]],
    seen_at: datetime,
    decided_at: datetime,
    setting: tuple[CheckType, ...],
) -> Required:
    """The checks in force when an order was first seen, without those removed until it was decided.

    Arguments:
        records: of `required-checks`, with the times at which they were produced.
        seen_at: when the order was first seen.
        decided_at: when it was decided, or now.
        setting: `REQUIRED_CHECKS`, where the topic says nothing.
    """
    first = _in_force(records, seen_at)
    last = _in_force(records, decided_at)
    checks = setting if first is None else first
    return Required(checks if last is None else tuple(c for c in checks if c in last), first is not None)


def _in_force(records: Sequence[tuple[datetime, RequiredChecks]], at: datetime) -> tuple[CheckType, ...] | None:
    known = [record for produced_at, record in records if produced_at <= at]
    return max(known, key=lambda r: r.version).at(at) if known else None


def session_words(numbers: SessionNumbers, currency: str) -> str:
    """The session in words."""
    total, value, limit = (format_amount(a, currency) for a in (numbers.total, numbers.value, numbers.limit))
    others = numbers.orders - 1
    count = f"{others} other order{'s' * (others != 1)}" if others else "no other order"
    reached = "reaches" if numbers.total >= numbers.limit else "is below"
    return (
        f"The order is worth {value}. Its session of {numbers.start:%Y-%m-%d %H:%M:%S} to {numbers.end:%H:%M:%S} UTC "
        f"had {count} of the customer and came to {total}, which {reached} the limit of {limit}."
    )


def stock_words(numbers: StockNumbers, product: str) -> str:
    """The stock in words."""
    if numbers.counted is None:
        return f"{numbers.asked} of {product!r} were asked for, and no stock was announced."
    shipped = f", {numbers.shipped} were shipped since" if numbers.shipped else ""
    return (
        f"{numbers.asked} of {product!r} were asked for. The warehouse had counted {numbers.counted}{shipped}, other "
        f"orders held {numbers.reserved}: {numbers.available} were available."
    )


def product_words(product: str, facts: ProductFacts | None, price: Decimal, currency: str) -> str:
    """The product in words."""
    if facts is None:
        return f"The product service had not published {product!r}."
    state = "withdrawn" if facts.withdrawn else "on offer"
    offered, asked = (format_amount(amount, currency) for amount in (facts.price, price))
    return f"{product!r} was {state} in version {facts.version} at {offered}; the order names {asked}."
