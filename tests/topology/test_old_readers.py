"""Readers of an earlier version, whose `OrderState` has no CANCELLED, on topics of this version."""

from datetime import timedelta
from enum import StrEnum

import pytest
from pydantic import Field, ValidationError

from orders_service.state import OrderView
from runtime.model.service import Input, Service, Table
from runtime.testing import TopologyTestDriver
from schemas.identifiers import OrderId
from schemas.messages import OrderState
from schemas.topics import ORDERS, Topic
from schemas.wire import Int64, Message, Money, Quantity, Timestamp
from tests.samples import order


class EarlierState(StrEnum):
    """Frozen copy of `OrderState` before CANCELLED."""

    CREATED = "CREATED"
    VALIDATED = "VALIDATED"
    FAILED = "FAILED"
    SHIPPED = "SHIPPED"


class EarlierOrder(Message):
    """Frozen copy of `Order` before CANCELLED."""

    id: OrderId
    customer_id: Int64
    state: EarlierState = EarlierState.CREATED
    product: str = Field(max_length=256)
    quantity: Quantity
    price: Money
    created_at: Timestamp
    reasons: tuple[str, ...] | None = None


EARLIER_ORDERS = Topic(ORDERS.name, EarlierOrder, lambda o: o.id, "orders", timedelta(days=7))
LAST = Table("earlier-last", EarlierOrder)


@pytest.fixture
def reader():
    """A service of the earlier version, which keeps the last state of each order."""
    keep = Input(EARLIER_ORDERS, lambda order, ctx: ctx.put(LAST, order.id, order))
    return TopologyTestDriver(Service("earlier", (keep,), (), (LAST,)), partitions=1)


def test_an_earlier_reader_dead_letters_the_cancelled_record_alone_and_goes_on(reader):
    for id_, state in (("o1", "VALIDATED"), ("o1", "CANCELLED"), ("o2", "CREATED"), ("o2", "VALIDATED")):
        one = order(id_, state=OrderState(state))
        reader.send_raw(EARLIER_ORDERS, one.id.encode(), one.to_json())

    [dead] = reader.records(f"{ORDERS.name}.dead-letters")
    assert (dead.key, b'"CANCELLED"' in dead.value) == (b"o1", True)
    errors = b" ".join(value or b"" for _, value in dead.headers)
    assert b"state" in errors
    assert reader.row(LAST, "o1").state is EarlierState.VALIDATED  # and stays so: the record has to be redriven
    assert reader.row(LAST, "o2").state is EarlierState.VALIDATED


def test_every_other_state_means_the_same_to_an_earlier_reader():
    for state in EarlierState:
        raw = order(state=OrderState(state), reasons=("why",)).to_json()
        assert EarlierOrder.from_json(raw).to_json() == raw


def test_an_earlier_orders_service_cannot_read_the_view_of_a_cancelled_order():
    """Hence no way back once an order is cancelled."""

    class EarlierView(Message):
        order: EarlierOrder | None = None

    with pytest.raises(ValidationError, match="state"):
        EarlierView.from_json(OrderView(order=order(state=OrderState.CANCELLED)).to_json())
