"""What several commands have in common: options, and errors as people want to read them."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeVar

import click
from aiokafka.errors import KafkaError
from pydantic import TypeAdapter, ValidationError

from ecosystem.cli import running
from ecosystem.cli.rows import faults_of
from ecosystem.clients.api import RequestRejected, Unreachable
from runtime.errors import PartitionCountMismatch
from schemas.identifiers import Composed
from schemas.numbers import decimal, whole

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Whole(click.IntRange):
    """A whole number in plain digits, from `min` to `max` as far as these are given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = whole(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        return super().convert(number, param, ctx)


class Real(click.FloatRange):
    """A number in plain digits that may have a fraction, from `min` to `max` as far as these are given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = float(decimal(value)) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        return super().convert(number, param, ctx)


TIMEOUT_MS = Whole(0, 60_000)


class _Amount(click.ParamType):
    name = "amount"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            return decimal(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is not an amount such as 9.90: it {error}", param, ctx)


AMOUNT = _Amount()
"""Of money."""


class _Name(click.ParamType):
    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()  # what is no text fails here: see `ecosystem/cli/main.py`
            return _COMPOSED.validate_python(value)
        except ValidationError as error:
            [(_, reason)] = faults_of(error)
            self.fail(f"{value!r}: {reason}", param, ctx)


_COMPOSED: TypeAdapter[str] = TypeAdapter(Annotated[str, Composed])
NAME = _Name()
"""An order id or a product, for what no service looks at before it is written: in Unicode form NFC."""


def service_url_option(service: str, name: str = "--url") -> Callable[[F], F]:
    """`--url`, or what else it is to be called, for commands that talk to a service."""
    variable = f"{service.upper()}_URL"
    return click.option(
        name,
        envvar=variable,
        default=partial(running.url, service),
        metavar="URL",
        help=f"Base URL of the {service} service [env: {variable}; default: what `orders up` runs, "
        f"port {running.port(service)}]",
    )


url_option = service_url_option("orders")
"""`--url`, for commands that talk to the orders service."""


def bootstrap_option(function: F) -> F:
    """`--bootstrap`, for commands that look at any Kafka."""
    return click.option(
        "--bootstrap",
        metavar="HOST:PORT,...",
        help="Brokers [env: KAFKA_BOOTSTRAP_SERVERS; default: what `orders up` runs]",
    )(function)


def perform(
    action: Coroutine[Any, Any, T],
    url: str | None = None,
    *,
    bootstrap: str | None = None,
    refusals: tuple[type[Exception], ...] = (),
    exit_code: int = 1,
) -> T:
    """Runs `action`; what may go wrong out there, and `refusals` of its own, become one line and the exit code."""
    try:
        return _perform(action, url, bootstrap, refusals)
    except click.ClickException as error:
        error.exit_code = exit_code
        raise


def _perform(
    action: Coroutine[Any, Any, T], url: str | None, bootstrap: str | None, refusals: tuple[type[Exception], ...]
) -> T:
    # aiokafka logs as errors what it then repeats with success, such as asking for the leader of a topic just made.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(action)
    except Unreachable as error:
        raise click.ClickException(
            f"Nobody answers at {url} ({error}). Start it with `orders up`, or name another with --url."
        ) from error
    except (RequestRejected, PartitionCountMismatch) as error:
        raise click.ClickException(str(error)) from error
    except refusals as error:
        raise click.ClickException(str(error)) from error
    except (KafkaError, OSError) as error:
        if isinstance(error, OSError) and not _of_network(error):
            raise click.ClickException(str(error) or repr(error)) from error
        servers = running.settings(bootstrap).kafka_bootstrap_servers
        raise click.ClickException(
            f"Kafka does not answer at {servers} ({error}). Start it with `orders up`, or set KAFKA_BOOTSTRAP_SERVERS."
        ) from error


_NETWORK = {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL}
"""Of connecting, besides those that Python has classes for."""


def _of_network(error: OSError) -> bool:
    """Whether nobody answered; a full disk or a file that is gone says nothing about the broker."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    # asyncio puts what happened at several addresses into one error without a number.
    return error.errno is None or error.errno in _NETWORK
