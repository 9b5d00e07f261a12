"""Clients that order, pay, check in and change products. Each repeats a request until it is acknowledged."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any

import aiohttp

from schemas.identifiers import new_order_id
from schemas.messages import Customer, CustomerLevel, Payment
from schemas.topics import CUSTOMERS, PAYMENTS
from tests.chaos.fleet import READY_S, Fleet, Process
from tests.chaos.load import Load

CHECK_INS = "/api/SOA/home/checkin"
_KNOWN = 900
"""Number of customers with a record, of the thousand that order."""
_LATE_S = 3.0
"""Seconds within which payments and check-ins arrive before or after their order."""


class Errands(Load):
    """Load on all services. Payments are written to their topic, as a payment provider would."""

    def __init__(self, fleet: Fleet, rng: random.Random, rate: float) -> None:
        super().__init__(fleet, rng, rate)
        self.checked_in: dict[str, str] = {}
        """Order ids of acknowledged check-ins, by event id."""
        self.versions: dict[str, int] = {}
        """Number of acknowledged changes by product."""
        self.done: Counter[str] = Counter()

    async def customers(self) -> None:
        """Publishes the customer records."""
        levels = [*CustomerLevel, "amber"]
        said = {"first_name": "Franz", "last_name": "Kafka", "address": "Praha"}
        known = [
            Customer(id=n, email=f"c{n}@example.org", level=levels[n % len(levels)], **said) for n in range(_KNOWN)
        ]
        await self._fleet.deployment.send(CUSTOMERS, *known)

    async def _client(self, order: dict[str, Any], gates: Sequence[Process], asks: bool) -> None:
        chance = self._rng.random
        errands = [super()._client(order, gates, asks)]
        if chance() < 0.8:
            errands.append(self._pay(order, halves=chance() < 0.2, after_s=chance() * _LATE_S))
        if chance() < 0.7:
            errands.append(self._check_in(order["id"], after_s=chance() * _LATE_S))
        if chance() < 0.05:
            errands.append(self._check_in(new_order_id(), after_s=0))
        if chance() < 0.15:
            errands.append(self._offer(f"p-{order['id']}", withdrawn=chance() < 0.3))
        await asyncio.gather(*errands)

    async def _pay(self, order: dict[str, Any], *, halves: bool, after_s: float) -> None:
        await asyncio.sleep(after_s)
        value = max(order["quantity"] * order["price"], 1)
        for number, amount in enumerate([value / 2] * 2 if halves else [value]):
            payment = Payment(id=f"p{number}-{order['id']}", order_id=order["id"], ccy="EUR", amount=amount)
            await self._fleet.deployment.send(PAYMENTS, payment)
            self.done["payments"] += 1

    async def _check_in(self, order_id: str, *, after_s: float) -> None:
        await asyncio.sleep(after_s)
        body = {
            "orderNo": order_id,
            "internetNo": "8850049302",
            "staffCode": f"s{self._rng.randrange(10)}",
            "jobStatus": "homecheckedin",
            "checkinLatitude": 13.5,
            "checkinLongitude": 100.5,
            "checkinDate": "2021-03-18 10:13:43",
        }
        answer = await self._until_taken("POST", "checkin", CHECK_INS, body)
        self.checked_in[answer["eventId"]] = order_id

    async def _offer(self, code: str, *, withdrawn: bool) -> None:
        """Adds a product, lowers its price and may withdraw it. Repeated requests change nothing."""
        path = f"/v1/products/{code}"
        await self._until_taken("POST", "products", "/v1/products", {"code": code, "name": "P", "price": 100})
        self.versions[code] = 1
        await self._until_taken("PUT", "products", path, {"name": "P", "price": self._rng.choice((1, 50))})
        self.versions[code] = 2
        if withdrawn:
            await self._until_taken("DELETE", "products", path, None)
            self.versions[code] = 3

    async def _until_taken(self, method: str, service: str, path: str, body: Any) -> Any:
        """Asks the workers of a service in turn until one accepts the request."""
        end = monotonic() + READY_S
        while monotonic() < end:
            gate = self._rng.choice([p for p in self._fleet.processes if service in p.services])
            try:
                async with self._http.request(
                    method, f"{gate.url}{path}", json=body, timeout=aiohttp.ClientTimeout(30)
                ) as response:
                    if response.status in {200, 201}:
                        self.done[f"{service} taken"] += 1
                        return await response.json()
                    self.refused[str(response.status)] += 1
                    if response.status != 503:
                        self.wrong.append(f"{method} {path} answered {response.status}: {await response.text()}")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.refused[type(error).__name__] += 1
            await asyncio.sleep(0.5)
        raise AssertionError(f"{method} {path}: nobody has taken it in {READY_S:.0f} s")
