"""Bodies of the HTTP API that are not messages themselves."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, StrictFloat, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.identifiers import Code, Composed, Name, OrderId
from schemas.messages import CheckType, Need, Order, OrderState, ProductEvent, ValidationResult
from schemas.wire import Int64, Message, Money, Quantity, Total, example

_MOST = 99_999_999_999.9999


def _no_text(value: object) -> object:
    """Decimal reads text as well; a price in quotes is a client's mistake that other readers would stumble over."""
    if isinstance(value, str):
        raise PydanticCustomError("decimal_type", "Input should be a number, not text")
    return value


def _whole(value: object) -> object:
    """To JSON, 3.0 is the whole number 3; from 2**53 on, a double no longer says which one it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _price(least: float) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", "minimum": least, "maximum": _MOST, "multipleOf": 0.0001})


Whole = BeforeValidator(_whole)


class NewOrder(Message):
    """Body of `POST /v1/orders`. Without an id the server makes one."""

    model_config = example(id="my-order", customerId=15, product="UNDERPANTS", quantity=3, price=5.00)

    id: Annotated[OrderId, Composed] | None = Field(
        default=None, description="Chosen by the client, who may then repeat the request safely"
    )
    customer_id: Annotated[Int64, Whole]
    product: Annotated[str, Field(max_length=256), Composed]
    quantity: Annotated[Quantity, Whole]
    price: Annotated[Money, BeforeValidator(_no_text), _price(-_MOST)] = Field(description="Of one piece")


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
    currency: str = Field(default="EUR", description="Of `value` and `paid`")
    value: Total | None = None
    paid: Total = Field(description="Sum of the payments in the order's currency, each counted once")
    other_currencies: dict[str, Total] = Field(
        default_factory=dict, description="What was paid in other currencies, and pays nothing; of 20 at most"
    )
    ignored_payments: int = Field(default=0, description="How many payments were in other currencies")


def _local_time(value: object) -> datetime:
    if isinstance(value, str) and re.fullmatch(_LOCAL_TIME, value):
        return datetime.fromisoformat(value)
    raise PydanticCustomError("local_time", "must be a date and time from 1970 to 2099, such as 2021-03-18 10:13:43")


def _written(local: datetime) -> str:
    return local.isoformat(" ")


# Every day there is and no other, so that documents can say it too. Of these years every fourth is a leap year.
_DAY = (
    r"(?:(?:19[7-9]|20[0-9])[0-9]-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    r"|(?:0[13578]|1[02])-31)|(?:19(?:[79][26]|8[048])|20(?:[02468][048]|[13579][26]))-02-29)"
)
_OFFSET = r"(?:[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"
_LOCAL_TIME = rf"{_DAY} (?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]{_OFFSET}"
LocalTime = Annotated[
    datetime,
    PlainValidator(_local_time),
    PlainSerializer(_written, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "description": "As clocks of the service's time zone (CHECKIN_TIME_ZONE) show it. Where they are put back "
            "and show it twice, the first moment is meant; an offset from UTC tells which. One that they never "
            "show, because they are put forward over it, is refused",
            "pattern": f"^{_LOCAL_TIME}$",
            "examples": ["2021-03-18 10:13:43", "2026-10-25 02:30:00+01:00"],
        }
    ),
]
"""A date and time of day as a clock on the wall shows it, 1970 to 2099; with or without its offset from UTC."""

Latitude = Annotated[StrictFloat, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[StrictFloat, Field(ge=-180, le=180, allow_inf_nan=False)]


class NewCheckin(Message):
    """Body of `POST /api/SOA/home/checkin`: somebody is on the spot. Degrees are WGS 84's."""

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
    earlier: int = Field(default=0, description="How many check-ins came before these and are no longer shown")


class ProductContent(Message):
    """Body of `PUT /v1/products/{code}`: what a product is to be from now on."""

    model_config = example(name="Underpants, blue", price=5.00)

    name: Name
    price: Annotated[Money, BeforeValidator(_no_text), Field(ge=0), _price(0)] = Field(description="Of one piece")


class NewProduct(ProductContent):
    """Body of `POST /v1/products`."""

    model_config = example(code="UNDERPANTS", name="Underpants, blue", price=5.00)

    code: Annotated[Code, Composed]


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


class ProductTotals(Message):
    """Body of `GET /v1/monitoring/products`: what has happened to all products together.

    `gaps` counts versions of products that were expected and did not come; 0 unless something is wrong.
    """

    created: int = 0
    updated: int = 0
    withdrawn: int = 0
    on_offer: int = Field(default=0, description="Products that can be ordered now")
    gaps: int = 0
    last_change: datetime | None = None


class ProductLog(Message):
    """Body of `GET /v1/product-log/{code}`: the last changes of a product, the latest at the end."""

    code: str
    entries: tuple[ProductEvent, ...]


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
