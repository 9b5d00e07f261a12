"""Bodies of the HTTP API that are not messages themselves."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, StrictFloat, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.identifiers import Code, Name, OrderId
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


def _local_time(value: object) -> datetime:
    try:
        if isinstance(value, str) and re.fullmatch(_LOCAL_TIME, value):
            return datetime.strptime(value, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the service knows the zone
    except ValueError:
        pass  # the 30th of February
    raise PydanticCustomError("local_time", "must be a date and time such as 2021-03-18 10:13:43")


_LOCAL_TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"
LocalTime = Annotated[
    datetime,
    PlainValidator(_local_time),
    PlainSerializer(lambda local: f"{local:%Y-%m-%d %H:%M:%S}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{_LOCAL_TIME}$", "examples": ["2021-03-18 10:13:43"]}),
]
"""A date and time of day as a clock on the wall shows it."""

Latitude = Annotated[StrictFloat, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[StrictFloat, Field(ge=-180, le=180, allow_inf_nan=False)]


class NewCheckin(Message):
    """Body of `POST /api/SOA/home/checkin`: somebody is on the spot. Degrees are WGS 84's."""

    internet_no: Code
    order_no: OrderId
    staff_code: Code
    job_status: Code
    checkin_latitude: Latitude
    checkin_longitude: Longitude
    checkin_date: LocalTime


class CheckinState(StrEnum):
    CREATED = "CREATED"
    REJECTED = "REJECTED"


class Checkin(Message):
    """Answer of `/api/SOA/home/checkin`: a check-in and what became of it. A REJECTED one counts for nothing."""

    event_id: str
    status: CheckinState
    reason: str | None = Field(default=None, description="Why it was rejected")
    internet_no: str
    order_no: OrderId
    staff_code: str
    job_status: str
    checkin_latitude: float
    checkin_longitude: float
    checkin_date: datetime


class PortalCheckin(Message):
    """A check-in as the portal knows it. What it says is missing while only its rejection is known."""

    event_id: str
    status: CheckinState
    reason: str | None = None
    internet_no: str | None = None
    staff_code: str | None = None
    job_status: str | None = None
    checkin_date: datetime | None = None


class PortalCheckins(Message):
    """Body of `GET /v1/portal/checkins/{orderNo}`: the last check-ins of an order, the latest at the end."""

    order_no: OrderId
    check_ins: tuple[PortalCheckin, ...] = ()


class ProductContent(Message):
    """Body of `PUT /v1/products/{code}`: what a product is to be from now on."""

    name: Name
    price: Annotated[Money, BeforeValidator(_no_text)] = Field(ge=0, description="Of one piece")


class NewProduct(ProductContent):
    """Body of `POST /v1/products`."""

    code: Code


class ProductState(StrEnum):
    ACTIVE = "ACTIVE"
    WITHDRAWN = "WITHDRAWN"


class Product(Message):
    """Answer of `/v1/products`: a product as it is now. `version` counts its changes from 1, and is its ETag."""

    code: str
    name: str
    price: Money
    version: int
    state: ProductState
    changed_at: datetime


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
