"""The clients that the load generator uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from ecosystem.clients.api import CheckinApi, FulfilmentApi, OrdersApi, PortalApi, ProductsApi
from ecosystem.clients.writer import Writer


@dataclass(frozen=True, slots=True)
class CheckInClients:
    """Clients for check-ins.

    Arguments:
        api: the check-in service.
        portal: shows check-ins.
        zone: time zone of check-ins.
        order_timeout_s: how long a check-in waits for its order, in seconds; then it is rejected.
    """

    api: CheckinApi
    portal: PortalApi
    zone: ZoneInfo
    order_timeout_s: float


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients by service; what a missing client is for is left out.

    Orders are posted to the workers of `orders` in turn, and each is read from the next worker.
    """

    orders: Sequence[OrdersApi]
    writer: Writer | None = None
    """Writes payments."""
    check_ins: CheckInClients | None = None
    fulfilment: FulfilmentApi | None = None
    """Tells whether an order is shipped."""
    products: ProductsApi | None = None
    """Changes products."""
    currency: str = "EUR"
    """Currency of orders and payments."""
