"""Days of a small shop, played by the services in memory: what the history explains is compared with what they did."""

from datetime import timedelta
from typing import NamedTuple

from hypothesis import strategies as st

from ecosystem.services import CORE, build
from runtime.common.settings import Settings
from runtime.model.sink import SinkRecord
from runtime.testing import TopologyTestDriver
from schemas.messages import Cancellation, Fulfilled, Order, StockLevel
from schemas.topics import CANCELLATIONS, CATALOGUE, FULFILMENTS, ORDERS, WAREHOUSE_INVENTORY

LIMIT, GAP_S = 100, 30


class Place(NamedTuple):
    """An order is posted."""

    customer: int
    product: str
    quantity: int
    price: int


class Count(NamedTuple):
    """The warehouse counts a product."""

    product: str
    pieces: int


class End(NamedTuple):
    """An earlier order is cancelled, or shipped if it is validated."""

    number: int
    shipped: bool


class Redecide(NamedTuple):
    """An earlier order is decided anew, under the next attempt number."""

    number: int
    attempt: int


class Wait(NamedTuple):
    seconds: int


PRODUCTS = st.sampled_from(["mug", "hat"])
ACTIONS = st.lists(
    st.builds(Place, st.integers(1, 2), PRODUCTS, st.integers(0, 4), st.integers(0, 30))
    | st.builds(Count, PRODUCTS, st.integers(0, 12))
    | st.builds(End, st.integers(0, 9), st.booleans())
    | st.builds(Wait, st.integers(5, 40)),
    max_size=25,
)


def played(actions, **more):
    """A driver whose core has seen these actions, a second each. Orders are `o-0`, `o-1` and so on."""
    settings = Settings(fraud_limit=LIMIT, fraud_session_gap_s=GAP_S, unknown_products="pass", **more)
    driver = TopologyTestDriver(*(definition.service for definition in build(CORE, settings)))
    orders = 0
    for action in actions:
        match action:
            case Place(customer, product, quantity, price):
                content = {"customer_id": customer, "product": product, "quantity": quantity, "price": price}
                driver.send(ORDERS, Order(id=f"o-{orders}", created_at=driver.now, **content))
                orders += 1
            case Count(product, pieces):
                driver.send(WAREHOUSE_INVENTORY, StockLevel(product=product, count=pieces))
            case End(number, shipped):
                order_id = f"o-{number}"
                if shipped:
                    driver.send(FULFILMENTS, Fulfilled(order_id=order_id))
                else:
                    driver.send(CANCELLATIONS, Cancellation(order_id=order_id, reason="changed my mind"))
            case Redecide(number, attempt):
                placed = next(order for order in driver.values(ORDERS) if order.id == f"o-{number}")
                driver.send(ORDERS, placed.model_copy(update={"attempt": attempt}))
            case Wait(seconds):
                driver.advance(timedelta(seconds=seconds))
        driver.advance(timedelta(seconds=1))
    return driver


def stored(driver):
    """The records of the public topics, as a sink gets them; each topic is a log of its own."""
    return [
        SinkRecord(r.topic, r.partition, 1 + log, r.offset, r.timestamp_ms, r.key, r.value, r.headers)
        for log, topic in enumerate(CATALOGUE)
        for r in driver.records(topic.name)
    ]
