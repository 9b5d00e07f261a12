"""Promise: the stock of an order is reserved once, and released once if the order fails, ships or is cancelled."""

from collections import Counter
from collections.abc import Callable, Iterator

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed, OrderHistory, facts_of
from ecosystem.audit.judging.required import required_of
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source
from schemas.messages import BuiltInCheck, OrderState
from validators.inventory.state import Reservation

StockChangeCallback = Callable[[Source, str, Fact, int], None]
"""Called with a source, the product, a record, and a number of pieces.

`Source.HOLDINGS`: change of the pieces that a reservation holds; 0: the order may have held pieces before its first
record that still exists. `Source.SHIPPED_PIECES`: pieces of a shipped order.
"""

_Row = Observed[Reservation | None]


def judge(
    order: OrderHistory, rules: Rules, counts: Counter[str], on_stock_change: StockChangeCallback
) -> Iterator[Violation]:
    """Judges every change of the reservation, then the last one."""
    yield from _changes(order, rules, counts, on_stock_change)
    _report_shipped(order, on_stock_change)
    if order.moving or Source.RESERVATIONS not in rules.seen:
        return
    if order.posted is None:
        kept = [row for row in order.reservations if row.message is not None]
        if kept and not rules.partial:
            text = "has a reservation, but was never posted"
            yield Violation(ViolationKind.RESERVED_NEVER_POSTED, order.id, text, facts_of(kept))
        return
    yield from _matches_order(order)
    if order.is_consistent:
        yield from _final_state(order, rules, counts)


def _report_shipped(order: OrderHistory, on_stock_change: StockChangeCallback) -> None:
    """Reports the shipped pieces. Those of a moving order are late: the stock may not include them yet."""
    shipped = order.first_in(OrderState.SHIPPED)
    last = order.reservations[-1].message if order.reservations else None
    if order.posted is None or shipped is None or (last is not None and last.refusal is not None):
        return  # rejected by inventory, and shipped: INVENTORY_CHECK is not required
    fact = shipped.fact._replace(late=shipped.fact.late or order.moving)
    on_stock_change(Source.SHIPPED_PIECES, order.posted.message.product, fact, order.posted.message.quantity)


def _changes(
    order: OrderHistory, rules: Rules, counts: Counter[str], on_stock_change: StockChangeCallback
) -> Iterator[Violation]:
    before: _Row | None = None
    held, product, reserved = 0, None, False
    for row in order.reservations:
        now = row.message.held if row.message else 0
        product = row.message.product if row.message else product
        if before is None:
            unknown = row.message is None or (not now and row.message.refusal is None)
            of = product or (order.posted.message.product if order.posted else None)
            if unknown and of is not None:
                on_stock_change(Source.HOLDINGS, of, row.fact, 0)
        elif fault := _fault(before.message, row.message, reserved=reserved):
            kind, text = fault
            if rules.exactly_once or before.message != row.message:
                yield Violation(kind, order.id, text, facts_of([before, row]))
            else:
                counts["rows written again"] += 1
        if now != held and product is not None:
            on_stock_change(Source.HOLDINGS, product, row.fact, now - held)
        reserved |= now > 0
        before, held = row, now


def _fault(was: Reservation | None, now: Reservation | None, *, reserved: bool) -> tuple[ViolationKind, str] | None:
    """Returns what is wrong with a change: a reservation holds pieces, then is released, then is deleted."""
    if now is None:
        if was and was.held:
            return ViolationKind.RESERVATION_DIFFERS, f"deleted while it held {was.held} pieces"
        return None
    if now.held:
        if reserved:
            return ViolationKind.RESERVED_TWICE, f"reserved {now.held} of {now.product!r} again"
        return ViolationKind.RESERVATION_DIFFERS, f"reserved {now.held} of {now.product!r} after being rejected"
    if was is not None and was.held == 0 and was.refusal is None and now.refusal is None:
        return ViolationKind.RELEASED_TWICE, f"released its pieces of {now.product!r} again"
    return None


def _matches_order(order: OrderHistory) -> Iterator[Violation]:
    assert order.posted is not None
    wanted = order.posted.message
    for row in order.reservations:
        held = row.message
        if held is not None and (held.product != wanted.product or held.held not in {0, wanted.quantity}):
            text = f"holds {held.held} of {held.product!r}, {wanted.quantity} of {wanted.product!r} were ordered"
            yield Violation(ViolationKind.RESERVATION_DIFFERS, order.id, text, facts_of(order.posts[:1], [row]))
            return


_MUST_RELEASE = {
    OrderState.FAILED: ViolationKind.FAILED_HOLDS,
    OrderState.SHIPPED: ViolationKind.SHIPPED_HOLDS,
    OrderState.CANCELLED: ViolationKind.CANCELLED_HOLDS,
}


def _final_state(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    last = order.reservations[-1].message if order.reservations else None
    held = last.held if last else 0
    final = order.finals[-1]
    records = facts_of(order.posts[:1], order.finals, order.reservations)
    if held and (kind := _MUST_RELEASE.get(final.message.state)):
        if rules.overdue(final.fact.time_ms):
            yield Violation(kind, order.id, f"{final.message.state}, and still holds {held} pieces", records)
        else:
            counts["to be released"] += 1
    if (
        order.states == {OrderState.VALIDATED}
        and not held
        and BuiltInCheck.INVENTORY_CHECK in required_of(order, rules)
    ):
        yield Violation(ViolationKind.VALIDATED_HOLDS_NOTHING, order.id, "VALIDATED, and holds no pieces", records)
