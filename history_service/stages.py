"""Stages of an order: what a record of each topic says about which order. Pure."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from schemas import topics
from schemas.messages import OrderState
from schemas.topics import BY_LEVEL, CATALOGUE, DEAD_LETTERS, Topic


class Stage(StrEnum):
    """Stages, in the column `stage` of `records`. Those of an order are in the order of its way."""

    CREATED = "CREATED"
    """The order was placed (`orders`, as are the other states)."""
    VERDICT = "VERDICT"
    VALIDATED = "VALIDATED"
    FAILED = "FAILED"
    ENRICHED = "ENRICHED"
    """The order was joined with its customer, and its e-mail requested."""
    LEVEL = "LEVEL"
    """The same, on the topic of the customer's level."""
    PAYMENT = "PAYMENT"
    CHECK_IN = "CHECK_IN"
    CHECK_IN_REJECTED = "CHECK_IN_REJECTED"
    FULFILLED = "FULFILLED"
    SHIPPED = "SHIPPED"
    CANCELLATION = "CANCELLATION"
    """Another service asks to cancel the order."""
    CANCELLED = "CANCELLED"
    REFUND = "REFUND"

    STOCK = "STOCK"
    CUSTOMER = "CUSTOMER"
    PRODUCT = "PRODUCT"
    PRODUCT_ALERT = "PRODUCT_ALERT"
    REQUIRED_CHECKS = "REQUIRED_CHECKS"

    DEAD_LETTER = "DEAD_LETTER"
    """A message that a service could not process."""
    UNKNOWN = "UNKNOWN"
    """A record that is no message of its topic, or that the database refused to index."""


class TopicStage(NamedTuple):
    """What the records of a topic are.

    Arguments:
        topic: the topic; that of the messages for their dead letters.
        stage: their stage; `None` if it is the order's state.
        order_id: returns the order that a message is about; `None` if messages are about no order.
        keyed: whether the key of a record is the order's id.
    """

    topic: Topic[Any]
    stage: Stage | None
    order_id: Callable[[Any], str] | None = None
    keyed: bool = False


_STAGES: Mapping[Topic[Any], tuple[Stage | None, Callable[[Any], str] | None]] = {
    topics.ORDERS: (None, lambda order: order.id),
    topics.ORDER_VALIDATIONS: (Stage.VERDICT, lambda verdict: verdict.order_id),
    topics.REQUIRED_CHECKS: (Stage.REQUIRED_CHECKS, None),
    topics.CANCELLATIONS: (Stage.CANCELLATION, lambda cancellation: cancellation.order_id),
    topics.REFUNDS: (Stage.REFUND, lambda refund: refund.order_id),
    topics.WAREHOUSE_INVENTORY: (Stage.STOCK, None),
    topics.PAYMENTS: (Stage.PAYMENT, lambda payment: payment.order_id),
    topics.CUSTOMERS: (Stage.CUSTOMER, None),
    topics.HOME_CHECKINS: (Stage.CHECK_IN, lambda check_in: check_in.order_no),
    topics.CHECKIN_REJECTIONS: (Stage.CHECK_IN_REJECTED, lambda rejected: rejected.order_no),
    topics.FULFILMENTS: (Stage.FULFILLED, lambda fulfilled: fulfilled.order_id),
    topics.PRODUCTS: (Stage.PRODUCT, None),
    topics.PRODUCT_ALERTS: (Stage.PRODUCT_ALERT, None),
    topics.ORDERS_ENRICHED: (Stage.ENRICHED, lambda enriched: enriched.id),
    **{topic: (Stage.LEVEL, lambda enriched: enriched.id) for topic in BY_LEVEL.values()},
}

STATE_STAGES: Mapping[OrderState, Stage] = {state: Stage(state.value) for state in OrderState}
"""The stage of a record in `orders`, by the state of the order."""


def _topic_stages() -> dict[str, TopicStage]:
    result = {}
    for topic in CATALOGUE:
        stage, order_id = _STAGES[topic]
        keyed = order_id is not None and topic is not topics.PAYMENTS
        result[topic.name] = TopicStage(topic, stage, order_id, keyed)
        result[topic.name + DEAD_LETTERS] = TopicStage(topic, Stage.DEAD_LETTER, order_id, keyed)
    return result


TOPIC_STAGES: Mapping[str, TopicStage] = _topic_stages()
"""By logical name: every public topic of the catalogue, and its topic for dead letters."""
