"""What a comparison needs to know of a system that it measures."""

import json
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bench.comparison.processes import Processes

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PRODUCTS = 64
"""Products that are in stock: orders are spread over some of them, or all."""


def products(count: int = PRODUCTS) -> list[str]:
    """Names of the products that the generator orders."""
    return [f"product-{n}" for n in range(count)]


class System(ABC):
    """A system under test, with all its processes but the broker.

    Arguments:
        name: as in tables.
        folder: for logs and state.
    """

    api = "orders"
    """Interface, as the generator calls it."""
    uses_broker = True

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.urls: list[str] = []
        self.processes = Processes(folder)
        self.first_answer_s: float | None = None
        """Seconds from the start of the first process to the first outcome, topics made on the way."""
        self.warm_up_s = 10.0
        """Seconds at full load until code is compiled and caches are filled."""

    @abstractmethod
    def prepare(self) -> None:
        """Builds or fetches what the processes need. Not part of the measured start. Raises `StartError`."""

    @abstractmethod
    def launch(self) -> None:
        """Starts all processes without waiting until they serve, and sets `urls`."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Describes the measured system: names and versions of its parts, and their settings."""

    def order(self, number: int) -> bool:
        """Places an order and awaits the outcome; `False` if the system does not serve yet."""
        body = {"id": f"first-{number}", "customerId": 1, "product": "product-0", "quantity": 1, "price": 1}
        if ask(f"{self.urls[0]}/v1/orders", body) is None:
            return False
        return ask(f"{self.urls[0]}/v1/orders/first-{number}/validated?timeout=1000") is not None

    def start(self) -> None:
        """Starts the system, and returns after the first outcome. Raises `StartError`."""
        self.prepare()
        started, tries = time.monotonic(), iter(range(10**6))
        self.launch()
        self.processes.wait_until(lambda: self.order(next(tries)), f"the start of {self.name}")
        self.first_answer_s = round(time.monotonic() - started, 1)

    def stop(self) -> None:
        self.processes.stop()


def ask(url: str, body: object = None, accepted: Sequence[int] = (200, 201, 202)) -> object | None:
    """Returns what a server answers to a GET, or to a POST of `body`; `None` unless the status is an accepted one."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "Accept": "application/json"})
    try:
        with _NO_PROXY.open(request, timeout=5) as response:
            content = response.read()
            return (json.loads(content) if content else {}) if response.status in accepted else None
    except (OSError, ValueError):  # urllib raises OSError for other statuses as well
        return None
