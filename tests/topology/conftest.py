"""The core services in memory, in every deployment."""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import pytest

from ecosystem.services import CORE, FOUND
from orders_service.state import ORDERS_VIEW
from runtime.common.settings import Settings
from runtime.model.service import Service, SideEffect
from runtime.testing import TopologyTestDriver
from schemas.api import OrderOutcome
from schemas.messages import CheckType, Order, StockLevel
from schemas.topics import ORDER_VALIDATIONS, ORDERS, WAREHOUSE_INVENTORY
from tests.samples import order
from validators.inventory.state import STOCK

CORE_APPS = {name: import_module(FOUND[name].module) for name in CORE}


class Shop:
    """The core services, with the actions of clients and warehouse."""

    def __init__(self, topology: TopologyTestDriver) -> None:
        self.topology = topology

    def stock(self, **counts: int) -> None:
        self.topology.send(WAREHOUSE_INVENTORY, *[StockLevel(product=p, count=n) for p, n in counts.items()])

    def post(self, *orders: Order) -> None:
        """Posts orders one after the other, each once the previous one is decided."""
        for one in orders:
            self.topology.send(ORDERS, one)

    def order(self, id: str = "o1", **content: object) -> Order:  # noqa: A002
        return order(id, **{"created_at": self.topology.now, **content})

    def outcome(self, order_id: str = "o1") -> OrderOutcome:
        return self.topology.row(ORDERS_VIEW, order_id).outcome()

    def history(self, order_id: str = "o1") -> list[str]:
        """States of an order on the topic, in log order."""
        return [str(o.state) for o in self.topology.values(ORDERS) if o.id == order_id]

    def verdicts_of(self, check: CheckType) -> dict[str, str]:
        """Verdicts of a check, by order."""
        verdicts = self.topology.values(ORDER_VALIDATIONS)
        return {v.order_id: str(v.validation_result) for v in verdicts if v.check_type == check}

    def reserved(self, product: str) -> int:
        return self.topology.row(STOCK, product).reserved


def order_services(**changes: object) -> list[Service]:
    """The core, fulfilment and e-mail."""
    apps = [*CORE_APPS.values(), *(import_module(FOUND[name].module) for name in ("fulfilment", "email"))]
    return [app.build(Settings(**changes)).service for app in apps]


def emails_of(services: Iterable[Service]) -> SideEffect[Any]:
    """The side effect that sends e-mails."""
    return next(s for s in services if s.name == "email").side_effects[0]


def record_row_sizes(topology, monkeypatch):
    """Records the sizes of the rows changed by each batch."""
    batches = []
    for worker in topology.workers:
        process = worker.processor.process

        def recorded(*arguments, process=process):
            batch = process(*arguments)
            rows = [row for changed in batch.rows().values() for row in changed.items()]
            batches.append([len(key) + len(value or b"") for key, value in rows])
            return batch

        monkeypatch.setattr(worker.processor, "process", recorded)
    return batches


@pytest.fixture(scope="module", autouse=True)
def _products_unknown():
    """Lets unknown products pass: tests of the core announce none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNKNOWN_PRODUCTS", "pass")
        yield


@pytest.fixture(params=["composed", "composed, not fused", "apart", "apart, not fused"])
def open_shop(request) -> Callable[..., Shop]:
    """Opens a shop, `without` some of its services; every test sees each way to deploy them."""

    def opened(*, without: tuple[str, ...] = (), **settings: object) -> Shop:
        services = [app.build(Settings(**settings)).service for name, app in CORE_APPS.items() if name not in without]
        return Shop(
            TopologyTestDriver(*services, apart="apart" in request.param, fuse="not fused" not in request.param)
        )

    return opened


@pytest.fixture
def shop(open_shop):
    return open_shop()
