"""A day of the shop, in two halves, with what makes a join hard: repetitions, refunds, cancelled orders."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from random import Random

from ecosystem.loadgen import sample
from examples.flink.topics import Booking
from schemas.messages import Customer, Order, OrderState, Payment

_CUSTOMERS = 200
_UNKNOWN_CUSTOMER = 999_999
_BOOKINGS = 60


@dataclass(frozen=True, slots=True)
class Half:
    """Messages of half a day. Those of an order may be in both halves."""

    customers: list[Customer] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    bookings: list[Booking] = field(default_factory=list)


def halves(orders: int, seed: int) -> tuple[Half, Half]:
    """Returns the same day each time. Customers are known from the start, but for a few who never are."""
    random = Random(seed)  # noqa: S311
    first, second = day = Half(customers=list(islice(sample.customers(), _CUSTOMERS))), Half()
    for number in range(orders):
        order = _order(number, random)
        for half, state in zip(_in_order(len(states := _states(random)), day, random), states, strict=True):
            half.orders.append(order.model_copy(update={"state": state}))
        payments = list(_payments(order, random))
        for half, payment in zip(_in_order(len(payments), day, random), payments, strict=True):
            half.payments.append(payment)
    for number in range(_BOOKINGS):
        random.choice(day).bookings.extend(_bookings(number, random))
    return first, second


def _in_order(count: int, day: tuple[Half, Half], random: Random) -> list[Half]:
    """Places `count` messages: none of them is in an earlier half than the one before."""
    return sorted(random.choices(day, k=count), key=day.index)


def _order(number: int, random: Random) -> Order:
    customer = _UNKNOWN_CUSTOMER if number % 50 == 0 else random.randint(1, _CUSTOMERS)
    new = sample.order(random)
    return Order(
        id=f"order-{number}",
        customer_id=customer,
        product=new.product,
        quantity=random.randint(1, 4),
        price=new.price,
    )


def _states(random: Random) -> list[OrderState]:
    created, validated = OrderState.CREATED, OrderState.VALIDATED
    match random.randrange(10):
        case 0:
            return [created, OrderState.FAILED]
        case 1:
            return [created, validated, OrderState.CANCELLED]
        case 2:
            return [created, validated, validated]  # a repetition
        case 3:
            return [created]
        case _:
            return [created, validated, OrderState.SHIPPED]


def _payments(order: Order, random: Random) -> Iterator[Payment]:
    match random.randrange(8):
        case 0:
            return
        case 1:  # in two instalments, the first of them repeated
            part = (order.value / 3).quantize(Decimal("0.01"))
            yield from [sample.payment(order.id, part)] * 2
            yield sample.payment(order.id, order.value - part, number=2)
        case 2:
            yield sample.payment(order.id, order.value, currency="USD")
        case 3:  # refunded in part
            yield sample.payment(order.id, order.value)
            yield sample.payment(order.id, Decimal(-1), number=2)
        case 4:
            yield sample.payment(order.id, order.value - Decimal("0.01"))
        case _:
            yield sample.payment(order.id, order.value)


def _bookings(number: int, random: Random) -> Iterator[Booking]:
    product = random.choice(["kettle", "mug", "scales", "signed-poster"])
    quantity = random.choice([-5, -2, 10, 20]) if product != "signed-poster" else random.choice([-3, 1])
    booking = Booking(id=f"booking-{number}", product=product, quantity=quantity)
    yield from [booking] * random.choice([1, 1, 2])
