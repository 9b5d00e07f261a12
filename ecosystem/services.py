"""Registry of all services. Names, core, ports, databases and topics derive from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.topology import Topology
from schemas.topics import CATALOGUE


@dataclass(frozen=True, slots=True)
class RegisteredService:
    """A service as the commands know it, without importing its module.

    Arguments:
        module: its `build(settings)` returns the `ServiceDefinition`. Imported only when the service is to run.
        core: whether an order needs the service to reach VALIDATED or FAILED.
        port: default HTTP port of a worker that runs this service alone; `None`: that of `HTTP_PORT`.
        database_url: environment variable with the URL of its database; `None`: it has none.
    """

    module: str
    core: bool = False
    port: int | None = None
    database_url: str | None = None


REGISTRY: Mapping[str, RegisteredService] = {
    "orders": RegisteredService("orders_service.app", core=True),
    "fraud": RegisteredService("validators.fraud.app", core=True),
    "inventory": RegisteredService("validators.inventory.app", core=True),
    "details": RegisteredService("validators.details.app", core=True),
    "fulfilment": RegisteredService("fulfilment_service.app"),
    "email": RegisteredService("email_service.app"),
    "checkin": RegisteredService("checkin_service.app", port=3000, database_url="CHECKIN_DATABASE_URL"),
    "portal": RegisteredService("portal_service.app"),
    "products": RegisteredService("products_service.app", database_url="PRODUCTS_DATABASE_URL"),
    "product-monitoring": RegisteredService("product_subscribers.monitoring.app"),
    "product-log": RegisteredService(
        "product_subscribers.transaction_log.app", database_url="PRODUCT_LOG_DATABASE_URL"
    ),
    "product-security": RegisteredService("product_subscribers.security.app"),
    "product-notifications": RegisteredService("product_subscribers.notifications.app"),
}

NAMES = tuple(REGISTRY)
CORE = tuple(name for name, service in REGISTRY.items() if service.core)
DATABASES: Mapping[str, str] = {
    name.replace("-", "_"): service.database_url for name, service in REGISTRY.items() if service.database_url
}
"""Environment variable of each database's URL, by the name of the database."""


def port(names: Sequence[str]) -> int | None:
    """Returns the default port of a worker that runs exactly these services; `None`: that of `HTTP_PORT`."""
    return REGISTRY[names[0]].port if len(names) == 1 else None


def build(names: Sequence[str], settings: Settings) -> list[ServiceDefinition]:
    """Builds the named services, each once. Raises `KeyError` for an unknown name."""
    result: list[ServiceDefinition] = []
    for name in dict.fromkeys(names):
        definition: ServiceDefinition = import_module(REGISTRY[name].module).build(settings)
        result.append(definition)
    return result


def topology(settings: Settings) -> Topology:
    """Returns the topology of all services together."""
    return Topology(tuple(definition.service for definition in build(NAMES, settings)))


def consumed_topics(settings: Settings) -> list[str]:
    """Returns the catalogue's topics and the repartition topics: those that can have dead letters of messages."""
    return list(dict.fromkeys([*(topic.name for topic in CATALOGUE), *topology(settings).consumed]))


def changelogs(settings: Settings) -> list[str]:
    """Returns the changelogs of all services: a changelog that lost records has dead letters that report it."""
    return [table.changelog for table in topology(settings).tables.values()]
