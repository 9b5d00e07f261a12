"""Starts Kafka, PostgreSQL, mail, workers and sample data on this machine, and stops them in reverse."""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, NoReturn, Self

from rich.console import Console

from checkin_service.settings import CheckinSettings
from ecosystem.cli import discovery
from ecosystem.cli.discovery import LocalSystemInfo
from ecosystem.cli.product_import import offer
from ecosystem.cli.up import prometheus_targets, welcome
from ecosystem.cli.up.children import Children
from ecosystem.cli.up.first_orders import FirstOrders
from ecosystem.cli.up.layout import PlannedWorker, plan_workers
from ecosystem.clients.api import ProductsApi
from ecosystem.clients.groups import lagging_groups
from ecosystem.clients.health import advertised_url, is_ready
from ecosystem.clients.reader import read_keys
from ecosystem.clients.writer import Writer
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.locks import exclusive_lock
from ecosystem.embedded.mail_server import MailSink
from ecosystem.embedded.ports import reserved_ports
from ecosystem.embedded.postgres import PORT, Postgres
from ecosystem.loadgen import sample
from ecosystem.services import DATABASES, NAMES
from ecosystem.settings import CommandSettings
from runtime.common.settings import Settings
from schemas.topics import CUSTOMERS, PRODUCTS, WAREHOUSE_INVENTORY

_KAFKA_PORT = 9092
_READY_S = 300.0
"""Seconds that workers, and the sample data, may take."""
_POLL_S = 0.2
_LOAD = "sample"
"""Name of the child process that generates load."""
_PAYMENT_DEADLINE_S = "1800"
"""Seconds after which an order that is not paid is cancelled, unless the environment says otherwise."""
_LOOPBACK = "127.0.0.0/8,::1/128"
"""Networks to which webhooks are delivered besides public addresses, unless the environment says otherwise."""
_SAMPLE_READERS = frozenset({"inventory", "details", "email"})
"""Services that must have read the sample data before an order for it is placed."""
_SAMPLE_TOPICS = (PRODUCTS.name, WAREHOUSE_INVENTORY.name, CUSTOMERS.name)


class StartFailed(Exception):
    """A process has ended by itself, or is not ready in time. The reason has been printed."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of `orders up`."""

    apart: bool
    workers: int
    port: int
    fresh: bool
    sample: bool
    rate: float
    own_kafka: bool


class LocalSystem:
    """Context manager of everything that `orders up` runs: started and ready inside, stopped outside.

    Entering raises `LockHeld` if another one runs on this data, `NoFreePort`, `KafkaError`, `PostgresError`, or
    `StartFailed`.

    Arguments:
        options: what to run.
        console: where to print.
        perform: runs a coroutine, and turns its expected errors into messages for the user.
    """

    def __init__(
        self, options: UpOptions, console: Console, perform: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._options = options
        self._console = console
        self._perform = perform
        self._data = discovery.data_dir()
        self._settings = Settings()
        self._kafka: Cluster | None = None
        self._reserved_ports = ExitStack()
        self._workers = plan_workers(options.apart, options.workers, self._reserve_ports, NAMES)
        self._mail: MailSink | None = None
        self._first_orders = FirstOrders(self._url("orders"), self._print_bold)
        self._postgres: Postgres | None = None
        self._databases: dict[str, str] = {}
        self._children = Children(console, max(len(worker.name) for worker in self._workers))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._reserved_ports)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def watch(self) -> NoReturn:
        """Reports the first orders; raises `StartFailed` as soon as a process ends by itself."""
        while True:
            self._check()
            self._first_orders.report()
            time.sleep(_POLL_S)

    def _start(self, stack: ExitStack) -> None:
        started = time.monotonic()
        stack.enter_context(exclusive_lock(self._data / "up.lock"))
        if self._options.own_kafka:
            self._start_kafka(stack)
        if "SMTP_HOST" not in os.environ:
            self._mail = stack.enter_context(MailSink(self._data / "mail", self._first_orders.on_delivered))
        if missing := {name: url for name, url in DATABASES.items() if not discovery.database_url(url)}:
            self._postgres = stack.enter_context(Postgres(self._data / "postgres", port=PORT))
            own = {url: self._postgres.database(name) for name, url in missing.items()}
            # The user's PGSSLMODE is meant for other servers.
            self._databases = {url: f"{database}?sslmode=disable" for url, database in own.items()}
        servers = self._settings.kafka_bootstrap_servers
        urls = {service: self._urls(service) for service in NAMES}
        currency = CommandSettings().currency
        stack.enter_context(discovery.published(LocalSystemInfo(os.getpid(), servers, urls, currency, self._secrets())))
        stack.enter_context(prometheus_targets.listed(self._workers, self._data))
        stack.callback(self._stop_children)
        for worker in self._workers:
            self._start_worker(worker)
        if self._options.sample:
            self._perform(self._while_all_run(self._write_sample()))
        self._wait_until_ready()
        if self._options.sample:
            self._perform(self._wait_until_sample_is_read())
        self._welcome(time.monotonic() - started)
        if self._options.rate:
            options = ["--rate", f"{Decimal(str(self._options.rate)):f}", "--every", "60"]
            options += [part for url in urls["orders"] for part in ("--url", url)]
            for service in ("fulfilment", "checkin", "portal", "products"):
                options += [f"--{service}-url", urls[service][0]]
            self._children.start(_LOAD, ["generate", *options], {"KAFKA_BOOTSTRAP_SERVERS": servers})

    def _reserve_ports(self, count: int) -> list[int]:
        return self._reserved_ports.enter_context(reserved_ports(count, self._options.port))

    def _start_kafka(self, stack: ExitStack) -> None:
        if self._options.fresh:
            for folder in ("kafka", "state", "mail", "postgres"):
                shutil.rmtree(self._data / folder, ignore_errors=True)
        self._kafka = stack.enter_context(Cluster(self._data / "kafka", port=_KAFKA_PORT, console=self._console))
        servers = self._kafka.bootstrap_servers
        self._settings = self._settings.model_copy(update={"kafka_bootstrap_servers": servers})

    def _start_worker(self, worker: PlannedWorker) -> None:
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": self._settings.kafka_bootstrap_servers,
            "HTTP_PORT": str(worker.port),
            "STATE_DIR": str(self._data / "state" / worker.name),
        }
        env |= {"PAYMENT_DEADLINE_S": os.environ.get("PAYMENT_DEADLINE_S", _PAYMENT_DEADLINE_S)}
        env |= {"WEBHOOK_KEYS": os.environ.get("WEBHOOK_KEYS") or self._webhook_key()}
        env |= {"WEBHOOK_ALLOWED_NETWORKS": os.environ.get("WEBHOOK_ALLOWED_NETWORKS", _LOOPBACK)}
        env |= self._databases
        if self._mail:
            env |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(self._mail.port)}
            env |= {"PRODUCT_NOTIFICATIONS_TO": os.environ.get("PRODUCT_NOTIFICATIONS_TO", "products@example.org")}
        if self._options.apart:  # a history alone is in no group by which the board would find it
            env |= {
                name: os.environ.get(name, self._url(service))
                for name, service in (("BOARD_ORDERS_URL", "orders"), ("BOARD_HISTORY_URL", "history"))
            }
        self._children.start(worker.name, ["run", *worker.services], env)

    def _secrets(self) -> dict[str, str]:
        """Variables of the workers that other commands need: URLs of databases, keys of webhooks."""
        given = {url: discovery.database_url(url) for url in DATABASES.values()}
        keys = os.environ.get(discovery.WEBHOOK_KEYS) or self._webhook_key()
        found = {**given, **self._databases, discovery.WEBHOOK_KEYS: keys}
        return {name: value for name, value in found.items() if value}

    def _webhook_key(self) -> str:
        """Returns the key of the webhooks' secrets, made at the first start: subscriptions outlive a restart."""
        path = self._data / "webhooks.key"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32))
        return path.read_text()

    async def _while_all_run(self, action: Coroutine[Any, Any, None]) -> None:
        """Runs `action`; raises `StartFailed` as soon as a process ends by itself."""
        task = asyncio.ensure_future(action)
        try:
            while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
                self._check()
            await task
        finally:
            task.cancel()

    async def _write_sample(self) -> None:
        async with Writer(self._settings) as writer:
            await writer.write(WAREHOUSE_INVENTORY, sample.stock())
            await writer.write(CUSTOMERS, sample.customers())
        async with ProductsApi(self._urls("products")[0]) as api:
            await offer(api, sample.products(), timeout_s=_READY_S)

    async def _wait_until_sample_is_read(self) -> None:
        """Waits for the services that an order needs: before, an order for a sample product may fail."""
        deadline = time.monotonic() + _READY_S
        codes = {product.code.encode() for product in sample.products()}
        readers = {"+".join(sorted(w.services)) for w in self._workers if not _SAMPLE_READERS.isdisjoint(w.services)}
        while not codes <= await read_keys(self._settings, PRODUCTS.name) or await lagging_groups(
            self._settings, readers, _SAMPLE_TOPICS
        ):
            self._check()
            if time.monotonic() > deadline:
                self._fail(f"not all services have read the sample products after {_READY_S:.0f} s")
            await asyncio.sleep(_POLL_S)

    def _wait_until_ready(self) -> None:
        waiting, deadline = list(self._workers), time.monotonic() + _READY_S
        while waiting := [worker for worker in waiting if not is_ready(worker.url)]:
            self._check()
            if time.monotonic() > deadline:
                self._fail(f"not ready after {_READY_S:.0f} s: {', '.join(worker.name for worker in waiting)}")
            time.sleep(_POLL_S)

    def _check(self) -> None:
        if failure := self._failure():
            self._fail(failure)

    def _failure(self) -> str | None:
        servers = [server for server in (self._kafka, self._postgres) if server]
        return self._children.failure() or next((why for server in servers if (why := server.failure())), None)

    def _fail(self, why: str) -> NoReturn:
        self._console.print(why, style="bold red", markup=False, soft_wrap=True)  # before the output of stopping
        raise StartFailed(why)

    def _stop_children(self) -> None:
        self._console.print("Stopping")
        self._children.stop(_LOAD)  # first: the workers still answer its requests
        self._children.stop()

    def _urls(self, service: str) -> tuple[str, ...]:
        return tuple(worker.url for worker in self._workers if service in worker.services)

    def _url(self, service: str) -> str:
        return self._urls(service)[0]

    def _checkin_url(self) -> str:
        """Returns the URL at `CHECKIN_PORT` if one of these workers listens there."""
        port = CheckinSettings().checkin_port
        own = port and advertised_url(f"http://127.0.0.1:{port}") in self._urls("checkin")
        return f"http://localhost:{port}" if own else self._url("checkin")

    def _welcome(self, seconds: float) -> None:
        log = f", log in {self._data / 'kafka' / '1' / 'kafka.log'}" if self._kafka else ""
        addresses = {
            "board": f"{self._url('board')}/",
            "orders": f"{self._url('orders')}/v1/orders",
            "check-ins": f"{self._checkin_url()}/api/SOA/home/checkin",
            "docs": f"{self._url('orders')}/docs",
            "metrics": f"{self._url('orders')}/metrics",
            "Kafka": f"{self._settings.kafka_bootstrap_servers}{log}",
            "e-mails": str(self._mail.new) if self._mail else f"{self._settings.smtp_host}:{self._settings.smtp_port}",
            "PostgreSQL": f"127.0.0.1:{self._postgres.port}" if self._postgres else "as the environment says",
        }
        if len(self._workers) > 1:
            addresses |= {worker.name: worker.url for worker in self._workers}
        text = f"\nReady after {seconds:.1f} s. Ctrl-C stops it all.\n\n{welcome.address_lines(addresses)}\n"
        if self._options.sample:  # the commands name a sample product and a sample customer
            text += "\n" + welcome.first_order_commands(self._url, self._mail.new if self._mail else None)
        self._console.print(text, soft_wrap=True, markup=False)

    def _print_bold(self, line: str) -> None:
        self._console.print(line, style="bold", markup=False, soft_wrap=True)
