"""What `orders up` runs on this machine: Kafka, PostgreSQL, mail, workers, sample data; stopped in reverse."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, NoReturn, Self

from rich.console import Console

from ecosystem.cli import running
from ecosystem.cli.products import offer
from ecosystem.cli.running import Running
from ecosystem.cli.up import welcome
from ecosystem.cli.up.children import Children
from ecosystem.cli.up.firsts import Firsts
from ecosystem.cli.up.layout import Planned, plan
from ecosystem.clients.api import ProductsApi
from ecosystem.clients.groups import behind
from ecosystem.clients.health import answering, is_ready
from ecosystem.clients.reader import keys
from ecosystem.clients.writer import Writer
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.locks import exclusive
from ecosystem.embedded.mail_server import MailSink
from ecosystem.embedded.ports import claimed
from ecosystem.embedded.postgres import PORT, Postgres
from ecosystem.loadgen import sample
from ecosystem.services import DATABASES, NAMES
from runtime.common.settings import Settings
from schemas.topics import CUSTOMERS, PRODUCTS, WAREHOUSE_INVENTORY

_KAFKA_PORT = 9092
_READY_S = 300.0
_POLL_S = 0.2
_SAMPLE = "sample"
_READ_SAMPLE = frozenset({"inventory", "details", "email"})
_TOPICS = (PRODUCTS.name, WAREHOUSE_INVENTORY.name, CUSTOMERS.name)


class StartFailed(Exception):
    """Something that should run has ended, or does not get ready. The console has been told."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What is to run: see the options of `orders up`."""

    apart: bool
    workers: int
    port: int
    fresh: bool
    sample: bool
    rate: float
    own_kafka: bool


class LocalSystem:
    """Entering starts it all and returns when it is ready; leaving stops it all, however it is left.

    Entering raises `Held` if it runs on this data already, `NoFreePort`, `KafkaError`, `PostgresError`, or
    `StartFailed`.
    """

    def __init__(self, wish: UpOptions, console: Console, perform: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._wish = wish
        self._console = console
        self._perform = perform
        self._data = running.data_dir()
        self._settings = Settings()
        self._kafka: Cluster | None = None
        self._claims = ExitStack()
        self._workers = plan(wish.apart, wish.workers, self._claim, NAMES)
        self._mail: MailSink | None = None
        self._firsts = Firsts(self._url("orders"), self._say)
        self._postgres: Postgres | None = None
        self._databases: dict[str, str] = {}
        self._children = Children(console, max(len(worker.name) for worker in self._workers))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._claims)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def watch(self) -> NoReturn:
        """Says what is worth a line; raises `StartFailed` as soon as something ends by itself."""
        while True:
            self._check()
            self._firsts.report()
            time.sleep(_POLL_S)

    def _start(self, stack: ExitStack) -> None:
        began = time.monotonic()
        stack.enter_context(exclusive(self._data / "up.lock"))
        if self._wish.own_kafka:
            self._start_kafka(stack)
        if "SMTP_HOST" not in os.environ:
            self._mail = stack.enter_context(MailSink(self._data / "mail", self._firsts.delivered))
        if missing := {name: url for name, url in DATABASES.items() if url not in os.environ}:
            self._postgres = stack.enter_context(Postgres(self._data / "postgres", port=PORT))
            ours = {url: self._postgres.database(name) for name, url in missing.items()}
            # PGSSLMODE of the user is meant for other servers.
            self._databases = {url: f"{database}?sslmode=disable" for url, database in ours.items()}
        servers = self._settings.kafka_bootstrap_servers
        urls = {service: self._urls(service) for service in NAMES}
        stack.enter_context(running.announced(Running(os.getpid(), servers, urls, self._settings.currency)))
        stack.callback(self._stop_children)
        for worker in self._workers:
            self._start_worker(worker)
        if self._wish.sample:
            self._perform(self._announce_sample())
        self._wait_until_ready()
        if self._wish.sample:
            self._perform(self._until_sample_is_known())
        self._welcome(time.monotonic() - began)
        if self._wish.rate:
            options = ["--rate", f"{Decimal(str(self._wish.rate)):f}", "--every", "60"]
            options += [part for url in urls["orders"] for part in ("--url", url)]
            for service in ("fulfilment", "checkin", "portal", "products"):
                options += [f"--{service}-url", urls[service][0]]
            self._children.start(_SAMPLE, ["generate", *options], {"KAFKA_BOOTSTRAP_SERVERS": servers})

    def _claim(self, count: int) -> list[int]:
        return self._claims.enter_context(claimed(count, self._wish.port))

    def _start_kafka(self, stack: ExitStack) -> None:
        if self._wish.fresh:
            for folder in ("kafka", "state", "mail", "postgres"):
                shutil.rmtree(self._data / folder, ignore_errors=True)
        self._kafka = stack.enter_context(Cluster(self._data / "kafka", port=_KAFKA_PORT, console=self._console))
        servers = self._kafka.bootstrap_servers
        self._settings = self._settings.model_copy(update={"kafka_bootstrap_servers": servers})

    def _start_worker(self, worker: Planned) -> None:
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": self._settings.kafka_bootstrap_servers,
            "HTTP_PORT": str(worker.port),
            "STATE_DIR": str(self._data / "state" / worker.name),
        }
        env |= self._databases
        if self._mail:
            env |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(self._mail.port)}
            env |= {"PRODUCT_NOTIFICATIONS_TO": os.environ.get("PRODUCT_NOTIFICATIONS_TO", "products@example.org")}
        self._children.start(worker.name, ["run", *worker.services], env)

    async def _announce_sample(self) -> None:
        async with Writer(self._settings) as writer:
            await writer.write(WAREHOUSE_INVENTORY, sample.stock())
            await writer.write(CUSTOMERS, sample.customers())
        async with ProductsApi(self._urls("products")[0]) as api:
            await offer(api, sample.products(), patience_s=_READY_S)

    async def _until_sample_is_known(self) -> None:
        """Until then an order for a sample product may fail: the validators have not read the product yet."""
        deadline = time.monotonic() + _READY_S
        codes = {product.code.encode() for product in sample.products()}
        readers = {"+".join(sorted(w.services)) for w in self._workers if not _READ_SAMPLE.isdisjoint(w.services)}
        while not codes <= await keys(self._settings, PRODUCTS.name) or await behind(self._settings, readers, _TOPICS):
            self._check()
            if time.monotonic() > deadline:
                self._fail(f"the sample products are not known to all after {_READY_S:.0f} s")
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
        self._console.print(why, style="bold red", markup=False, soft_wrap=True)  # before what stopping has to say
        raise StartFailed(why)

    def _stop_children(self) -> None:
        self._console.print("Stopping")
        self._children.stop(_SAMPLE)  # first: its requests in flight are still answered
        self._children.stop()

    def _urls(self, service: str) -> tuple[str, ...]:
        return tuple(worker.url for worker in self._workers if service in worker.services)

    def _url(self, service: str) -> str:
        return self._urls(service)[0]

    def _checkin_url(self) -> str:
        """On the port where clients expect the service, if a worker of ours has it."""
        port = self._settings.checkin_port
        ours = port and answering(f"http://127.0.0.1:{port}") in self._urls("checkin")
        return f"http://localhost:{port}" if ours else self._url("checkin")

    def _welcome(self, seconds: float) -> None:
        log = f", log in {self._data / 'kafka' / '1' / 'kafka.log'}" if self._kafka else ""
        found = {
            "orders": f"{self._url('orders')}/v1/orders",
            "check-ins": f"{self._checkin_url()}/api/SOA/home/checkin",
            "docs": f"{self._url('orders')}/docs",
            "metrics": f"{self._url('orders')}/metrics",
            "Kafka": f"{self._settings.kafka_bootstrap_servers}{log}",
            "e-mails": str(self._mail.new) if self._mail else f"{self._settings.smtp_host}:{self._settings.smtp_port}",
            "PostgreSQL": f"127.0.0.1:{self._postgres.port}" if self._postgres else "as the environment says",
        }
        if len(self._workers) > 1:
            found |= {worker.name: worker.url for worker in self._workers}
        said = f"\nReady after {seconds:.1f} s. Ctrl-C stops it all.\n\n{welcome.places(found)}\n"
        if self._wish.sample:  # else nobody knows the product, nor the customer
            said += "\n" + welcome.walk(self._url, self._mail.new if self._mail else None)
        self._console.print(said, soft_wrap=True, markup=False)

    def _say(self, line: str) -> None:
        self._console.print(line, style="bold", markup=False, soft_wrap=True)
