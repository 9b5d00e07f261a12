"""Whom the driver talks to."""

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from ecosystem.clients.api import CheckinApi, FulfilmentApi, OrdersApi, PortalApi, ProductsApi
from ecosystem.clients.writer import Writer


@dataclass(frozen=True, slots=True)
class CheckInDesk:
    """The check-in service and the portal; the time zone of check-ins, and for how long one waits for its order."""

    api: CheckinApi
    portal: PortalApi
    zone: ZoneInfo
    patience_s: float


@dataclass(frozen=True, slots=True)
class Clients:
    """Who answers for what. What is `None` is left out.

    Orders are posted to the workers of `orders` in turn, and each is read from the next one.
    """

    orders: Sequence[OrdersApi]
    writer: Writer | None = None
    """Announces payments."""
    check_ins: CheckInDesk | None = None
    fulfilment: FulfilmentApi | None = None
    """Asked whether an order is shipped, if it is paid or checked in for at all."""
    products: ProductsApi | None = None
    """Changes products."""
    currency: str = "EUR"
    """Of payments."""
