"""The promise about one order's pieces: taken once while it lives, let go of once if it fails or is shipped."""

from collections import Counter
from collections.abc import Callable, Iterator

from ecosystem.audit.facts import Fact, Source
from ecosystem.audit.judging.history import History, Observed, facts_of
from ecosystem.audit.report import Kind, Rules, Violation
from schemas.messages import CheckType, OrderState
from validators.inventory.state import Reservation

Changed = Callable[[Source, str, Fact, int], None]
"""Told of every change of what reservations hold (`Source.HELD`): the product, the record, and by how many pieces; 0
says that the order may have held pieces before the first record of it that is still there. And of the pieces of an
order that was shipped (`Source.SENT_OFF`)."""

_Row = Observed[Reservation | None]


def judge(order: History, rules: Rules, counts: Counter[str], changed: Changed) -> Iterator[Violation]:
    """Walks what the order held, then looks at what it holds now."""
    yield from _walk(order, rules, counts, changed)
    _send_off(order, changed)
    if order.moving or Source.RESERVATIONS not in rules.seen:
        return
    if order.posted is None:
        kept = [row for row in order.reservations if row.message is not None]
        if kept and not rules.partial:
            says = "has a reservation, but was never posted"
            yield Violation(Kind.RESERVED_NEVER_POSTED, order.id, says, facts_of(kept))
        return
    yield from _fits(order)
    if order.agreed:
        yield from _at_the_end(order, rules, counts)


def _send_off(order: History, changed: Changed) -> None:
    """Tells what was shipped; of an order that is moving it is not known yet whether the stock has heard of it."""
    shipped = order.came_to(OrderState.SHIPPED)
    last = order.reservations[-1].message if order.reservations else None
    if order.posted is None or shipped is None or (last is not None and last.refusal is not None):
        return  # refused, and shipped all the same: by a check that is not required
    fact = shipped.fact._replace(late=shipped.fact.late or order.moving)
    changed(Source.SENT_OFF, order.posted.message.product, fact, order.posted.message.quantity)


def _walk(order: History, rules: Rules, counts: Counter[str], changed: Changed) -> Iterator[Violation]:
    before: _Row | None = None
    held, product, taken = 0, None, False
    for row in order.reservations:
        now = row.message.held if row.message else 0
        product = row.message.product if row.message else product
        if before is None:
            unknown = row.message is None or (not now and row.message.refusal is None)
            of = product or (order.posted.message.product if order.posted else None)
            if unknown and of is not None:
                changed(Source.HELD, of, row.fact, 0)
        elif fault := _fault(before.message, row.message, taken=taken):
            kind, says = fault
            if rules.exactly_once or before.message != row.message:
                yield Violation(kind, order.id, says, facts_of([before, row]))
            else:
                counts["rows written again"] += 1
        if now != held and product is not None:
            changed(Source.HELD, product, row.fact, now - held)
        taken |= now > 0
        before, held = row, now


def _fault(was: Reservation | None, now: Reservation | None, *, taken: bool) -> tuple[Kind, str] | None:
    """What is wrong with a row that follows upon another: a row holds, then gives back, then is forgotten."""
    if now is None:
        return (Kind.RESERVATION_DIFFERS, f"forgotten while it held {was.held}") if was and was.held else None
    if now.held:
        if taken:
            return Kind.TAKEN_TWICE, f"took {now.held} of {now.product!r} again"
        return Kind.RESERVATION_DIFFERS, f"took {now.held} of {now.product!r} after it had been refused"
    if was is not None and was.held == 0 and was.refusal is None and now.refusal is None:
        return Kind.GIVEN_BACK_TWICE, f"gave back its pieces of {now.product!r} again"
    return None


def _fits(order: History) -> Iterator[Violation]:
    assert order.posted is not None
    wanted = order.posted.message
    for row in order.reservations:
        held = row.message
        if held is not None and (held.product != wanted.product or held.held not in {0, wanted.quantity}):
            says = f"holds {held.held} of {held.product!r}, {wanted.quantity} of {wanted.product!r} were ordered"
            yield Violation(Kind.RESERVATION_DIFFERS, order.id, says, facts_of(order.posts[:1], [row]))
            return


_LET_GO = {OrderState.FAILED: Kind.FAILED_HOLDS, OrderState.SHIPPED: Kind.SHIPPED_HOLDS}


def _at_the_end(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    last = order.reservations[-1].message if order.reservations else None
    held = last.held if last else 0
    final = order.finals[-1]
    records = facts_of(order.posts[:1], order.finals, order.reservations)
    if held and (kind := _LET_GO.get(final.message.state)):
        if rules.overdue(final.fact.time_ms):
            yield Violation(kind, order.id, f"{final.message.state}, and still holds {held} pieces", records)
        else:
            counts["giving back"] += 1
    if order.states == {OrderState.VALIDATED} and not held and CheckType.INVENTORY_CHECK in rules.required:
        yield Violation(Kind.VALIDATED_HOLDS_NOTHING, order.id, "VALIDATED, and holds no pieces", records)
