"""Inventory: an order passes if enough is in stock and not reserved, and then holds its pieces until it fails."""

from runtime.model.service import Context
from runtime.state.ttl_table import KEPT
from schemas.identifiers import is_composed
from schemas.messages import CheckType, Order, OrderState, StockLevel
from schemas.topics import ORDER_VALIDATIONS, ORDERS, repartition
from validators.inventory.state import OFFERS, RESERVATIONS, STOCK, Reservation, Stock
from validators.offers import Offer
from validators.verdict import verdict

ORDERS_BY_PRODUCT = repartition("inventory", ORDERS, "product", lambda o: o.product)

_NOTHING = Stock()


def refusal(stock: Stock, order: Order, offer: Offer | None = None) -> str | None:
    """Why the order gets no pieces; `None` when it does. A product that was never announced may be in stock."""
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


def route(order: Order, ctx: Context) -> None:
    """Takes an order to where its product's stock is: when it comes, if it fails, and when it is shipped."""
    if order.state is not OrderState.VALIDATED:
        ctx.send(ORDERS_BY_PRODUCT, order)


def on_order(order: Order, ctx: Context) -> None:
    """Reserves, or repeats what was said before; gives back once the order has failed, in whatever order both come."""
    known = RESERVATIONS.get(ctx, order.id)
    if order.state is OrderState.FAILED:
        _release(known, order, ctx)
        return
    if order.state is OrderState.SHIPPED:
        _ship(known, order, ctx)
        return
    refused = known.refusal if known is not None else _reserve(order, ctx)
    ctx.send(ORDER_VALIDATIONS, verdict(order.id, CheckType.INVENTORY_CHECK, refused))


def on_stock(level: StockLevel, ctx: Context) -> None:
    """The warehouse counted. Reservations stand, even where the count has fallen below them."""
    if not is_composed(level.product):
        ctx.count("stock not in NFC")  # orders that come by HTTP cannot name it
    stock = ctx.get(STOCK, level.product) or _NOTHING
    ctx.put(STOCK, level.product, Stock(count=level.count, reserved=stock.reserved))


def on_stock_withdrawn(product: str, ctx: Context) -> None:
    """A tombstone: the warehouse no longer keeps the product. What is reserved may still be given back."""
    stock = ctx.get(STOCK, product)
    if stock is not None:
        _keep(product, Stock(reserved=stock.reserved), ctx)


def on_timer(hour: str, ctx: Context) -> None:
    """Forgets the orders that came to hold nothing in an hour long past."""
    RESERVATIONS.forget(hour, ctx)


def _reserve(order: Order, ctx: Context) -> str | None:
    if ctx.now - order.created_at > KEPT:
        # It may have failed and been forgotten. Nobody would give back what it took now.
        return f"the order is from {order.created_at:%Y-%m-%d}, more than {KEPT.days} days old"
    stock = ctx.get(STOCK, order.product) or _NOTHING
    refused = refusal(stock, order, OFFERS.get(ctx, order.product))
    if refused is None:
        ctx.count("reserved")
        ctx.put(STOCK, order.product, Stock(count=stock.count, reserved=stock.reserved + order.quantity))
        ctx.put(RESERVATIONS.rows, order.id, Reservation(product=order.product, held=order.quantity))
    else:
        RESERVATIONS.remember(ctx, order.id, Reservation(product=order.product, refusal=refused))
    return refused


def _release(known: Reservation | None, order: Order, ctx: Context) -> None:
    if known is None:
        RESERVATIONS.remember(ctx, order.id, Reservation(product=order.product, refusal="the order has failed already"))
    elif known.held:
        ctx.count("released")
        stock = ctx.get(STOCK, known.product) or _NOTHING
        _keep(known.product, Stock(count=stock.count, reserved=stock.reserved - known.held), ctx)
        RESERVATIONS.remember(ctx, order.id, Reservation(product=known.product))


def _ship(known: Reservation | None, order: Order, ctx: Context) -> None:
    """The pieces leave the warehouse: neither in stock nor reserved any more, until it counts again."""
    if known is None or not known.held:
        return
    stock = ctx.get(STOCK, known.product) or _NOTHING
    left = None if stock.count is None else max(stock.count - known.held, 0)
    _keep(known.product, Stock(count=left, reserved=stock.reserved - known.held), ctx)
    RESERVATIONS.remember(ctx, order.id, Reservation(product=known.product))


def _keep(product: str, stock: Stock, ctx: Context) -> None:
    if stock == _NOTHING:
        ctx.delete(STOCK, product)
    else:
        ctx.put(STOCK, product, stock)
