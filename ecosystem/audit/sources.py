"""The sources that the audit reads: topics, tables, databases and e-mails, and how their facts are grouped."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Self

from ecosystem.audit.database_rows import CheckinRow, ProductRow
from fulfilment_service.state import PROGRESS
from orders_service.state import ORDERS_VIEW
from portal_service.processors import CHECK_INS_VIEW
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
from validators.details.state import OFFERS as DETAILS_OFFERS
from validators.inventory.state import OFFERS as INVENTORY_OFFERS
from validators.inventory.state import RESERVATIONS, STOCK


class FactGroup(IntEnum):
    """What the facts of a source are grouped by."""

    ORDER = 0
    PRODUCT = 1
    """A product with stock."""
    CUSTOMER = 2
    CODE = 3
    """A product of the product service, by its code."""
    SHOP = 4
    """All products together."""
    EVENT = 5
    """A change of a product, or an alert, by its id."""


class Source(IntEnum):
    """Origin of a fact, and its group. Facts of a group are judged in the order of their sources."""

    group: FactGroup

    def __new__(cls, number: int, group: FactGroup) -> Self:
        source = int.__new__(cls, number)
        source._value_ = number
        source.group = group
        return source

    ORDERS = 0, FactGroup.ORDER
    VERDICTS = 1, FactGroup.ORDER
    VIEW = 2, FactGroup.ORDER
    TIMERS = 3, FactGroup.ORDER
    RESERVATIONS = 4, FactGroup.ORDER
    PAYMENTS = 5, FactGroup.ORDER
    CHECK_INS = 6, FactGroup.ORDER
    REJECTIONS = 7, FactGroup.ORDER
    FULFILMENTS = 8, FactGroup.ORDER
    PROGRESS = 9, FactGroup.ORDER
    PORTAL = 10, FactGroup.ORDER
    ENRICHED = 11, FactGroup.ORDER
    PLATINUM = 12, FactGroup.ORDER
    GOLD = 13, FactGroup.ORDER
    SILVER = 14, FactGroup.ORDER
    BRONZE = 15, FactGroup.ORDER
    EMAILS = 16, FactGroup.ORDER
    """E-mails enqueued as side effects; tombstones of acknowledged ones."""
    EMAILS_REJECTED = 17, FactGroup.ORDER
    """E-mails that the mail server rejected permanently."""
    EMAILS_DELIVERED = 18, FactGroup.ORDER
    """Files of a Maildir."""
    CHECK_IN_ROWS_BEFORE = 19, FactGroup.ORDER
    """Rows of the check-in service's database, read before the end offsets of the topics."""
    CHECK_IN_ROWS_AFTER = 20, FactGroup.ORDER
    """The same rows, read after the topics."""
    WAREHOUSE = 21, FactGroup.PRODUCT
    STOCK = 22, FactGroup.PRODUCT
    HOLDINGS = 23, FactGroup.PRODUCT
    """Derived: change of the pieces that a reservation of the product holds."""
    SHIPPED_PIECES = 24, FactGroup.PRODUCT
    """Derived: pieces of an order that was shipped."""
    CUSTOMERS = 25, FactGroup.CUSTOMER
    CHANGES = 26, FactGroup.CODE
    ALERTS = 27, FactGroup.CODE
    SECURITY_HISTORIES = 28, FactGroup.CODE
    MONITORING_VERSIONS = 29, FactGroup.CODE
    NOTIFIED_VERSIONS = 30, FactGroup.CODE
    INVENTORY_OFFERS = 31, FactGroup.CODE
    DETAILS_OFFERS = 32, FactGroup.CODE
    PRODUCT_ROWS_BEFORE = 33, FactGroup.CODE
    """Rows of the product service's database, read before the end offsets of the topics."""
    PRODUCT_ROWS_AFTER = 34, FactGroup.CODE
    """The same rows, read after the topics."""
    PRODUCT_LOG = 35, FactGroup.CODE
    TOTALS = 36, FactGroup.SHOP
    NOTIFIABLE_EVENTS = 37, FactGroup.EVENT
    """Derived: a published change or alert, with its product."""
    NOTICES = 38, FactGroup.EVENT
    """E-mails about products, enqueued as side effects; tombstones of acknowledged ones."""
    NOTICES_REJECTED = 39, FactGroup.EVENT
    NOTICES_DELIVERED = 40, FactGroup.EVENT
    REFUNDS = 41, FactGroup.ORDER


_PUBLIC: Mapping[Source, Topic[Any]] = {
    Source.ORDERS: topics.ORDERS,
    Source.VERDICTS: topics.ORDER_VALIDATIONS,
    Source.PAYMENTS: topics.PAYMENTS,
    Source.CHECK_INS: topics.HOME_CHECKINS,
    Source.REJECTIONS: topics.CHECKIN_REJECTIONS,
    Source.FULFILMENTS: topics.FULFILMENTS,
    Source.REFUNDS: topics.REFUNDS,
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
    Source.SECURITY_HISTORIES: ("product-security", HISTORIES.table),
    Source.MONITORING_VERSIONS: ("product-monitoring", COUNTED_PRODUCTS.table),
    Source.NOTIFIED_VERSIONS: ("product-notifications", NOTIFIED.table),
    Source.INVENTORY_OFFERS: ("inventory", INVENTORY_OFFERS.table),
    Source.DETAILS_OFFERS: ("details", DETAILS_OFFERS.table),
}
"""Services that read the topic of products, each with the table that has the last version it read of each product."""

PUBLIC_SOURCES = frozenset(_PUBLIC)
"""Public topics. An unreadable message there is a dead letter; an unreadable row of a table is a violation."""

REJECTED_EFFECTS = frozenset({Source.EMAILS_REJECTED, Source.NOTICES_REJECTED})
"""Dead-letter topics of side effects."""

_TABLES: Mapping[Source, str] = {
    Source.VIEW: ORDERS_VIEW.changelog,
    Source.TIMERS: "orders" + TIMERS_CHANGELOG,
    Source.RESERVATIONS: RESERVATIONS.rows.changelog,
    Source.STOCK: STOCK.changelog,
    Source.PROGRESS: PROGRESS.changelog,
    Source.PORTAL: CHECK_INS_VIEW.changelog,
    Source.EMAILS: "email" + EFFECTS_CHANGELOG,
    Source.EMAILS_REJECTED: "email-effects" + DEAD_LETTERS,
    Source.TOTALS: TOTALS.changelog,
    Source.NOTICES: "product-notifications" + EFFECTS_CHANGELOG,
    Source.NOTICES_REJECTED: "product-notifications-effects" + DEAD_LETTERS,
    **{source: table.changelog for source, (_, table) in SUBSCRIBERS.items()},
}
TOPICS: Mapping[Source, str] = {**{source: topic.name for source, topic in _PUBLIC.items()}, **_TABLES}
"""Topic of each source that is one, without prefix."""

NAMES: Mapping[Source, str] = {
    **TOPICS,
    Source.EMAILS_DELIVERED: "mail",
    Source.NOTICES_DELIVERED: "mail",
    Source.NOTIFIABLE_EVENTS: "published",
    Source.CHECK_IN_ROWS_BEFORE: "check_ins",
    Source.CHECK_IN_ROWS_AFTER: "check_ins",
    Source.PRODUCT_ROWS_BEFORE: "products (rows)",
    Source.PRODUCT_ROWS_AFTER: "products (rows)",
    Source.PRODUCT_LOG: "product_log",
}
"""Name of each source in a report."""

SERVICES: Mapping[Source, str] = {
    Source.PROGRESS: "fulfilment",
    Source.EMAILS: "email",
    Source.CHECK_INS: "checkin",
    Source.PORTAL: "portal",
    Source.SECURITY_HISTORIES: "product-security",
    Source.MONITORING_VERSIONS: "product-monitoring",
    Source.NOTIFIED_VERSIONS: "product-notifications",
}
"""Optional services, each by a topic that exists once the service has run. Without the topic nothing is expected."""

CORE: Mapping[Source, str] = {
    source: TOPICS[source]
    for source in (
        Source.ORDERS,
        Source.VERDICTS,
        Source.WAREHOUSE,
        Source.VIEW,
        Source.TIMERS,
        Source.RESERVATIONS,
        Source.STOCK,
    )
}
"""Topics of the core. If one is missing, no order can be checked completely."""

MODELS: Mapping[Source, type[Any]] = {source: topic.model for source, topic in _PUBLIC.items()} | {
    Source.VIEW: ORDERS_VIEW.model,
    Source.TIMERS: ScheduledTimer,
    Source.RESERVATIONS: RESERVATIONS.rows.model,
    Source.STOCK: STOCK.model,
    Source.PROGRESS: PROGRESS.model,
    Source.PORTAL: CHECK_INS_VIEW.model,
    Source.EMAILS: PendingSideEffect,
    Source.EMAILS_REJECTED: RejectedSideEffect,
    Source.TOTALS: TOTALS.model,
    Source.NOTICES: PendingSideEffect,
    Source.NOTICES_REJECTED: RejectedSideEffect,
    Source.CHECK_IN_ROWS_BEFORE: CheckinRow,
    Source.CHECK_IN_ROWS_AFTER: CheckinRow,
    Source.PRODUCT_ROWS_BEFORE: ProductRow,
    Source.PRODUCT_ROWS_AFTER: ProductRow,
    Source.PRODUCT_LOG: ProductEvent,
    **{source: table.model for source, (_, table) in SUBSCRIBERS.items()},
}


def key_in_message(source: Source, message: Any) -> str:
    """Returns the key that a public message must have; of a payment, its order."""
    return str(message.order_id if source is Source.PAYMENTS else _PUBLIC[source].key(message))
