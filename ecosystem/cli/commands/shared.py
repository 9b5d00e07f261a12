"""Shared by commands: types of options, options, and the handling of expected errors."""

import asyncio
import errno
import logging
import re
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
from aiokafka.errors import KafkaError
from pydantic import TypeAdapter, ValidationError

from ecosystem.cli import discovery
from ecosystem.clients.api import RequestRejected, Unreachable
from runtime.errors import PartitionCountMismatch
from runtime.kafka.rejections import find_rejection
from schemas.identifiers import Composed
from schemas.numbers import decimal, whole
from schemas.validation import field_errors

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def temp_option(size_of: str) -> Callable[[F], F]:
    """The option `--temp`. `size_of`: what the files are about as large as."""
    return click.option(
        "--temp",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help=f"Folder for temporary files; they need about the size of {size_of}  [default: the system's]",
    )


class Whole(click.IntRange):
    """A whole number in plain digits, within `min` and `max` if given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = whole(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        return super().convert(number, param, ctx)

    def _describe_range(self) -> str:
        return super()._describe_range() if (self.min, self.max) != (None, None) else ""


class Real(click.FloatRange):
    """A number in plain digits, with or without a fraction, within `min` and `max` if given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = float(decimal(value)) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        return super().convert(number, param, ctx)

    def _describe_range(self) -> str:
        return super()._describe_range() if (self.min, self.max) != (None, None) else ""


class _Amount(click.ParamType):
    name = "amount"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            return decimal(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is not an amount such as 9.90: it {error}", param, ctx)


AMOUNT = _Amount()
"""An amount of money."""


class _Time(click.ParamType):
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        if ago := re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text, re.ASCII):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{text!r} is not a time such as 2026-07-01 or 2026-07-01T12:00:00Z, "
                "or a time ago such as 90m, 12h or 7d",
                param,
                ctx,
            )
        return at if at.tzinfo else at.replace(tzinfo=UTC)


_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
TIME = _Time()
"""A time, in UTC if it has no offset, or a time ago such as 12h."""


class _Name(click.ParamType):
    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()  # raises on bytes that are not UTF-8: see `ecosystem/cli/main.py`
            return _COMPOSED.validate_python(value)
        except ValidationError as error:
            [invalid] = field_errors(error)
            self.fail(f"{value!r}: it {invalid.reason}", param, ctx)


_COMPOSED: TypeAdapter[str] = TypeAdapter(Annotated[str, Composed])
NAME = _Name()
"""An id in Unicode form NFC, for commands that write to Kafka directly, where no service checks it."""


def service_url_option(service: str, name: str = "--url") -> Callable[[F], F]:
    """Returns the option `--url` (or `name`) for commands that call a service."""
    variable = f"{service.upper()}_URL"
    return click.option(
        name,
        envvar=variable,
        default=partial(discovery.url, service),
        metavar="URL",
        help=f"Base URL of the {service} service [env: {variable}; default: the worker of `orders up`, or "
        f"port {discovery.port(service)}]",
    )


timeout_option = click.option(
    "--timeout", type=Whole(0, 60_000), default=10_000, show_default=True, metavar="MS", help="Milliseconds to wait"
)

url_option = service_url_option("orders")
"""The option `--url` for commands that call the orders service."""


def bootstrap_option(function: F) -> F:
    """Adds the option `--bootstrap`, for commands that read any Kafka."""
    return click.option(
        "--bootstrap",
        metavar="HOST:PORT,...",
        help="Brokers [env: KAFKA_BOOTSTRAP_SERVERS; default: the Kafka of `orders up`]",
    )(function)


def perform(
    action: Coroutine[Any, Any, T],
    url: str | None = None,
    *,
    bootstrap: str | None = None,
    expected: tuple[type[Exception], ...] = (),
    exit_code: int = 1,
) -> T:
    """Runs `action`. Errors of network, broker and services, and the `expected` ones, become one line and `exit_code`.

    Arguments:
        action: what to run.
        url: of the service that `action` calls, for the error text.
        bootstrap: brokers that `action` reads, if the user named them.
        expected: further exceptions whose text is meant for the user.
        exit_code: of the process if an error occurs.
    """
    try:
        return _perform(action, url, bootstrap, expected)
    except click.ClickException as error:
        error.exit_code = exit_code
        raise


def _perform(
    action: Coroutine[Any, Any, T], url: str | None, bootstrap: str | None, expected: tuple[type[Exception], ...]
) -> T:
    # aiokafka logs errors of requests that it then retries with success, such as the leader of a topic just created.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(action)
    except Unreachable as error:
        where = "" if url is None else f" at {url}"
        raise click.ClickException(
            f"Nobody answers{where} ({error}). Start it with `orders up`, or name another with --url."
        ) from error
    except (RequestRejected, PartitionCountMismatch) as error:
        raise click.ClickException(str(error)) from error
    except expected as error:
        raise click.ClickException(str(error)) from error
    except (KafkaError, OSError) as error:
        if isinstance(error, OSError) and not _is_network_error(error):
            raise click.ClickException(str(error) or repr(error)) from error
        settings = discovery.settings(bootstrap)
        if rejection := asyncio.run(find_rejection(settings)):
            raise click.ClickException(f"Kafka: {rejection.reason}.") from error
        servers = settings.kafka_bootstrap_servers
        raise click.ClickException(
            f"Kafka does not answer at {servers} ({error}). Start it with `orders up`, or set KAFKA_BOOTSTRAP_SERVERS."
        ) from error


_NETWORK_ERRNOS = {
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EADDRNOTAVAIL,
    errno.EINVAL,
}
"""Errors of connecting that Python has no class for."""


def _is_network_error(error: OSError) -> bool:
    """Whether the broker could not be reached, as opposed to a full disk or a missing file."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    # asyncio joins the errors of several addresses into one without a number.
    return error.errno is None or error.errno in _NETWORK_ERRNOS
