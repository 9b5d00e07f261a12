"""Where the ecosystem that `orders up` started is to be found: how the other commands know without being told."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ecosystem import services
from runtime.common.settings import Settings

_PORT = 8080


def data_dir() -> Path:
    """`ORDERS_DATA`, or `.data` in the current directory: data, logs and state of what runs here."""
    return Path(os.environ.get("ORDERS_DATA", ".data"))


@dataclass(frozen=True, slots=True)
class Running:
    """What is up: the process that holds it together, the brokers, and where each service answers.

    `urls` maps the name of a service to the base URLs of the workers that run it, `currency` is that of orders.
    """

    pid: int
    bootstrap_servers: str
    urls: Mapping[str, tuple[str, ...]]
    currency: str = "EUR"


@contextmanager
def announced(running: Running) -> Iterator[None]:
    """Lets other commands find `running` for as long as the `with` block lasts."""
    path = _path()
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(asdict(running)))
    whole.replace(path)  # who reads it meanwhile must not take half a note for none
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find() -> Running | None:
    """What `orders up` runs on this directory's data; `None` if it does not run."""
    try:
        fields = json.loads(_path().read_text())
        with suppress(PermissionError):  # it runs, as another user
            os.kill(fields["pid"], 0)  # one that was killed could not take its note back
        urls = {service: tuple(found) for service, found in fields["urls"].items()}
        return Running(fields["pid"], fields["bootstrap_servers"], urls, fields.get("currency", "EUR"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def settings(bootstrap: str | None = None) -> Settings:
    """Settings from the environment. The brokers are those named, else KAFKA_BOOTSTRAP_SERVERS, else what runs here."""
    if bootstrap is not None:
        return Settings(kafka_bootstrap_servers=bootstrap)
    if "KAFKA_BOOTSTRAP_SERVERS" not in os.environ and (running := find()):
        return Settings(kafka_bootstrap_servers=running.bootstrap_servers)
    return Settings()


def currency() -> str:
    """The currency of orders: `CURRENCY` from the environment, else that of what runs here."""
    if "CURRENCY" in os.environ:
        return Settings().currency
    running = find()
    return running.currency if running else Settings().currency


def urls(service: str) -> tuple[str, ...]:
    """Base URLs of the workers that run a service, when nobody names any; at least one."""
    running = find()
    found = running.urls.get(service, ()) if running else ()
    return found or (f"http://127.0.0.1:{port(service)}",)


def port(service: str) -> int:
    """Where a service is looked for when nobody says where it is."""
    return services.port((service,)) or _PORT


def url(service: str) -> str:
    """Base URL of a worker that runs a service, when nobody names one."""
    return urls(service)[0]


def _path() -> Path:
    return data_dir() / "running.json"
