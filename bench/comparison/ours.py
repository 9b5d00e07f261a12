"""Our own services: one worker or several for the core, one for all services, or a worker for each of them."""

import asyncio
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.comparison.processes import StartError
from bench.comparison.system import System, products
from ecosystem.clients.writer import Writer
from ecosystem.embedded.mail_server import MailSink
from ecosystem.embedded.ports import free_ports
from ecosystem.embedded.postgres import Postgres
from ecosystem.loadgen.sample import customers
from ecosystem.services import CORE, DATABASES, NAMES
from runtime.common.settings import Settings
from schemas.messages import StockLevel
from schemas.topics import CUSTOMERS, WAREHOUSE_INVENTORY

ROOT = Path(__file__).parents[2]
LAYOUTS = {
    "core": (CORE,),
    "all": (NAMES,),
    "without-history": (tuple(name for name in NAMES if name != "history"),),
    "two": (CORE,) * 2,
    "four": (CORE,) * 4,
    "apart": tuple((service,) for service in CORE),
    "history": ((*CORE, "history"),),
    "beside": (CORE, ("history",)),
}
"""By name: the services of each process."""
FALLBACK_PRODUCTS = ("UNDERPANTS", "JUMPERS")
"""What `bench/load.py` orders."""


async def write_sample_data(settings: Settings) -> None:
    """Writes plenty of stock of all products that generators order, and customers."""
    async with Writer(settings) as writer:
        stock = [StockLevel(product=p, count=10**9) for p in (*products(), *FALLBACK_PRODUCTS)]
        await writer.write(WAREHOUSE_INVENTORY, stock)
        await writer.write(CUSTOMERS, customers())


class Ours(System):
    """Our services.

    Arguments:
        name: as in tables.
        folder: for logs and state.
        servers: of the broker.
        layout: a key of `LAYOUTS`.
        guarantee: `exactly_once` or `at_least_once`.
        root: checkout whose code runs, with its own `.venv` if it has one.
    """

    def __init__(self, name: str, folder: Path, servers: str, layout: str, guarantee: str, root: Path = ROOT) -> None:
        super().__init__(name, folder)
        self._settings = Settings(kafka_bootstrap_servers=servers, topic_prefix=f"{folder.name}-")
        self._layout = layout
        self._guarantee = guarantee
        self._root = root
        self._surroundings = ExitStack()

    def prepare(self) -> None:
        asyncio.run(write_sample_data(self._settings))

    def launch(self) -> None:
        compositions = LAYOUTS[self._layout]
        env = {
            **os.environ,
            **self._databases({service for services in compositions for service in services}),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(self._root),
            "KAFKA_BOOTSTRAP_SERVERS": self._settings.kafka_bootstrap_servers,
            "TOPIC_PREFIX": self._settings.topic_prefix,
            "PROCESSING_GUARANTEE": self._guarantee,
            "UNKNOWN_PRODUCTS": "pass",
        }
        self.urls = []
        for number, (services, port) in enumerate(zip(compositions, free_ports(len(compositions)), strict=True)):
            own = {"HTTP_PORT": str(port), "STATE_DIR": str(self.folder / f"{services[0]}-{number}")}
            command = [_python(self._root), "-m", "ecosystem.cli", "run", *services]
            self.processes.start("worker", command, env | own, self._root)
            if "orders" in services:
                self.urls.append(f"http://127.0.0.1:{port}")

    def versions(self) -> dict[str, str]:
        return {
            "Faust Orders": revision(self._root),
            "Python": sys.version.split()[0],
            "layout": self._layout,
            "guarantee": self._guarantee,
        }

    def stop(self) -> None:
        super().stop()
        self._surroundings.close()

    def _databases(self, services: set[str]) -> dict[str, str]:
        """Starts PostgreSQL and a mail server if services beyond the core run. Returns their settings."""
        if services <= {*CORE}:
            return {}
        postgres = self._surroundings.enter_context(Postgres(self.folder / "postgres"))
        mail = self._surroundings.enter_context(MailSink(self.folder / "mail"))
        urls = {url: postgres.database(name) for name, url in DATABASES.items()}
        return urls | {"SMTP_PORT": str(mail.port)}


def revision(root: Path) -> str:
    """Returns the short commit of a checkout, with a `+` if files differ from it; empty if it has none."""
    git = ["git", "-C", str(root)]
    found = subprocess.run([*git, "rev-parse", "--short=9", "HEAD"], check=False, capture_output=True, text=True)
    if found.returncode:
        return ""
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], check=False, capture_output=True, text=True)
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _python(root: Path) -> str:
    own = root / ".venv" / "bin" / "python"
    if root != ROOT and not (root / "ecosystem").is_dir():
        raise StartError(f"{root} is not a checkout of this project: it has no folder `ecosystem`")
    return str(own) if root != ROOT and own.exists() else sys.executable
