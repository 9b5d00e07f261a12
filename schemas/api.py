"""Bodies of HTTP requests and answers that are not messages on a topic."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, StrictFloat, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.identifiers import Code, Composed, Name, OrderId
from schemas.messages import CheckType, Need, Order, OrderState, ProductEvent, ValidationResult
from schemas.times import DAY
from schemas.wire import Int64, Message, Money, Quantity, Total, example

_MAX_PRICE = 99_999_999_999.9999


def _reject_text(value: object) -> object:
    """Rejects a price in quotes, which Decimal would accept and other consumers would not."""
    if isinstance(value, str):
        raise PydanticCustomError("decimal_type", "Input should be a number, not text")
    return value


def _integral(value: object) -> object:
    """Reads 3.0 as 3, which are equal in JSON. From 2**53 on a double is ambiguous and is left as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _price_schema(minimum: float) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", "minimum": minimum, "maximum": _MAX_PRICE, "multipleOf": 0.0001})


Whole = BeforeValidator(_integral)


class NewOrder(Message):
    """Body of `POST /v1/orders`. Without an id the server generates one."""

    model_config = example(id="my-order", customerId=15, product="UNDERPANTS", quantity=3, price=5.00)

    id: Annotated[OrderId, Composed] | None = Field(
        default=None, description="Chosen by the client; makes the request idempotent"
    )
    customer_id: Annotated[Int64, Whole]
    product: Annotated[str, Field(max_length=256), Composed]
    quantity: Annotated[Quantity, Whole]
    price: Annotated[Money, BeforeValidator(_reject_text), _price_schema(-_MAX_PRICE)] = Field(description="Unit price")


class Verdict(Message):
    """Verdict of one check on an order."""

    check_type: CheckType
    validation_result: ValidationResult
    reason: str | None = None


class OrderOutcome(Message):
    """Body of `GET /v1/orders/{id}/validated`: state, verdicts so far, and reasons of a failure."""

    id: OrderId
    state: OrderState
    order: Order
    verdicts: tuple[Verdict, ...] = ()
    reasons: tuple[str, ...] = ()
    required: tuple[CheckType, ...] = Field(default=(), description="Checks that decide the order")
    missing: tuple[CheckType, ...] = Field(default=(), description="Required checks without a verdict")
    late: int = Field(default=0, description="Verdicts that arrived after the order was decided, or repeated a check")


class FulfilmentStatus(Message):
    """Body of `GET /v1/orders/{id}/fulfilment`: prerequisites of the shipment, and those not met yet."""

    order_id: OrderId
    fulfilled: bool
    needed: tuple[Need, ...]
    missing: tuple[Need, ...]
    state: OrderState | None = Field(default=None, description="Absent until the order itself has arrived")
    currency: str = Field(default="EUR", description="Currency of `value` and `paid`")
    value: Total | None = None
    paid: Total = Field(description="Sum of the distinct payments in the currency of orders")
    other_currencies: dict[str, Total] = Field(
        default_factory=dict, description="Sums of payments in other currencies, which do not count; at most 20"
    )
    ignored_payments: int = Field(default=0, description="Number of payments in other currencies")


def _parse_local_time(value: object) -> datetime:
    if isinstance(value, str) and re.fullmatch(_LOCAL_TIME, value):
        return datetime.fromisoformat(value)
    raise PydanticCustomError("local_time", "must be a date and time from 1970 to 2099, such as 2021-03-18 10:13:43")


def _format_local_time(local: datetime) -> str:
    return local.isoformat(" ")


_OFFSET = r"(?:[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"
_LOCAL_TIME = rf"{DAY} (?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]{_OFFSET}"
LocalTime = Annotated[
    datetime,
    PlainValidator(_parse_local_time),
    PlainSerializer(_format_local_time, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "description": "Local time in the service's time zone (CHECKIN_TIME_ZONE). A time that occurs twice when "
            "clocks are set back means the first occurrence; an offset from UTC selects one. A time that is skipped "
            "when clocks are set forward is rejected",
            "pattern": f"^{_LOCAL_TIME}$",
            "examples": ["2021-03-18 10:13:43", "2026-10-25 02:30:00+01:00"],
        }
    ),
]
"""A local date and time of day, 1970 to 2099, with or without an offset from UTC."""

Latitude = Annotated[StrictFloat, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[StrictFloat, Field(ge=-180, le=180, allow_inf_nan=False)]


class NewCheckin(Message):
    """Body of `POST /api/SOA/home/checkin`: a check-in on site. Coordinates are degrees (WGS 84)."""

    model_config = example(
        internetNo="8850049302",
        orderNo="5960915_106347524.2",
        staffCode="cs_eng_ftth",
        jobStatus="homecheckedin",
        checkinLatitude=13.7827811,
        checkinLongitude=100.5465937,
        checkinDate="2021-03-18 10:13:43",
    )

    internet_no: Annotated[Code, Composed]
    order_no: Annotated[OrderId, Composed]
    staff_code: Annotated[Code, Composed]
    job_status: Annotated[Code, Composed]
    checkin_latitude: Latitude
    checkin_longitude: Longitude
    checkin_date: LocalTime


class CheckinState(StrEnum):
    CREATED = "CREATED"
    REJECTED = "REJECTED"


class Checkin(Message):
    """Answer of `/api/SOA/home/checkin`: a check-in and its status.

    A REJECTED check-in does not count for its order.
    """

    event_id: str
    status: CheckinState
    reason: str | None = Field(default=None, description="Reason of the rejection")
    internet_no: str
    order_no: OrderId
    staff_code: str
    job_status: str
    checkin_latitude: float
    checkin_longitude: float
    checkin_date: datetime


class PortalCheckin(Message):
    """A check-in in the portal's read model. Its details are absent while only its rejection has arrived."""

    event_id: str
    status: CheckinState
    reason: str | None = None
    internet_no: str | None = None
    staff_code: str | None = None
    job_status: str | None = None
    checkin_date: datetime | None = None


class PortalCheckins(Message):
    """Body of `GET /v1/portal/checkins/{orderNo}`: the latest check-ins of an order, oldest first."""

    order_no: OrderId
    check_ins: tuple[PortalCheckin, ...] = ()
    earlier: int = Field(default=0, description="Number of older check-ins that are no longer shown")


class ProductContent(Message):
    """Body of `PUT /v1/products/{code}`: the new content of a product."""

    model_config = example(name="Underpants, blue", price=5.00)

    name: Name
    price: Annotated[Money, BeforeValidator(_reject_text), Field(ge=0), _price_schema(0)] = Field(
        description="Unit price"
    )


class NewProduct(ProductContent):
    """Body of `POST /v1/products`."""

    model_config = example(code="UNDERPANTS", name="Underpants, blue", price=5.00)

    code: Annotated[Code, Composed]


class ProductState(StrEnum):
    ACTIVE = "ACTIVE"
    WITHDRAWN = "WITHDRAWN"


class Product(Message):
    """Answer of `/v1/products`: the current version of a product.

    `version` counts its changes from 1 and is the ETag.
    """

    code: str
    name: str
    price: Money
    version: int
    state: ProductState
    changed_at: datetime


class ProductTotals(Message):
    """Body of `GET /v1/monitoring/products`: totals over all products.

    `gaps` counts product versions that were expected and never arrived; 0 in normal operation.
    """

    created: int = 0
    updated: int = 0
    withdrawn: int = 0
    on_offer: int = Field(default=0, description="Products that can be ordered now")
    gaps: int = 0
    last_change: datetime | None = None


class ProductLog(Message):
    """Body of `GET /v1/product-log/{code}`: the latest changes of a product, oldest first."""

    code: str
    entries: tuple[ProductEvent, ...]


class InvalidParam(Message):
    """An invalid part of a request (RFC 9457, example of 3.0): its name, and what to correct."""

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
