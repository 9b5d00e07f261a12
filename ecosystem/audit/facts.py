"""What the audit reads: which topics, and how a record of theirs is kept until it is judged."""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from orders_service.state import ORDERS_VIEW
from runtime.service import TIMERS_CHANGELOG, Wake
from schemas.messages import Order, OrderValidation, StockLevel
from schemas.topics import ORDER_VALIDATIONS, ORDERS, WAREHOUSE_INVENTORY
from validators.inventory.state import RESERVATIONS, STOCK


class Source(IntEnum):
    """Where a fact is from. The order is that in which the facts of one order, or one product, are judged."""

    ORDERS = 0
    VERDICTS = 1
    VIEW = 2
    TIMERS = 3
    RESERVATIONS = 4
    WAREHOUSE = 5
    STOCK = 6
    HELD = 7
    """Derived: by how much the pieces that reservations of a product hold went up or down."""

    @property
    def by_product(self) -> bool:
        return self >= Source.WAREHOUSE


TOPICS: Mapping[Source, str] = {
    Source.ORDERS: ORDERS.name,
    Source.VERDICTS: ORDER_VALIDATIONS.name,
    Source.VIEW: ORDERS_VIEW.changelog,
    Source.TIMERS: "orders" + TIMERS_CHANGELOG,
    Source.RESERVATIONS: RESERVATIONS.rows.changelog,
    Source.WAREHOUSE: WAREHOUSE_INVENTORY.name,
    Source.STOCK: STOCK.changelog,
}

MODELS: Mapping[Source, type[Any]] = {
    Source.ORDERS: Order,
    Source.VERDICTS: OrderValidation,
    Source.VIEW: ORDERS_VIEW.model,
    Source.TIMERS: Wake,
    Source.RESERVATIONS: RESERVATIONS.rows.model,
    Source.WAREHOUSE: StockLevel,
    Source.STOCK: STOCK.model,
}


class Fact(NamedTuple):
    """One record, its key aside.

    `late` says that it came while the audit was finding the ends of the topics: what else its writer wrote along with
    it may lie behind them.
    """

    source: Source
    partition: int
    offset: int
    time_ms: int
    late: bool
    value: bytes | None


_PLACE = struct.Struct(">BIQ")
_REST = struct.Struct(">q??")


def pack(fact: Fact) -> tuple[bytes, bytes]:
    """Where it stands, such that bytes sort as records do, and what it says."""
    rest = _REST.pack(fact.time_ms, fact.late, fact.value is None)
    return _PLACE.pack(fact.source, fact.partition, fact.offset), rest + (fact.value or b"")


def unpack(place: bytes, said: bytes) -> Fact:
    """The fact again."""
    source, partition, offset = _PLACE.unpack(place)
    time_ms, late, deleted = _REST.unpack_from(said)
    return Fact(Source(source), partition, offset, time_ms, late, None if deleted else said[_REST.size :])
