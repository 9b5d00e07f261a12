"""Rows of the frontend database: the last one of each key in a batch, written by one statement per table.

The records of a key are in one partition, so their order is that of the offsets. The sink stores each batch in the
transaction that advances the offsets; so no row is older than the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from pydantic import ValidationError

from runtime.model.sink import BulkWriter, SinkRecord
from schemas.messages import Customer, CustomerLevel, Order, OrderState
from schemas.topics import CUSTOMERS, ORDERS
from schemas.validation import describe_invalid

STATUS = {
    OrderState.CREATED: "N",
    OrderState.VALIDATED: "V",
    OrderState.FAILED: "F",
    OrderState.SHIPPED: "S",
    OrderState.CANCELLED: "C",
}
_CLASSES = {level.value: level.value[0].upper() for level in CustomerLevel}

_UPSERT_ORDERS = """
    INSERT INTO frontend_orders (order_no, customer_no, status, article, pieces, amount, remark, changed_at)
    SELECT * FROM unnest(
        $1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::numeric[], $7::text[], $8::timestamptz[]
    )
    ON CONFLICT (order_no) DO UPDATE SET
        customer_no = excluded.customer_no, status = excluded.status, article = excluded.article,
        pieces = excluded.pieces, amount = excluded.amount, remark = excluded.remark, changed_at = excluded.changed_at
"""
_UPSERT_CUSTOMERS = """
    INSERT INTO frontend_customers (customer_no, name, email, class)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[])
    ON CONFLICT (customer_no) DO UPDATE SET name = excluded.name, email = excluded.email, class = excluded.class
"""
_DELETE_CUSTOMERS = "DELETE FROM frontend_customers WHERE customer_no = ANY($1::bigint[])"


class OrderRow(NamedTuple):
    """A row of `frontend_orders`."""

    order_no: str
    customer_no: int
    status: str
    article: str
    pieces: int
    amount: Decimal
    remark: str | None
    changed_at: datetime


class CustomerRow(NamedTuple):
    """A row of `frontend_customers`."""

    customer_no: int
    name: str
    email: str
    class_: str


@dataclass(frozen=True, slots=True)
class Rows:
    """The last row of each key. A customer of `None` is deleted."""

    orders: dict[str, OrderRow] = field(default_factory=dict)
    customers: dict[int, CustomerRow | None] = field(default_factory=dict)


def prepare(records: Sequence[SinkRecord]) -> Rows:
    """Makes rows of records. Raises `ValueError` for a record that is no message of its topic."""
    rows = Rows()
    for record in records:
        try:
            if record.topic == ORDERS.name and record.value is not None:
                row = _order(Order.from_json(record.value), record.timestamp_ms)
                rows.orders[row.order_no] = row
            elif record.topic == CUSTOMERS.name and record.key is not None:
                number = int(record.key)
                rows.customers[number] = None if record.value is None else _customer(Customer.from_json(record.value))
        except ValidationError as error:
            raise ValueError(describe_invalid(error)) from error
    return rows


def prepare_raw(_: SinkRecord) -> Rows:
    """A record that is refused changes no row: its dead letter has it."""
    return Rows()


async def write(writer: BulkWriter, slices: Sequence[Rows]) -> None:
    """Writes the rows of a batch. Keys are sorted, so that two workers lock them in the same order."""
    orders = [row for _, row in sorted({no: row for rows in slices for no, row in rows.orders.items()}.items())]
    customers = sorted({no: row for rows in slices for no, row in rows.customers.items()}.items())
    kept = [row for _, row in customers if row is not None]
    if orders:
        await writer.execute(_UPSERT_ORDERS, *map(list, zip(*orders, strict=True)))
    if kept:
        await writer.execute(_UPSERT_CUSTOMERS, *map(list, zip(*kept, strict=True)))
    if gone := [number for number, row in customers if row is None]:
        await writer.execute(_DELETE_CUSTOMERS, gone)


def _order(order: Order, changed_ms: int) -> OrderRow:
    return OrderRow(
        order_no=order.id,
        customer_no=order.customer_id,
        status=STATUS[order.state],
        article=order.product,
        pieces=order.quantity,
        amount=order.value,
        remark="; ".join(order.reasons) if order.reasons else None,
        changed_at=datetime.fromtimestamp(changed_ms / 1000, UTC),
    )


def _customer(customer: Customer) -> CustomerRow:
    name = f"{customer.first_name} {customer.last_name}"
    return CustomerRow(customer.id, name, customer.email, _CLASSES.get(customer.level, "B"))
