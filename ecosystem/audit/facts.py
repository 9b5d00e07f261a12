"""What the audit reads: which topics, and what else; and how a record of theirs is kept until it is judged."""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from ecosystem.audit.database_rows import CheckinRow, ProductRow
from fulfilment_service.state import PROGRESS
from orders_service.state import ORDERS_VIEW
from portal_service.view import CHECK_INS_VIEW
from product_subscribers.monitoring.state import COUNTED_PRODUCTS, TOTALS
from product_subscribers.notifications.state import NOTIFIED
from product_subscribers.security.state import HISTORIES
from runtime.model.service import (
    EFFECTS_CHANGELOG,
    TIMERS_CHANGELOG,
    PendingSideEffect,
    RejectedSideEffect,
    ScheduledTimer,
    Table,
)
from schemas import topics
from schemas.messages import CustomerLevel, ProductEvent
from schemas.topics import DEAD_LETTERS, Topic
from validators.details.state import OFFERS as KNOWN_TO_DETAILS
from validators.inventory.state import OFFERS as KNOWN_TO_INVENTORY
from validators.inventory.state import RESERVATIONS, STOCK


class FactGroup(IntEnum):
    """What facts are put together by."""

    ORDER = 0
    PRODUCT = 1
    CUSTOMER = 2
    CODE = 3
    """Of a product, as the product service has it."""
    SHOP = 4
    """Of all products together."""
    EVENT = 5
    """A change of a product, or an alert, by its id."""


class Source(IntEnum):
    """Where a fact is from. The order is that in which the facts of one order, or one product, are judged."""

    ORDERS = 0
    VERDICTS = 1
    VIEW = 2
    TIMERS = 3
    RESERVATIONS = 4
    PAYMENTS = 5
    CHECK_INS = 6
    REJECTIONS = 7
    FULFILMENTS = 8
    PROGRESS = 9
    PORTAL = 10
    ENRICHED = 11
    PLATINUM = 12
    GOLD = 13
    SILVER = 14
    BRONZE = 15
    LETTERS = 16
    """Letters that were asked for, and tombstones of those that are done with."""
    REFUSED = 17
    """Letters that the mail server will never take."""
    MAIL = 18
    """Letters as they were delivered: files of a Maildir."""
    ROWS_BEFORE = 19
    """Rows of the check-in service's database as they were before the ends of the topics were found."""
    ROWS_AFTER = 20
    """The same after that."""
    WAREHOUSE = 32
    STOCK = 33
    HELD = 34
    """Derived: by how much the pieces that reservations of a product hold went up or down."""
    SENT_OFF = 35
    """Derived: the pieces of an order that was shipped."""
    CUSTOMERS = 48
    CHANGES = 64
    ALERTS = 65
    WATCHED = 66
    COUNTED = 67
    TOLD = 68
    IN_INVENTORY = 69
    IN_DETAILS = 70
    PRODUCTS_BEFORE = 71
    """Rows of the product service's database, as `ROWS_BEFORE`."""
    PRODUCTS_AFTER = 72
    PRODUCT_LOG = 73
    TOTALS = 80
    TOLD_OF = 96
    """Derived: a change or an alert that was announced; of which product it is."""
    NOTICES = 97
    """Letters about it that were asked for, and tombstones of those that are done with."""
    NOTICES_REFUSED = 98
    NOTICES_MAIL = 99
    """Those that were delivered."""

    @property
    def group(self) -> FactGroup:
        return FactGroup(max(self // 16 - 1, 0))


_PUBLIC: Mapping[Source, Topic[Any]] = {
    Source.ORDERS: topics.ORDERS,
    Source.VERDICTS: topics.ORDER_VALIDATIONS,
    Source.PAYMENTS: topics.PAYMENTS,
    Source.CHECK_INS: topics.HOME_CHECKINS,
    Source.REJECTIONS: topics.CHECKIN_REJECTIONS,
    Source.FULFILMENTS: topics.FULFILMENTS,
    Source.ENRICHED: topics.ORDERS_ENRICHED,
    Source.PLATINUM: topics.BY_LEVEL[CustomerLevel.PLATINUM],
    Source.GOLD: topics.BY_LEVEL[CustomerLevel.GOLD],
    Source.SILVER: topics.BY_LEVEL[CustomerLevel.SILVER],
    Source.BRONZE: topics.BY_LEVEL[CustomerLevel.BRONZE],
    Source.WAREHOUSE: topics.WAREHOUSE_INVENTORY,
    Source.CUSTOMERS: topics.CUSTOMERS,
    Source.CHANGES: topics.PRODUCTS,
    Source.ALERTS: topics.PRODUCT_ALERTS,
}
LEVELS: Mapping[Source, CustomerLevel] = {
    Source.PLATINUM: CustomerLevel.PLATINUM,
    Source.GOLD: CustomerLevel.GOLD,
    Source.SILVER: CustomerLevel.SILVER,
    Source.BRONZE: CustomerLevel.BRONZE,
}
SUBSCRIBERS: Mapping[Source, tuple[str, Table[Any]]] = {
    Source.WATCHED: ("product-security", HISTORIES.table),
    Source.COUNTED: ("product-monitoring", COUNTED_PRODUCTS.table),
    Source.TOLD: ("product-notifications", NOTIFIED.table),
    Source.IN_INVENTORY: ("inventory", KNOWN_TO_INVENTORY.table),
    Source.IN_DETAILS: ("details", KNOWN_TO_DETAILS.table),
}
"""Who listens to the product service, and where each has up to which version it has heard of each product."""

MESSAGES = frozenset(_PUBLIC)
"""Sources that are public topics: what cannot be read there is a dead letter, and no fault of who keeps state."""

REFUSALS = frozenset({Source.REFUSED, Source.NOTICES_REFUSED})
"""Sources that are topics of dead letters."""

_TABLES: Mapping[Source, str] = {
    Source.VIEW: ORDERS_VIEW.changelog,
    Source.TIMERS: "orders" + TIMERS_CHANGELOG,
    Source.RESERVATIONS: RESERVATIONS.rows.changelog,
    Source.STOCK: STOCK.changelog,
    Source.PROGRESS: PROGRESS.changelog,
    Source.PORTAL: CHECK_INS_VIEW.changelog,
    Source.LETTERS: "email" + EFFECTS_CHANGELOG,
    Source.REFUSED: "email-effects" + DEAD_LETTERS,
    Source.TOTALS: TOTALS.changelog,
    Source.NOTICES: "product-notifications" + EFFECTS_CHANGELOG,
    Source.NOTICES_REFUSED: "product-notifications-effects" + DEAD_LETTERS,
    **{source: table.changelog for source, (_, table) in SUBSCRIBERS.items()},
}
TOPICS: Mapping[Source, str] = {**{source: topic.name for source, topic in _PUBLIC.items()}, **_TABLES}
NAMES: Mapping[Source, str] = {
    **TOPICS,
    Source.MAIL: "mail",
    Source.NOTICES_MAIL: "mail",
    Source.TOLD_OF: "announced",
    Source.ROWS_BEFORE: "check_ins",
    Source.ROWS_AFTER: "check_ins",
    Source.PRODUCTS_BEFORE: "products (rows)",
    Source.PRODUCTS_AFTER: "products (rows)",
    Source.PRODUCT_LOG: "product_log",
}
"""What each source is called in a report."""

SERVICES: Mapping[Source, str] = {
    Source.PROGRESS: "fulfilment",
    Source.LETTERS: "email",
    Source.CHECK_INS: "checkin",
    Source.PORTAL: "portal",
    Source.WATCHED: "product-security",
    Source.COUNTED: "product-monitoring",
    Source.TOLD: "product-notifications",
}
"""Topics that exist once a service has run that need not be there, and what is then to be expected."""

_AROUND = frozenset(s for s in TOPICS if Source.PAYMENTS <= s <= Source.REFUSED or s >= Source.CUSTOMERS)
CORE: Mapping[Source, str] = {source: name for source, name in TOPICS.items() if source not in _AROUND}
"""Topics without which less can be said of every order."""

MODELS: Mapping[Source, type[Any]] = {source: topic.model for source, topic in _PUBLIC.items()} | {
    Source.VIEW: ORDERS_VIEW.model,
    Source.TIMERS: ScheduledTimer,
    Source.RESERVATIONS: RESERVATIONS.rows.model,
    Source.STOCK: STOCK.model,
    Source.PROGRESS: PROGRESS.model,
    Source.PORTAL: CHECK_INS_VIEW.model,
    Source.LETTERS: PendingSideEffect,
    Source.REFUSED: RejectedSideEffect,
    Source.TOTALS: TOTALS.model,
    Source.NOTICES: PendingSideEffect,
    Source.NOTICES_REFUSED: RejectedSideEffect,
    Source.ROWS_BEFORE: CheckinRow,
    Source.ROWS_AFTER: CheckinRow,
    Source.PRODUCTS_BEFORE: ProductRow,
    Source.PRODUCTS_AFTER: ProductRow,
    Source.PRODUCT_LOG: ProductEvent,
    **{source: table.model for source, (_, table) in SUBSCRIBERS.items()},
}


class Fact(NamedTuple):
    """One record, its key aside.

    `late` says that it came while the audit was finding the ends of the topics: what else its writer wrote along with
    it may lie behind them. `about` is what its key says besides the order or the event: the kind of a letter, or its
    address.
    """

    source: Source
    partition: int
    offset: int
    time_ms: int
    late: bool
    value: bytes | None
    about: str = ""


_PLACE = struct.Struct(">BIQ")
_REST = struct.Struct(">q??H")


def placed(source: Source, key: bytes, value: bytes | None) -> tuple[bytes, str]:
    """The order, product or customer a record is about, and what else its key says. Raises `ValueError` if it is no
    key or, of a payment, no message."""
    text = key.decode()
    if source is Source.PAYMENTS:
        payment = topics.PAYMENTS.model.from_json(value or b"")
        if payment.id != text:
            raise ValueError("stands under another key")
        return payment.order_id.encode(), ""
    if source in {Source.LETTERS, Source.REFUSED}:
        order_id, _, kind = text.rpartition("/")
        return order_id.encode(), kind
    if source in {Source.NOTICES, Source.NOTICES_REFUSED}:
        event_id, _, to = text.partition("/")
        return event_id.encode(), to
    return key, ""


def id_in(source: Source, message: Any) -> str:
    """What a public message says that its key is to be; of a payment, its order."""
    return str(message.order_id if source is Source.PAYMENTS else _PUBLIC[source].key(message))


def pack(fact: Fact) -> tuple[bytes, bytes]:
    """Where it stands, such that bytes sort as records do, and what it says."""
    about = fact.about.encode()
    rest = _REST.pack(fact.time_ms, fact.late, fact.value is None, len(about))
    return _PLACE.pack(fact.source, fact.partition, fact.offset), rest + about + (fact.value or b"")


def unpack(place: bytes, said: bytes) -> Fact:
    """The fact again."""
    source, partition, offset = _PLACE.unpack(place)
    time_ms, late, deleted, length = _REST.unpack_from(said)
    behind = _REST.size + length
    value, about = said[behind:], said[_REST.size : behind].decode()
    return Fact(Source(source), partition, offset, time_ms, late, None if deleted else value, about)
