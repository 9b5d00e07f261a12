"""Sample data: products, stock, customers, and orders that exercise every rule."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from random import Random

from schemas.api import NewCheckin, NewOrder, NewProduct
from schemas.identifiers import new_order_id
from schemas.messages import Customer, CustomerLevel, Order, Payment, StockLevel

_PRICES = {
    "espresso-beans": "14.90",
    "filter-paper": "4.50",
    "grinder": "89.00",
    "kettle": "59.00",
    "milk-jug": "19.90",
    "mug": "12.00",
    "scales": "34.50",
    "thermometer": "9.90",
}
_PLENTY = 1_000_000
_SCARCE = "signed-poster"  # only a few pieces: orders fail once they are reserved
_SCARCE_PRICE = "25.00"
_UNKNOWN = "unicorn"  # neither in stock nor on offer

CUSTOMERS = 5000
"""Number of customers, with ids from 1. At one order per second few of them reach the limit of the fraud check."""

_FIRST_NAMES = ("Ada", "Alan", "Barbara", "Edsger", "Frances", "Grace", "Katherine", "Niklaus", "Radia", "Tony")
_LAST_NAMES = ("Brook", "Field", "Hill", "Lake", "Marsh", "Moor", "Stone", "Vale", "Well", "Wood")
_LEVELS = (CustomerLevel.PLATINUM, CustomerLevel.GOLD, CustomerLevel.SILVER, *[CustomerLevel.BRONZE] * 3)


def stock() -> list[StockLevel]:
    """Returns stock levels. The counts are absolute: writing them again changes nothing."""
    levels = [StockLevel(product=product, count=_PLENTY) for product in _PRICES]
    return [*levels, StockLevel(product=_SCARCE, count=5)]


def products() -> list[NewProduct]:
    """Returns the products on offer: those that are in stock."""
    priced = {**_PRICES, _SCARCE: _SCARCE_PRICE}
    return [NewProduct(code=c, name=c.replace("-", " ").capitalize(), price=Decimal(p)) for c, p in priced.items()]


def seasonal() -> NewProduct:
    """Returns the product that is withdrawn and offered again. It has no stock: every order for it fails."""
    return NewProduct(code="advent-calendar", name="Advent calendar", price=Decimal("29.00"))


def customers() -> Iterator[Customer]:
    """Yields the same customers each time."""
    for number in range(1, CUSTOMERS + 1):
        first, last = _FIRST_NAMES[number % 10], _LAST_NAMES[number // 10 % 10]
        yield Customer(
            id=number,
            first_name=first,
            last_name=last,
            email=f"{first}.{last}.{number}@example.org".lower(),
            address=f"{number} Main Street, Springfield",
            level=_LEVELS[number % len(_LEVELS)],
        )


def order(random: Random) -> NewOrder:
    """Returns an order with a new id. One in ten fails: unknown product, no stock left, or quantity 0."""
    product = random.choice(list(_PRICES))
    quantity = random.randint(1, 3)
    match random.randrange(30):
        case 0:
            product = _UNKNOWN
        case 1:
            product = _SCARCE
        case 2:
            quantity = 0
    return NewOrder(
        id=new_order_id(),
        customer_id=random.randint(1, CUSTOMERS),
        product=product,
        quantity=quantity,
        price=Decimal(_PRICES.get(product, _SCARCE_PRICE)),
    )


def make_valid(order: NewOrder) -> NewOrder:
    """Returns the order with a product that is in stock."""
    return order.model_copy(update={"product": "mug", "quantity": 1, "price": Decimal(_PRICES["mug"])})


def make_invalid(order: NewOrder) -> NewOrder:
    """Returns the order with an unknown product."""
    return order.model_copy(update={"product": _UNKNOWN, "quantity": 1})


def order_of(product: str, price: Decimal, random: Random) -> NewOrder:
    """Returns an order of one piece, with a new id."""
    return NewOrder(
        id=new_order_id(),
        customer_id=random.randint(1, CUSTOMERS),
        product=product,
        quantity=1,
        price=price,
    )


def is_unknown(order: Order) -> bool:
    """Whether the product of the order does not exist."""
    return order.product == _UNKNOWN


def must_fail(order: Order) -> bool:
    """Whether the order fails whatever else was ordered before."""
    return order.quantity <= 0 or is_unknown(order)


def payment(order_id: str, amount: Decimal, number: int = 1, currency: str = "EUR") -> Payment:
    """Returns payment `number` of an order; its id is the same each time."""
    return Payment(id=f"p{number}-{order_id}", order_id=order_id, ccy=currency, amount=amount)


def check_in(order_no: str, at: datetime) -> NewCheckin:
    """Returns a check-in at time `at`; the same one for the same order and time."""
    random = Random(order_no)
    return NewCheckin(
        internet_no=f"88{random.randrange(10**8):08}",
        order_no=order_no,
        staff_code=f"cs_eng_{random.randint(1, 40):02}",
        job_status="homecheckedin",
        checkin_latitude=round(random.uniform(13.6, 13.9), 6),
        checkin_longitude=round(random.uniform(100.4, 100.7), 6),
        checkin_date=f"{at:%Y-%m-%d %H:%M:%S}",
    )
