"""Bodies of answers of the history: pages of orders, the records of an order, explanations of its verdicts, times."""

from typing import Any

from pydantic import AwareDatetime, Field

from schemas.identifiers import OrderId
from schemas.messages import CheckType, OrderState, ValidationResult
from schemas.wire import Int64, Message, Money, Quantity, Total

_LAG = Field(
    default=None,
    description="Seconds by which the history may be behind the topics: 0 if no record is known that is not stored; "
    "absent while unknown",
)


class ListedOrder(Message):
    """An order in a list: its latest state, and when the first record of each stage was produced."""

    id: OrderId
    state: OrderState
    customer_id: Int64
    product: str
    quantity: Quantity
    price: Money
    value: Total
    created_at: AwareDatetime
    updated_at: AwareDatetime = Field(description="When the last of its records was produced")
    reasons: tuple[str, ...] = ()
    failed_checks: tuple[CheckType, ...] = Field(default=(), description="Checks that ever gave FAIL or ERROR")
    stages: dict[str, AwareDatetime] = Field(description="When the first record of each stage was produced")


class OrderPage(Message):
    """Body of `GET /v1/orders`: a page of orders, newest first."""

    orders: tuple[ListedOrder, ...]
    next: str | None = Field(default=None, description="`cursor` of the next page; absent on the last one")
    lag_seconds: float | None = _LAG


class RecordHeader(Message):
    """A header of a record. A value that is no UTF-8 text is `base64`; both are absent if it has no value."""

    name: str
    value: str | None = None
    base64: str | None = None


class StageRecord(Message):
    """A record about an order. `payload` is its JSON; of other bytes `payloadBase64`. A tombstone has neither."""

    stage: str
    topic: str
    partition: int
    offset: int
    produced_at: AwareDatetime
    stored_at: AwareDatetime = Field(description="When the history stored it")
    seconds_since_previous: float | None = Field(
        default=None, description="Since the record before was produced; below 0 if clocks of writers differ"
    )
    repeated: bool = Field(default=False, description="Whether its topic had the same key and value before")
    headers: tuple[RecordHeader, ...] = ()
    payload: Any = None
    payload_base64: str | None = None


class OrderHistory(Message):
    """Body of `GET /v1/orders/{id}/history`: all records about an order, causes before their consequences."""

    id: OrderId
    records: tuple[StageRecord, ...]
    more: bool = Field(default=False, description="Whether later records are left out: there are too many")
    lag_seconds: float | None = _LAG


class StepTiming(Message):
    """How long orders took from one stage to another."""

    start: str = Field(description="The first record of this stage, by the time at which it was produced")
    end: str
    count: int = Field(description="Orders that have reached both stages")
    p50_seconds: float
    p90_seconds: float
    p99_seconds: float
    max_seconds: float


class Timings(Message):
    """Body of `GET /v1/timings`: times between the stages of orders."""

    orders: int = Field(description="Orders created in the range")
    steps: tuple[StepTiming, ...] = Field(description="Steps that any of them has taken")
    lag_seconds: float | None = _LAG


class SessionNumbers(Message):
    """The session of a customer as the fraud check found it, the order included. Amounts are in `CURRENCY`."""

    orders: int
    earlier: tuple[OrderId, ...] = Field(description="The other orders of the session, the latest 20")
    value: Total = Field(description="Of this order")
    total: Total
    limit: Total
    gap_seconds: float
    start: AwareDatetime
    end: AwareDatetime


class StockNumbers(Message):
    """The stock of a product as the inventory check found it, in pieces."""

    counted: int | None = Field(default=None, description="By the warehouse; absent if it has announced nothing")
    counted_at: AwareDatetime | None = None
    shipped: int = Field(description="Pieces of orders that were shipped since")
    reserved: int = Field(description="Pieces that other orders held")
    available: int
    asked: int


class ProductFacts(Message):
    """The product as the product service had published it."""

    version: int
    price: Money
    withdrawn: bool
    changed_at: AwareDatetime


class ExplainedVerdict(Message):
    """A verdict with the numbers behind it at that moment, recomputed from the records."""

    check_type: CheckType
    validation_result: ValidationResult
    reason: str | None = Field(default=None, description="The reason that the check itself gave: the rule that failed")
    at: AwareDatetime
    required: bool
    explanation: str
    session: SessionNumbers | None = None
    stock: StockNumbers | None = None
    product: ProductFacts | None = None
    agrees: bool | None = Field(
        default=None,
        description="Whether the numbers give this verdict under the settings of this worker; false if other settings "
        "were in force, or records of the same moment came in another order",
    )


class OrderExplanation(Message):
    """Body of `GET /v1/orders/{id}/explain`: why an order is in its state."""

    id: OrderId
    state: OrderState
    reasons: tuple[str, ...] = ()
    explanation: str
    verdicts: tuple[ExplainedVerdict, ...]
    required: tuple[CheckType, ...] = Field(description="Checks that decide the order")
    missing: tuple[CheckType, ...] = Field(description="Required checks without a verdict when it was decided, or now")
    required_from: str = Field(description="`required-checks`, the topic, or `REQUIRED_CHECKS` of this worker")
    lag_seconds: float | None = _LAG
