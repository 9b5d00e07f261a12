"""Bodies of the HTTP API that are not messages themselves."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from schemas.identifiers import OrderId
from schemas.messages import CheckType, Need, Order, OrderState, ValidationResult
from schemas.wire import Int64, Message, Money, Quantity


def _no_text(value: object) -> object:
    """Decimal reads text as well; a price in quotes is a client's mistake that other readers would stumble over."""
    if isinstance(value, str):
        raise PydanticCustomError("decimal_type", "Input should be a number, not text")
    return value


class NewOrder(Message):
    """Body of `POST /v1/orders`. Without an id the server makes one."""

    id: OrderId | None = Field(default=None, description="Chosen by the client, who may then repeat the request safely")
    customer_id: Int64
    product: str = Field(max_length=256)
    quantity: Quantity
    price: Annotated[Money, BeforeValidator(_no_text)] = Field(description="Of one piece")


class Verdict(Message):
    """What one check said."""

    check_type: CheckType
    validation_result: ValidationResult
    reason: str | None = None


class OrderOutcome(Message):
    """Body of `GET /v1/orders/{id}/validated`: the order's state, the verdicts so far and why it failed, if it did."""

    id: OrderId
    state: OrderState
    order: Order
    verdicts: tuple[Verdict, ...] = ()
    reasons: tuple[str, ...] = ()
    late: int = Field(default=0, description="Verdicts that came when they could not change anything any more")


class FulfilmentStatus(Message):
    """Body of `GET /v1/orders/{id}/fulfilment`: what is needed before the order is shipped, and what is missing."""

    order_id: OrderId
    fulfilled: bool
    needed: tuple[Need, ...]
    missing: tuple[Need, ...]
    state: OrderState | None = Field(default=None, description="Missing as long as the order itself is not known")
    value: Money | None = None
    paid: Money


class InvalidParam(Message):
    """One fault in a request (RFC 9457, example of 3.0): where, and what to do about it."""

    name: str
    reason: str


class Problem(Message):
    """`application/problem+json`, RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None
    errors: tuple[InvalidParam, ...] | None = None
