"""What is checked. Each check stands alone but for the orders, which go on where the one before has left them."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aiohttp

from ecosystem.clients.api import CheckinApi, FulfilmentApi, HistoryApi, OrdersApi
from ecosystem.clients.wording import counted
from ecosystem.clients.writer import Writer
from ecosystem.smoke.report import Check, CheckFailed
from runtime.common.settings import Settings
from schemas.api import NewCheckin, NewOrder, OrderOutcome
from schemas.messages import Customer, Order, OrderState, Payment
from schemas.topics import CUSTOMERS, PAYMENTS

NONE = "none"
"""Stands for the URL of a part that is left out."""

_PRODUCT, _PRICE = "mug", Decimal("12.00")
_WAIT_MS = 20_000
_READS = 6
"""Reads of one order in a row: a balancer spreads them over the workers."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of the system are: URLs without a slash at the end, or `NONE`."""

    url: str
    bootstrap: str
    mail: str = NONE
    prometheus: str = NONE
    grafana: str = NONE
    kafka_ui: str = NONE
    postgres_ui: str = NONE


def checks_of(places: Places) -> Sequence[Check]:
    """The checks of the parts that are there."""
    orders = _Orders(places)
    checks = [
        Check("workers", orders.ready, "docker compose ps; docker compose logs core-1 core-2"),
        Check("an order is VALIDATED", orders.place, "orders explain ID; docker compose logs sample core-1 core-2"),
        Check("an order is FAILED", orders.place_too_much, "orders explain ID; docker compose logs core-1"),
        Check("any worker reads it", orders.read, "docker compose logs balancer; ADVERTISED_URL of the workers"),
    ]
    if places.bootstrap != NONE:
        checks.append(Check("it is paid, checked in, SHIPPED", orders.ship, "docker compose logs core-1 postgres"))
    checks.append(Check("its history", orders.history, "orders backlog; docker compose logs postgres"))
    if NONE not in (places.mail, places.bootstrap):
        checks.append(Check("its e-mail", orders.email, "docker compose logs mail; /metrics: side effects"))
    checks.append(Check("the board", lambda: _page(f"{places.url}/"), "/readyz: does a worker run the service board?"))
    if places.prometheus != NONE:
        remedy = f"{places.prometheus}/targets; docker compose logs prometheus"
        checks.append(Check("Prometheus", lambda: _scraped(places.prometheus), remedy))
    if places.grafana != NONE:
        checks.append(Check("Grafana", lambda: _dashboards(places.grafana), "docker compose logs grafana"))
    for name, url, service in (("Kafka UI", places.kafka_ui, "kafka-ui"), ("Adminer", places.postgres_ui, "adminer")):
        if url != NONE:
            checks.append(Check(name, lambda url=url: _page(url), f"docker compose logs {service}"))  # type: ignore[misc]
    return checks


class _Orders:
    """An order on its way, and one that cannot be met."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._id = _new_id()
        self._customer = _new_customer()
        self._paid = False

    async def ready(self) -> str:
        body = await _json(f"{self._places.url}/readyz")
        return f"{len(body['services'])} services"

    async def place(self) -> str:
        # A new order for each attempt: until the stock of the sample is there, orders fail.
        self._id = _new_id()
        outcome = await self._post(self._id, self._customer, quantity=1)
        _expect(outcome, OrderState.VALIDATED)
        return outcome.id

    async def place_too_much(self) -> str:
        # By another customer, whose session does not count against the next order.
        outcome = await self._post(_new_id(), _new_customer(), quantity=1_000_000_000)
        _expect(outcome, OrderState.FAILED)
        return "; ".join(outcome.reasons or ())

    async def read(self) -> str:
        states = set()
        for _ in range(_READS):
            # A connection of its own for each request, so that the balancer chooses a worker each time.
            async with OrdersApi(self._places.url) as api:
                states.add((await api.get(self._id, 0)).state)
        if len(states) != 1:
            raise CheckFailed(f"{_READS} reads had the states {', '.join(sorted(states))}")
        return f"{_READS} reads, {states.pop()}"

    async def ship(self) -> str:
        if not self._paid:
            await self._pay_and_check_in()
            self._paid = True
        async with OrdersApi(self._places.url) as api:
            async for event in api.events(self._id, _WAIT_MS):
                if isinstance(event, Order) and event.state is OrderState.SHIPPED:
                    return event.state
        raise CheckFailed(f"{self._id} was not shipped: see GET /v1/orders/{self._id}/fulfilment")

    async def _pay_and_check_in(self) -> None:
        async with FulfilmentApi(self._places.url) as api:
            currency = (await api.status(self._id, _WAIT_MS)).currency
        payment = Payment(id=f"p-{self._id}", order_id=self._id, ccy=currency, amount=_PRICE)
        customer = Customer(
            id=self._customer, first_name="Smoke", last_name="Test", email="smoke@example.org", address="1 Test Street"
        )
        async with Writer(Settings(kafka_bootstrap_servers=self._places.bootstrap)) as writer:
            await writer.write(CUSTOMERS, [customer])
            await writer.write(PAYMENTS, [payment])
        arrived = NewCheckin(
            internet_no="8850049302",
            order_no=self._id,
            staff_code="smoke",
            job_status="homecheckedin",
            checkin_latitude=13.78,
            checkin_longitude=100.54,
            checkin_date=datetime.now(UTC).isoformat(" ", "seconds"),
        )
        async with CheckinApi(self._places.url) as api:
            await api.post(arrived)

    async def history(self) -> str:
        async with HistoryApi(self._places.url) as api:
            records = (await api.history(self._id)).records
        stages = {record.stage for record in records}
        if "VALIDATED" not in stages:
            raise CheckFailed(f"it has {counted(len(records), 'record')}, and none of VALIDATED")
        return f"{counted(len(records), 'record')} of {counted(len(stages), 'stage')}"

    async def email(self) -> str:
        found = await _json(f"{self._places.mail}/api/v1/search?query={self._id}")
        if not found["messages_count"]:
            raise CheckFailed(f"no e-mail about {self._id}")
        return str(found["messages"][0]["Subject"])

    async def _post(self, id_: str, customer: int, *, quantity: int) -> OrderOutcome:
        order = NewOrder(id=id_, customer_id=customer, product=_PRODUCT, quantity=quantity, price=_PRICE)
        async with OrdersApi(self._places.url) as api:
            return await api.post_and_wait(order, _WAIT_MS)


def _new_id() -> str:
    return f"smoke-{secrets.token_hex(4)}"


def _new_customer() -> int:
    return 1_000_000_000 + secrets.randbelow(1_000_000_000)


def _expect(outcome: OrderOutcome, state: OrderState) -> None:
    if outcome.state is not state and not (state is OrderState.VALIDATED and outcome.state is OrderState.SHIPPED):
        raise CheckFailed(f"{outcome.id} is {outcome.state}: {'; '.join(outcome.reasons or ()) or 'no reason'}")


async def _scraped(url: str) -> str:
    targets = (await _json(f"{url}/api/v1/targets?state=active"))["data"]["activeTargets"]
    down = [target["labels"].get("instance", "?") for target in targets if target["health"] != "up"]
    if down or not targets:
        raise CheckFailed(f"targets that are not up: {', '.join(down) or 'there are none'}")
    rules = (await _json(f"{url}/api/v1/rules"))["data"]["groups"]
    return f"{len(targets)} targets, {sum(len(group['rules']) for group in rules)} rules"


async def _dashboards(url: str) -> str:
    found = await _json(f"{url}/api/search?type=dash-db")
    if not found:
        raise CheckFailed("there are no dashboards")
    return f"{len(found)} dashboards"


async def _page(url: str) -> str:
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as response:
        return f"answers {response.status}"


async def _json(url: str) -> Any:
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as response:
        return await response.json(content_type=None)
