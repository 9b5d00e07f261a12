"""Messages on the topics: camelCase on the wire, field names of Confluent's microservices example."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field
from typing_extensions import TypeAliasType

from schemas.identifiers import Code, OrderId
from schemas.money import CurrencyCode
from schemas.wire import Int64, Message, Money, Quantity, Timestamp, Total


class OrderState(StrEnum):
    CREATED = "CREATED"
    VALIDATED = "VALIDATED"
    FAILED = "FAILED"
    SHIPPED = "SHIPPED"
    CANCELLED = "CANCELLED"

    @property
    def decided(self) -> bool:
        """Whether the order is not CREATED any more. A decided order never returns to CREATED."""
        return self is not OrderState.CREATED

    @property
    def cancellable(self) -> bool:
        """Whether the order can still be cancelled: it has neither failed nor been shipped."""
        return self in {OrderState.CREATED, OrderState.VALIDATED}

    @property
    def final(self) -> bool:
        """Whether nothing follows, but for another attempt to decide a FAILED order."""
        return not self.cancellable


CheckType = TypeAliasType("CheckType", Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")])
"""Name of a check. An open set: consumers record checks that they do not know."""


class BuiltInCheck(StrEnum):
    """The checks of the validators in this repository."""

    FRAUD_CHECK = "FRAUD_CHECK"
    INVENTORY_CHECK = "INVENTORY_CHECK"
    ORDER_DETAILS_CHECK = "ORDER_DETAILS_CHECK"


class ValidationResult(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    ERROR = "ERROR"


FIRST_ATTEMPT = 1
ATTEMPT_SEPARATOR = "\x1f"
"""Between a key of rows about an order and the attempt to decide it: no order id contains it."""
Attempt = Annotated[int, Field(strict=True, ge=FIRST_ATTEMPT, le=1_000_000)]


class Order(Message):
    """Topic `orders`, keyed by id: an order in its current state. A FAILED or CANCELLED order carries the reasons.

    `attempt` counts the decisions on an order: absent for the first. A FAILED order is decided anew by a CREATED order
    of the next attempt.
    """

    id: OrderId
    customer_id: Int64
    state: OrderState = OrderState.CREATED
    product: str = Field(max_length=256)
    quantity: Quantity
    price: Money
    created_at: Timestamp
    reasons: tuple[str, ...] | None = None
    attempt: Attempt | None = None

    @property
    def attempt_number(self) -> int:
        """Number of the attempt to decide the order, from 1."""
        return self.attempt or FIRST_ATTEMPT

    def attempt_key(self, key: str) -> str:
        """A key of rows about the order, with the attempt from the second on."""
        return key if self.attempt_number == FIRST_ATTEMPT else f"{key}{ATTEMPT_SEPARATOR}{self.attempt}"

    @property
    def value(self) -> Decimal:
        """Value of the order: quantity times price."""
        return self.quantity * self.price

    def same_content(self, other: "Order") -> bool:
        """Whether all fields chosen by the client are equal."""
        return (self.id, self.customer_id, self.product, self.quantity, self.price) == (
            other.id,
            other.customer_id,
            other.product,
            other.quantity,
            other.price,
        )


class OrderValidation(Message):
    """Topic `order-validations`, keyed by order id: the verdict of one check on one order.

    `attempt` is that of the order, absent for the first.
    """

    order_id: OrderId
    check_type: CheckType
    validation_result: ValidationResult
    reason: str | None = Field(default=None, max_length=4096)
    attempt: Attempt | None = None

    @property
    def attempt_number(self) -> int:
        """Number of the attempt to decide the order, from 1."""
        return self.attempt or FIRST_ATTEMPT


MAX_CHECK_SETS = 100
"""Sets in a record of `required-checks`: it must stay far below the megabyte that brokers accept."""


class CheckSet(Message):
    """The checks that orders first seen from `since` on must pass."""

    since: AwareDatetime
    checks: tuple[CheckType, ...]


class RequiredChecks(Message):
    """Topic `required-checks`, one record in each partition: sets of checks, by the time from which they apply.

    `version` counts the changes, from 1. A record of a lower version than one that was read before has no effect.
    """

    name: str = "required-checks"
    version: int = Field(default=0, strict=True, ge=0)
    sets: tuple[CheckSet, ...] = Field(max_length=MAX_CHECK_SETS)

    def at(self, time: datetime) -> tuple[CheckType, ...] | None:
        """The set that applies at a time; `None` before the first one."""
        started = [s for s in self.sets if s.since <= time]
        return max(started, key=lambda s: s.since).checks if started else None


class Cancellation(Message):
    """Topic `cancellations`, keyed by order: asks to cancel an order. It has no effect once the order is shipped."""

    order_id: OrderId
    reason: str = Field(max_length=4096)


class Refund(Message):
    """Topic `refunds`, keyed by order: money to return for a cancelled order.

    `refund_id` identifies repetitions: a payment id, or the order id for what was paid before the order was cancelled.
    """

    refund_id: str
    order_id: OrderId
    ccy: CurrencyCode = Field(min_length=3, max_length=3)
    amount: Total


class StockLevel(Message):
    """Topic `warehouse-inventory`, keyed by product: pieces in the warehouse, as an absolute count."""

    product: str = Field(max_length=256)
    count: int = Field(strict=True, ge=0, le=2**53)


class Payment(Message):
    """Topic `payments`, keyed by payment id. Which payments count: `schemas/payments.py`."""

    id: str
    order_id: OrderId
    ccy: CurrencyCode = Field(min_length=3, max_length=3)
    amount: Money


class CustomerLevel(StrEnum):
    PLATINUM = "platinum"
    GOLD = "gold"
    SILVER = "silver"
    BRONZE = "bronze"


class Customer(Message):
    """Topic `customers`, keyed by customer id. `level` may be any text; consumers handle unknown ones."""

    id: Int64
    first_name: str
    last_name: str
    email: str
    address: str
    level: str = CustomerLevel.BRONZE


class Need(StrEnum):
    """A prerequisite of the shipment of an order."""

    VALIDATED = "VALIDATED"
    PAID = "PAID"
    CHECKED_IN = "CHECKED_IN"


class HomeCheckin(Message):
    """Topic `home-checkins`, keyed by order: a technician or the warehouse reports from the site."""

    event_id: str
    event_type: str = "HOME_CHECKIN_CREATED"
    internet_no: str
    order_no: OrderId
    staff_code: str
    job_status: str
    checkin_latitude: float
    checkin_longitude: float
    checkin_date: Timestamp


class CheckinRejected(Message):
    """Topic `checkin-rejections`, keyed by order: the check-in `event_id` does not count, and why."""

    event_id: str
    order_no: OrderId
    reason: str


class Fulfilled(Message):
    """Topic `fulfilments`, keyed by order: all prerequisites of the shipment are met."""

    order_id: OrderId


class OrderEnriched(Message):
    """Topic `orders-enriched` and one topic per customer level, keyed by order id: order with customer."""

    id: OrderId
    customer_id: Int64
    customer_level: str


class ProductEventKind(StrEnum):
    """Kind of a product change. UPDATED also puts a withdrawn product on offer again."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    WITHDRAWN = "WITHDRAWN"


class ProductEvent(Message):
    """Topic `products`, keyed by code: one change of a product, with the resulting content.

    `version` counts the changes of a code from 1, without gaps. `at` is the time of the change in the product service.
    """

    event_id: str
    kind: ProductEventKind
    code: Code
    name: str
    price: Money
    version: int = Field(strict=True, ge=1)
    at: AwareDatetime


class ProductAlertKind(StrEnum):
    """Why a product change is suspicious."""

    PRICE_DROP = "PRICE_DROP"
    MANY_CHANGES = "MANY_CHANGES"


class ProductAlert(Message):
    """Topic `product-alerts`, keyed by code: the change to `version` at `at` is suspicious, and why."""

    event_id: str
    kind: ProductAlertKind
    code: Code
    version: int = Field(strict=True, ge=1)
    reason: str
    at: AwareDatetime
