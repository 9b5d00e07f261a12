"""The messages on the topics. Field names follow Confluent's microservices example, in camelCase on the wire."""

from decimal import Decimal
from enum import StrEnum

from pydantic import AwareDatetime, Field

from schemas.identifiers import Code, OrderId
from schemas.money import CurrencyCode
from schemas.wire import Int64, Message, Money, Quantity, Timestamp


class OrderState(StrEnum):
    CREATED = "CREATED"
    VALIDATED = "VALIDATED"
    FAILED = "FAILED"
    SHIPPED = "SHIPPED"

    @property
    def decided(self) -> bool:
        """Whether the verdicts are in: a state that never goes back to CREATED."""
        return self is not OrderState.CREATED


class CheckType(StrEnum):
    FRAUD_CHECK = "FRAUD_CHECK"
    INVENTORY_CHECK = "INVENTORY_CHECK"
    ORDER_DETAILS_CHECK = "ORDER_DETAILS_CHECK"


class ValidationResult(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    ERROR = "ERROR"


class Order(Message):
    """Topic `orders`, keyed by id: an order and the state it has come to. A FAILED one says why."""

    id: OrderId
    customer_id: Int64
    state: OrderState = OrderState.CREATED
    product: str = Field(max_length=256)
    quantity: Quantity
    price: Money
    created_at: Timestamp
    reasons: tuple[str, ...] | None = None

    @property
    def value(self) -> Decimal:
        """What the order is worth: quantity times price."""
        return self.quantity * self.price

    def same_content(self, other: "Order") -> bool:
        """Whether a client would call both the same order: all that the client chose is equal."""
        return (self.id, self.customer_id, self.product, self.quantity, self.price) == (
            other.id,
            other.customer_id,
            other.product,
            other.quantity,
            other.price,
        )


class OrderValidation(Message):
    """Topic `order-validations`, keyed by order id: the verdict of one check on one order."""

    order_id: OrderId
    check_type: CheckType
    validation_result: ValidationResult
    reason: str | None = Field(default=None, max_length=4096)


class StockLevel(Message):
    """Topic `warehouse-inventory`, keyed by product: how many pieces the warehouse holds, as an absolute count."""

    product: str = Field(max_length=256)
    count: int = Field(strict=True, ge=0, le=2**53)


class Payment(Message):
    """Topic `payments`, keyed by payment id. What it pays, and whether it counts, is said in `schemas/payments.py`."""

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
    """Topic `customers`, keyed by customer id. An unknown level stays readable: whoever sorts by it decides."""

    id: Int64
    first_name: str
    last_name: str
    email: str
    address: str
    level: str = CustomerLevel.BRONZE


class Need(StrEnum):
    """What may have to happen before an order is shipped."""

    VALIDATED = "VALIDATED"
    PAID = "PAID"
    CHECKED_IN = "CHECKED_IN"


class HomeCheckin(Message):
    """Topic `home-checkins`, keyed by order: a technician, or the warehouse, reports on the spot."""

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
    """Topic `checkin-rejections`, keyed by order: the check-in `event_id` counts for nothing, and why."""

    event_id: str
    order_no: OrderId
    reason: str


class Fulfilled(Message):
    """Topic `fulfilments`, keyed by order: all that has to happen before the order is shipped has happened."""

    order_id: OrderId


class OrderEnriched(Message):
    """Topic `orders-enriched` and the topics named by customer level, keyed by order id."""

    id: OrderId
    customer_id: Int64
    customer_level: str


class ProductEventKind(StrEnum):
    """What happened to a product. An UPDATED one is on offer, also if it had been withdrawn."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    WITHDRAWN = "WITHDRAWN"


class ProductEvent(Message):
    """Topic `products`, keyed by code: what happened to a product, and what it is since.

    `version` counts the events of a code from 1, without gaps. `at` is when the product service did it.
    """

    event_id: str
    kind: ProductEventKind
    code: Code
    name: str
    price: Money
    version: int = Field(strict=True, ge=1)
    at: AwareDatetime


class ProductAlertKind(StrEnum):
    """What is suspicious about a change of a product."""

    PRICE_DROP = "PRICE_DROP"
    MANY_CHANGES = "MANY_CHANGES"


class ProductAlert(Message):
    """Topic `product-alerts`, keyed by code: the change that led to `version` at `at` is suspicious, and why."""

    event_id: str
    kind: ProductAlertKind
    code: Code
    version: int = Field(strict=True, ge=1)
    reason: str
    at: AwareDatetime
