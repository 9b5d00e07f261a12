"""Catalogue of topics: name, key, message, the only writer, retention."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from schemas.messages import (
    Cancellation,
    CheckinRejected,
    Customer,
    CustomerLevel,
    Fulfilled,
    HomeCheckin,
    Order,
    OrderEnriched,
    OrderValidation,
    Payment,
    ProductAlert,
    ProductEvent,
    Refund,
    RequiredChecks,
    StockLevel,
)
from schemas.wire import Message

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention of a topic: for a time, for ever (`None`), or compacted to the last record per key."""

    duration: timedelta | None = None
    compacted: bool = False

    def config(self) -> dict[str, str]:
        """Topic configuration (Kafka documentation, 3.2 Topic Configs)."""
        if self.compacted:
            return {"cleanup.policy": "compact"}
        milliseconds = -1 if self.duration is None else int(self.duration.total_seconds() * 1000)
        return {"cleanup.policy": "delete", "retention.ms": str(milliseconds)}


FOR_EVER = Retention()
COMPACTED = Retention(compacted=True)
WEEK = Retention(timedelta(days=7))
FORTNIGHT = Retention(timedelta(days=14))
DAY = Retention(timedelta(days=1))


DEAD_LETTERS = ".dead-letters"
"""Suffix of dead letter topics, appended to the name of the source topic."""


@dataclass(frozen=True, slots=True, eq=False)
class Topic(Generic[M]):
    """A topic. Keys are raw UTF-8 bytes, values are JSON of `model`.

    `internal`: a repartition topic, read by its only writer alone. Messages processed by fusion are not written to it.

    `pinned`: records belong to state partitioned by another key, and lie in the partition of that state.
    """

    name: str
    model: type[M]
    key: Callable[[M], str]
    writer: str
    retention: Retention
    internal: bool = False
    pinned: bool = False

    @property
    def dead_letters(self) -> str:
        """Name of the dead letter topic."""
        return self.name + DEAD_LETTERS

    @property
    def key_field(self) -> str | None:
        """Wire name of the field used as key; `None` if the key is not a single field.

        Determined by applying `key` to a message whose field values are their own wire names.
        """
        names: dict[str, Any] = {name: field.alias for name, field in self.model.model_fields.items()}
        message: Any = self.model.model_construct(**names)
        try:
            key = self.key(message)
        except AttributeError:  # the key is a field of a nested message
            return None
        return key if key in names.values() else None


def repartition(service: str, source: Topic[M], by: str, key: Callable[[M], str]) -> Topic[M]:
    """Declares the repartition topic `<service>-<source>-by-<by>` for the messages of `source`."""
    return Topic(f"{service}-{source.name}-by-{by}", source.model, key, service, DAY, internal=True)


ORDERS = Topic("orders", Order, lambda o: o.id, "orders", FOR_EVER)
ORDER_VALIDATIONS = Topic("order-validations", OrderValidation, lambda v: v.order_id, "validators", WEEK)
REQUIRED_CHECKS = Topic("required-checks", RequiredChecks, lambda r: r.name, "operator", COMPACTED, pinned=True)
CANCELLATIONS = Topic("cancellations", Cancellation, lambda c: c.order_id, "fulfilment", WEEK)
REFUNDS = Topic("refunds", Refund, lambda r: r.order_id, "fulfilment", WEEK)
WAREHOUSE_INVENTORY = Topic("warehouse-inventory", StockLevel, lambda s: s.product, "warehouse", COMPACTED)
PAYMENTS = Topic("payments", Payment, lambda p: p.id, "payments", WEEK)
CUSTOMERS = Topic("customers", Customer, lambda c: str(c.id), "crm", COMPACTED)
HOME_CHECKINS = Topic("home-checkins", HomeCheckin, lambda c: c.order_no, "checkin", WEEK)
CHECKIN_REJECTIONS = Topic("checkin-rejections", CheckinRejected, lambda c: c.order_no, "fulfilment", WEEK)
FULFILMENTS = Topic("fulfilments", Fulfilled, lambda f: f.order_id, "fulfilment", WEEK)
PRODUCTS = Topic("products", ProductEvent, lambda e: e.code, "products", FOR_EVER)
PRODUCT_ALERTS = Topic("product-alerts", ProductAlert, lambda a: a.code, "product-security", WEEK)
ORDERS_ENRICHED = Topic("orders-enriched", OrderEnriched, lambda o: o.id, "email", WEEK)
BY_LEVEL = {level: Topic(level.value, OrderEnriched, lambda o: o.id, "email", WEEK) for level in CustomerLevel}

CATALOGUE: tuple[Topic[Any], ...] = (
    ORDERS,
    ORDER_VALIDATIONS,
    REQUIRED_CHECKS,
    CANCELLATIONS,
    REFUNDS,
    WAREHOUSE_INVENTORY,
    PAYMENTS,
    CUSTOMERS,
    HOME_CHECKINS,
    CHECKIN_REJECTIONS,
    FULFILMENTS,
    PRODUCTS,
    PRODUCT_ALERTS,
    ORDERS_ENRICHED,
    *BY_LEVEL.values(),
)
"""All public topics. Internal topics and changelogs derive from the declarations of their services."""
