"""The one catalogue of topics: name, key, model, only writer, how long it is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from schemas.messages import (
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
    StockLevel,
)
from schemas.wire import Message

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Kept:
    """How long Kafka keeps the messages of a topic: for a time, for ever (`None`), or the last one of each key."""

    duration: timedelta | None = None
    compacted: bool = False

    def config(self) -> dict[str, str]:
        """The topic configuration (Kafka documentation, 3.2 Topic Configs)."""
        if self.compacted:
            return {"cleanup.policy": "compact"}
        milliseconds = -1 if self.duration is None else int(self.duration.total_seconds() * 1000)
        return {"cleanup.policy": "delete", "retention.ms": str(milliseconds)}


FOR_EVER = Kept()
COMPACTED = Kept(compacted=True)
WEEK = Kept(timedelta(days=7))
FORTNIGHT = Kept(timedelta(days=14))
DAY = Kept(timedelta(days=1))


DEAD_LETTERS = ".dead-letters"
"""What the names of topics for dead letters end in, behind the name of the topic they are from."""


@dataclass(frozen=True, slots=True, eq=False)
class Topic(Generic[M]):
    """A topic of the ecosystem. Keys are raw UTF-8 bytes, values the JSON of `model`.

    `internal` topics carry the repartitioned input of their only writer: nobody else reads them, so what their writer
    decides at once in the same batch is never written to them.

    `pinned` topics carry records about state that is partitioned by another key: each stands in the partition of that
    state, whatever its own key.
    """

    name: str
    model: type[M]
    key: Callable[[M], str]
    writer: str
    kept: Kept
    internal: bool = False
    pinned: bool = False

    @property
    def dead_letters(self) -> str:
        """Name of the topic that takes what cannot be read from this one."""
        return self.name + DEAD_LETTERS

    @property
    def key_field(self) -> str | None:
        """The field the key is taken from, as it is called on the wire; `None` if it is none of its own.

        Found by asking for the key of a message whose fields hold their names.
        """
        names: dict[str, Any] = {name: field.alias for name, field in self.model.model_fields.items()}
        message: Any = self.model.model_construct(**names)
        try:
            key = self.key(message)
        except AttributeError:  # of a message within the message
            return None
        return key if key in names.values() else None


def repartition(service: str, source: Topic[M], by: str, key: Callable[[M], str]) -> Topic[M]:
    """The internal topic `<service>-<source>-by-<by>`: the messages of `source` under another key."""
    return Topic(f"{service}-{source.name}-by-{by}", source.model, key, service, DAY, internal=True)


ORDERS = Topic("orders", Order, lambda o: o.id, "orders", FOR_EVER)
ORDER_VALIDATIONS = Topic("order-validations", OrderValidation, lambda v: v.order_id, "validators", WEEK)
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
"""Every public topic. Internal topics and changelogs belong to their services and follow from their declarations."""
