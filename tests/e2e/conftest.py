"""Shops: deployments of the core that tests share without disturbing each other."""

import itertools
import secrets

import pytest

from tests.workers import Deployment, until
from validators.inventory.state import STOCK


class Shop:
    """The core and its HTTP workers. Tests share a shop, so each uses its own customers and products."""

    def __init__(self, deployment: Deployment, front):
        self.deployment = deployment
        self.front = front
        self._customers = itertools.count(1000)
        self._products = itertools.count(1)

    @property
    def first(self):
        return self.front[0]

    @property
    def last(self):
        """The second worker, or the first if there is only one."""
        return self.front[-1]

    def customer(self):
        """A customer without orders."""
        return next(self._customers)

    async def product(self, count=1000):
        """A new product with this stock."""
        name = f"SOCKS-{next(self._products)}"
        await self.deployment.stock(**{name: count})
        return name

    async def sound(self, **changes):
        """An order that will be VALIDATED, with some fields changed."""
        return {"customerId": self.customer(), "product": await self.product(), "quantity": 1, "price": 1, **changes}

    async def order(self, **changes):
        """Posts a valid order with some fields changed. Returns its outcome."""
        status, order = await self.deployment.post(self.first, **await self.sound(**changes))
        assert status == 201, order
        return await self.deployment.outcome(self.last, order["id"])

    async def reserved(self, product):
        """The committed reserved quantity of a product."""
        return (await self.deployment.rows(STOCK))[product].reserved

    def waiting(self):
        """Number of requests that wait for an order."""
        return sum(len(worker._watches) for worker in self.front)

    async def wait_for_waiters(self, count):
        await until(lambda: self.waiting() >= count, f"{count} waiting")


SHOPS = {
    "composed": {"apart": False, "orders": 1},
    "two composed": {"apart": False, "orders": 2},
    "apart": {"apart": True, "orders": 2},
}


@pytest.fixture(scope="module", params=SHOPS)
async def shop(request, kafka, tmp_path_factory):
    """A shop for all tests of a module: the core in one worker, in two, and apart with two workers for orders."""
    async with Deployment(kafka, f"t-{secrets.token_hex(4)}-", tmp_path_factory.mktemp("state")) as deployment:
        yield Shop(deployment, await deployment.start_core(**SHOPS[request.param]))


@pytest.fixture(params=["composed", "apart"])
def apart(request):
    """Whether each service runs in a worker of its own."""
    return request.param == "apart"
