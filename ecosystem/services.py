"""The services that exist, by name."""

from collections.abc import Sequence
from importlib import import_module

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition

_BUILDERS = {
    "orders": "orders_service.app",
    "fraud": "validators.fraud.app",
    "inventory": "validators.inventory.app",
    "details": "validators.details.app",
    "fulfilment": "fulfilment_service.app",
    "email": "email_service.app",
    "checkin": "checkin_service.app",
    "portal": "portal_service.app",
    "products": "products_service.app",
    "product-monitoring": "product_subscribers.monitoring.app",
    "product-log": "product_subscribers.transaction_log.app",
    "product-security": "product_subscribers.security.app",
    "product-notifications": "product_subscribers.notifications.app",
}
"""Module of each service; its `build(settings)` makes the `ServiceDefinition`. Imported only when the service is to
run."""

NAMES = tuple(_BUILDERS)
CORE = ("orders", "fraud", "inventory", "details")
"""What it takes to bring an order to VALIDATED or FAILED."""


DATABASES = {
    "checkin": "CHECKIN_DATABASE_URL",
    "products": "PRODUCTS_DATABASE_URL",
    "product_log": "PRODUCT_LOG_DATABASE_URL",
}
"""The databases of services, by name: where the service is told of it."""

_PORTS = {"checkin": 3000}


def port(names: Sequence[str]) -> int | None:
    """Where a worker with these services listens by default: a service that runs alone may have a port of its own."""
    return _PORTS.get(names[0]) if len(names) == 1 else None


def build(names: Sequence[str], settings: Settings) -> list[ServiceDefinition]:
    """The services called `names`, each once, ready for a worker. Raises `KeyError` for a name that does not exist."""
    result: list[ServiceDefinition] = []
    for name in dict.fromkeys(names):
        hosted: ServiceDefinition = import_module(_BUILDERS[name]).build(settings)
        result.append(hosted)
    return result
