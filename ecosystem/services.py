"""All services that installed packages declare. Names, core, ports, databases and topics derive from them."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from ecosystem.entry_points import ServiceError, find
from runtime.common.settings import ServiceSettings, Settings
from runtime.hosting import ServiceDefinition
from runtime.model.topology import Topology
from runtime.tracing.settings import TraceSettings
from schemas.topics import CATALOGUE, ORDER_VALIDATIONS, ORDERS

log = logging.getLogger(__name__)

FOUND = find()
NAMES = tuple(FOUND)
CORE: tuple[str, ...]
"""Services that bring an order to VALIDATED or FAILED. Found when first read, as that imports all services."""

DATABASE_URL = "_database_url"
_PORT = "_port"


class InvalidSettings(Exception):
    """Environment variables have wrong values.

    Arguments:
        errors: by settings class.
    """

    def __init__(self, errors: Sequence[ValidationError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


def _settings() -> Iterator[tuple[str, tuple[type[ServiceSettings], ...]]]:
    for name, service in FOUND.items():
        try:
            yield name, service.settings()
        except ServiceError:
            continue  # raised again once the service is to run


# Imported at once, so that `Settings` knows the keywords of all services.
SETTINGS: Mapping[str, tuple[type[ServiceSettings], ...]] = dict(_settings())
"""Settings classes by service. A service that cannot be imported has none."""

DATABASES: Mapping[str, str] = {
    field.removesuffix(DATABASE_URL): field.upper()
    for kinds in SETTINGS.values()
    for kind in kinds
    for field in kind.model_fields
    if field.endswith(DATABASE_URL)
}
"""Environment variable of each database's URL, by the name of the database."""


def port(names: Sequence[str]) -> int | None:
    """Returns the default port of a worker that runs exactly these services; `None`: that of `HTTP_PORT`."""
    if len(names) != 1:
        return None
    field = names[0].replace("-", "_") + _PORT
    ports = [kind.model_fields[field].default for kind in SETTINGS.get(names[0], ()) if field in kind.model_fields]
    return ports[0] if ports else None


def require_valid_settings(names: Iterable[str]) -> None:
    """Raises `InvalidSettings` with all wrong variables of the runtime and of these services."""
    kinds: list[type[ServiceSettings]] = [
        Settings,
        TraceSettings,
        *(kind for name in names for kind in SETTINGS.get(name, ())),
    ]
    errors = []
    for kind in kinds:
        try:
            kind()
        except ValidationError as error:
            errors.append(error)
    if errors:
        raise InvalidSettings(errors)


def build(names: Sequence[str], settings: Settings) -> list[ServiceDefinition]:
    """Builds the named services, each once. Raises `KeyError` for an unknown name, `ServiceError` for a broken one."""
    return [FOUND[name].build(settings) for name in dict.fromkeys(names)]


def build_all(settings: Settings) -> list[ServiceDefinition]:
    """Builds all services. Skips, and logs, those that cannot be imported."""
    result = []
    for service in FOUND.values():
        try:
            result.append(service.build(settings))
        except ServiceError as error:
            log.warning("service skipped name=%s reason=%s", service.name, error)
    return result


def checks(settings: Settings) -> dict[str, str]:
    """Returns the checks of all validators, each with the name of its service."""
    return {d.check: d.service.name for d in build_all(settings) if d.check is not None}


def topology(settings: Settings) -> Topology:
    """Returns the topology of all services together."""
    return Topology(tuple(definition.service for definition in build_all(settings)))


def consumed_topics(settings: Settings) -> list[str]:
    """Returns the catalogue's topics and the repartition topics: those that can have dead letters of messages."""
    return list(dict.fromkeys([*(topic.name for topic in CATALOGUE), *topology(settings).consumed]))


def changelogs(settings: Settings) -> list[str]:
    """Returns the changelogs of all services: a changelog that lost records has dead letters that report it."""
    return [table.changelog for table in topology(settings).tables.values()]


def _core() -> tuple[str, ...]:
    """Returns the services that decide orders, or give verdicts on them."""
    services = [definition.service for definition in build_all(Settings())]
    return tuple(service.name for service in services if {ORDERS, ORDER_VALIDATIONS} & set(service.outputs))


def __getattr__(name: str) -> tuple[str, ...]:
    if name != "CORE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    core = globals()[name] = _core()
    return core
