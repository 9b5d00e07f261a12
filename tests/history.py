"""Records of orders, for tests of the history."""

from datetime import UTC, datetime

from runtime.model.sink import SinkRecord
from schemas import topics
from schemas.messages import (
    Cancellation,
    Fulfilled,
    HomeCheckin,
    Order,
    OrderEnriched,
    OrderState,
    OrderValidation,
    Payment,
    Refund,
)

MADE = datetime(2026, 11, 5, tzinfo=UTC)
FIRST_MS = 1_793_836_800_000


def record(topic, message, offset, ms, headers=()):
    return SinkRecord(topic.name, 0, 1, offset, FIRST_MS + ms, topic.key(message).encode(), message.to_json(), headers)


def order(state, reasons=None, **more):
    content = {"customer_id": 7, "product": "mug", "quantity": 2, "price": 12, "created_at": MADE, **more}
    return Order(id="o", state=state, reasons=reasons, **content)


def verdict(check, result, reason=None):
    return OrderValidation(order_id="o", check_type=check, validation_result=result, reason=reason)


WAY = (
    record(topics.ORDERS, order(OrderState.CREATED), 10, 1),
    record(topics.ORDER_VALIDATIONS, verdict("FRAUD_CHECK", "PASS"), 3, 2),
    record(topics.ORDER_VALIDATIONS, verdict("STOCK_CHECK", "FAIL", "sold out"), 4, 3),
    record(topics.ORDER_VALIDATIONS, verdict("AGE_CHECK", "ERROR"), 5, 4),
    record(topics.ORDERS, order(OrderState.VALIDATED), 11, 5),
    record(topics.PAYMENTS, Payment(id="Pay-1", order_id="o", ccy="EUR", amount=24), 0, 6),
    record(topics.PAYMENTS, Payment(id="Pay-2", order_id="o", ccy="EUR", amount=24), 1, 7),
    record(topics.ORDERS_ENRICHED, OrderEnriched(id="o", customer_id=7, customer_level="gold"), 0, 8),
    record(
        topics.HOME_CHECKINS,
        HomeCheckin(
            event_id="E-1",
            internet_no="1",
            order_no="o",
            staff_code="s",
            job_status="j",
            checkin_latitude=1,
            checkin_longitude=2,
            checkin_date=MADE,
        ),
        0,
        9,
        headers=(("event-id", b"E-1"), ("consumed-by", b"orders"), ("trace", None), ("odd", b"\xff")),
    ),
    record(topics.FULFILMENTS, Fulfilled(order_id="o"), 0, 10),
    record(topics.CANCELLATIONS, Cancellation(order_id="o", reason="too late"), 0, 11),
    record(topics.ORDERS, order(OrderState.CANCELLED, ("Not paid",)), 12, 12),
    record(topics.REFUNDS, Refund(refund_id="R-1", order_id="o", ccy="EUR", amount=48), 0, 13),
    record(topics.ORDERS, order(OrderState.CREATED, product="other"), 13, 14),  # repeated: does not count
)
"""The records of an order, by the time at which they were produced."""
