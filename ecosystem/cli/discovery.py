"""Finds what `orders up` runs: it publishes addresses in a file, from which the other commands take their defaults."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ecosystem import services
from ecosystem.settings import CommandSettings
from runtime.common.kafka_settings import brokers_named
from runtime.common.settings import Settings

_PORT = 8080
HISTORY = "HISTORY_DATABASE_URL"
WEBHOOK_KEYS = "WEBHOOK_KEYS"
_SECRETS = "running.secrets"
"""File with the variables of the workers that only their user may read."""


def data_dir() -> Path:
    """Returns `ORDERS_DATA`, or `.data` in the current directory: data, logs and state of `orders up`."""
    return Path(os.environ.get("ORDERS_DATA", ".data"))


@dataclass(frozen=True, slots=True)
class LocalSystemInfo:
    """Addresses of what `orders up` runs.

    Arguments:
        pid: process id of `orders up`.
        bootstrap_servers: of its Kafka.
        urls: by service, the base URLs of the workers that run it.
        currency: currency of orders.
        secrets: environment variables of its workers: the URLs of databases, and the keys of webhooks.
    """

    pid: int
    bootstrap_servers: str
    urls: Mapping[str, tuple[str, ...]]
    currency: str = "EUR"
    secrets: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def published(info: LocalSystemInfo) -> Iterator[None]:
    """Lets other commands find `info` for as long as the `with` block lasts."""
    path = _path()
    complete = path.with_suffix(".new")
    secret = data_dir() / _SECRETS
    secret.unlink(missing_ok=True)
    secret.touch(mode=0o600)  # the URL of a database may have a password
    secret.write_text(json.dumps(dict(info.secrets)))
    complete.write_text(json.dumps({name: value for name, value in asdict(info).items() if name != "secrets"}))
    complete.replace(path)  # atomic: no reader sees half a file
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        secret.unlink(missing_ok=True)


def find() -> LocalSystemInfo | None:
    """Returns what `orders up` runs on this directory's data; `None` if it does not run."""
    try:
        fields = json.loads(_path().read_text())
        with suppress(PermissionError):  # it runs, as another user
            os.kill(fields["pid"], 0)  # a process that was killed could not remove its file
        urls = {service: tuple(found) for service, found in fields["urls"].items()}
        secrets: dict[str, str] = {}
        with suppress(OSError):  # those of another user
            secrets = {str(name): str(value) for name, value in json.loads((data_dir() / _SECRETS).read_text()).items()}
        currency = fields.get("currency", "EUR")
        return LocalSystemInfo(fields["pid"], fields["bootstrap_servers"], urls, currency, secrets)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def settings(bootstrap: str | None = None) -> Settings:
    """Returns settings from the environment. Brokers: `bootstrap`, else KAFKA_BOOTSTRAP_SERVERS, else `orders up`'s.

    Databases and keys of webhooks: as the environment says; else, with the brokers of `orders up`, its own.
    """
    if bootstrap is not None:
        return Settings(kafka_bootstrap_servers=bootstrap)
    if not brokers_named() and (info := find()):
        found: dict[str, Any] = {"kafka_bootstrap_servers": info.bootstrap_servers}
        found |= {name.lower(): value for name, value in info.secrets.items() if not _given(name)}
        return Settings(**found)
    return Settings()


def history_database() -> str:
    """Returns the URL of the history's database: as the environment says, else that of `orders up`, else nothing."""
    given = database_url(HISTORY)
    info = None if given else find()
    return info.secrets.get(HISTORY, "") if info else given


def database_url(variable: str) -> str:
    """Returns the URL of a database: as its variable says, else on the server of DB_HOST, else nothing."""
    if given := os.environ.get(variable):
        return given
    url = Settings().database_url(variable.lower().removesuffix(services.DATABASE_URL))
    return "" if url is None else url.get_secret_value()


def _given(name: str) -> bool:
    """Whether the environment has a secret, itself or by the path of its file, or the server of its database."""
    if name.lower().endswith(services.DATABASE_URL) and database_url(name):
        return True
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def currency() -> str:
    """Returns the currency of orders: `CURRENCY` from the environment, else that of `orders up`."""
    if "CURRENCY" in os.environ:
        return CommandSettings().currency
    info = find()
    return info.currency if info else CommandSettings().currency


def urls(service: str) -> tuple[str, ...]:
    """Returns the default base URLs of the workers that run a service; at least one."""
    info = find()
    found = info.urls.get(service, ()) if info else ()
    return found or (f"http://127.0.0.1:{port(service)}",)


def url(service: str) -> str:
    """Returns the default base URL of a worker that runs a service."""
    return urls(service)[0]


def port(service: str) -> int:
    """Returns the default port of a service where `orders up` does not run."""
    return services.port((service,)) or _PORT


def _path() -> Path:
    return data_dir() / "running.json"
