"""Inventory check: an order passes if enough unreserved stock exists, and reserves it. Pure.

The reservation is released when the order fails or is cancelled, and leaves the stock when the order is shipped.
"""

from runtime.model.service import Context
from runtime.state import versions
from runtime.state.ttl_table import TTL
from runtime.validator import verdict_key
from schemas.identifiers import is_composed
from schemas.messages import FIRST_ATTEMPT, Order, OrderState, StockLevel
from validators.inventory.state import OFFERS, RESERVATIONS, STOCK, Reservation, Stock
from validators.offers import Offer

RESERVED, RELEASED, NOT_NFC = _COUNTED = "reserved", "released", "stock not in NFC"
EVENTS = (*_COUNTED, *versions.EVENTS)
"""Counted events."""

_EMPTY = Stock()
_CHANGED = {OrderState.FAILED: "has failed", OrderState.CANCELLED: "was cancelled"}


def failure_reason(stock: Stock, order: Order, offer: Offer | None = None) -> str | None:
    """Why the order cannot be reserved; `None` if it can.

    Without an `offer` only the stock counts: a product that was never announced may be in stock.
    """
    if order.quantity <= 0:
        return f"quantity must be above 0, is {order.quantity}"
    if offer is not None and offer.withdrawn:
        return f"{order.product!r} was withdrawn"
    if stock.count is None:
        return f"no stock of {order.product!r} was announced"
    available = max(stock.count - stock.reserved, 0)
    if order.quantity > available:
        return f"{order.quantity} of {order.product!r} ordered, {available} available"
    return None


def reserve(order: Order, ctx: Context) -> Reservation:
    """Reserves stock for a new order, and returns the verdict."""
    stock = ctx.get(STOCK, order.product) or _EMPTY
    failure = failure_reason(stock, order, OFFERS.get(ctx, order.product))
    if order.attempt_number > FIRST_ATTEMPT and not _has_failed(order.attempt_number - 1, order, ctx):
        # The orders service ignores this attempt. Nothing would release a reservation made now.
        failure = f"attempt {order.attempt_number - 1} has not failed"
    made_at = order.created_at if order.attempt_number == FIRST_ATTEMPT else ctx.time
    if ctx.now - made_at > TTL:
        # It may have failed, and its row expired. Nothing would release a reservation made now.
        failure = f"the order is from {made_at:%Y-%m-%d}, more than {TTL.days} days old"
    if failure is not None:
        return Reservation(product=order.product, refusal=failure, failed=False)
    ctx.count(RESERVED)
    ctx.put(STOCK, order.product, Stock(count=stock.count, reserved=stock.reserved + order.quantity))
    return Reservation(product=order.product, held=order.quantity, failed=False)


def on_change(order: Order, ctx: Context) -> None:
    """Removes the pieces of a shipped order from the stock; releases those of a failed or cancelled one.

    The change may arrive before the order.
    """
    reservation = RESERVATIONS.get(ctx, verdict_key(order))
    if order.state is OrderState.SHIPPED:
        _ship(reservation, order, ctx)
    else:
        _release(reservation, order, ctx)


def on_stock(level: StockLevel, ctx: Context) -> None:
    """Sets the stock counted by the warehouse. Reservations stay, even if they exceed it."""
    if not is_composed(level.product):
        ctx.count(NOT_NFC)  # orders posted over HTTP cannot name it
    stock = ctx.get(STOCK, level.product) or _EMPTY
    ctx.put(STOCK, level.product, Stock(count=level.count, reserved=stock.reserved))


def on_stock_withdrawn(product: str, ctx: Context) -> None:
    """Processes a tombstone: the warehouse no longer keeps the product. Reservations can be released."""
    stock = ctx.get(STOCK, product)
    if stock is not None:
        _put_or_delete(product, Stock(reserved=stock.reserved), ctx)


def _has_failed(attempt: int, order: Order, ctx: Context) -> bool:
    """Whether an attempt to decide an order has failed, as far as its row is known."""
    row = RESERVATIONS.get(ctx, verdict_key(order.model_copy(update={"attempt": attempt})))
    if row is None:
        return True  # expired
    return not row.held if row.failed is None else row.failed


def _release(reservation: Reservation | None, order: Order, ctx: Context) -> None:
    failed = order.state is OrderState.FAILED
    if reservation is None:
        refusal = f"the order {_CHANGED[order.state]} already"
        RESERVATIONS.add(ctx, verdict_key(order), Reservation(product=order.product, refusal=refusal, failed=failed))
    elif reservation.held:
        ctx.count(RELEASED)
        stock = ctx.get(STOCK, reservation.product) or _EMPTY
        _put_or_delete(reservation.product, Stock(count=stock.count, reserved=stock.reserved - reservation.held), ctx)
        RESERVATIONS.add(ctx, verdict_key(order), Reservation(product=reservation.product, failed=failed))
    elif failed and not reservation.failed:
        ctx.put(RESERVATIONS.rows, verdict_key(order), reservation.model_copy(update={"failed": True}))


def _ship(reservation: Reservation | None, order: Order, ctx: Context) -> None:
    """Takes the pieces of a shipped order out of stock and reservation, ahead of the next count."""
    if reservation is None or not reservation.held:
        return
    stock = ctx.get(STOCK, reservation.product) or _EMPTY
    left = None if stock.count is None else max(stock.count - reservation.held, 0)
    _put_or_delete(reservation.product, Stock(count=left, reserved=stock.reserved - reservation.held), ctx)
    RESERVATIONS.add(ctx, verdict_key(order), Reservation(product=reservation.product, failed=False))


def _put_or_delete(product: str, stock: Stock, ctx: Context) -> None:
    if stock == _EMPTY:
        ctx.delete(STOCK, product)
    else:
        ctx.put(STOCK, product, stock)
