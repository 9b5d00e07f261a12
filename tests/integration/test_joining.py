"""A new service joins a system with history by a rolling restart, and starts from now on or at the beginning."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from ecosystem.services import CORE
from runtime.hosting import ServiceDefinition
from runtime.kafka.topics import ensure_topics, topics_of
from runtime.model.service import Context, Input, Table
from runtime.model.topology import Topology
from runtime.validator import validator
from schemas.messages import Customer, Order, OrderState
from schemas.topics import CATALOGUE, CUSTOMERS, ORDER_VALIDATIONS, ORDERS
from schemas.wire import Message
from tests.integration.test_composition import decided, drained, stocked, stop_all
from tests.workers import Deployment

CREDIT = "CREDIT_CHECK"
COMPOSED, JOINED = "+".join(sorted(CORE)), "+".join(sorted((*CORE, "credit")))
OLD_CUSTOMERS = 40


class Limit(Message):
    records: int


LIMITS = Table("credit-limits", Limit)


def credit() -> ServiceDefinition:
    """A validator that judges orders from now on, and reads the customers from the beginning."""

    def on_customer(customer: Customer, ctx: Context) -> None:
        known = ctx.get(LIMITS, str(customer.id))
        ctx.put(LIMITS, str(customer.id), Limit(records=known.records + 1 if known else 1))

    return validator(
        "credit",
        CREDIT,
        judge=lambda order, ctx: None,
        by=("customer", lambda order: str(order.customer_id)),
        inputs=(Input(CUSTOMERS, on_customer),),
        tables=(LIMITS,),
    )


def orders(*numbers: int) -> list[Order]:
    return [Order(id=f"o{n}", customer_id=n % OLD_CUSTOMERS, product="P0", quantity=1, price=1) for n in numbers]


async def history(deployment: Deployment, count: int = 30) -> None:
    """Customers, and orders that the core has decided."""
    await stocked(deployment)
    topics = topics_of(Topology((credit().service,)))
    await ensure_topics(deployment.settings(), {CUSTOMERS.name: topics[CUSTOMERS.name]})
    people = [Customer(id=n, first_name="A", last_name="B", email="a@b.ch", address="C") for n in range(OLD_CUSTOMERS)]
    await deployment.send(CUSTOMERS, *people)
    await deployment.send(ORDERS, *orders(*range(count)))
    await decided(deployment, *range(count))


class Load:
    """Writes orders until it is stopped."""

    def __init__(self, deployment: Deployment, first: int) -> None:
        self._deployment = deployment
        self.sent = first
        self.stopping = False

    async def write(self) -> None:
        while not self.stopping:
            await self._deployment.send(ORDERS, *orders(self.sent))
            self.sent += 1
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def under_load(deployment: Deployment, first: int) -> AsyncIterator[Load]:
    load = Load(deployment, first)
    task = asyncio.create_task(load.write())
    try:
        yield load
        load.stopping = True
        await task
    finally:
        task.cancel()


async def judged(deployment: Deployment) -> dict[str, Counter[int]]:
    """Verdicts by check and number of the order."""
    found: dict[str, Counter[int]] = {}
    for verdict in await deployment.values(ORDER_VALIDATIONS):
        assert verdict.validation_result == "PASS", verdict
        found.setdefault(verdict.check_type, Counter())[int(verdict.order_id[1:])] += 1
    return found


async def nothing_failed(deployment: Deployment, count: int, *, once: bool = True) -> None:
    """Every order is decided, once, and passed; each check has judged each order once; there is no dead letter.

    Not `once`: a check may have judged an order again, as may happen at least once when a worker loses its partitions.
    """
    await decided(deployment, *range(count))
    await drained(deployment)
    states = Counter((order.id, order.state) for order in await deployment.values(ORDERS) if order.state.decided)
    assert set(states) == {(f"o{n}", OrderState.VALIDATED) for n in range(count)}
    if once:
        assert set(states.values()) == {1}
    for check, verdicts in (await judged(deployment)).items():
        if check != CREDIT:
            assert set(verdicts) == set(range(count)), check
        if once:
            assert set(verdicts.values()) <= {1}, check
    async with deployment.consumer() as consumer:
        topics = {topic.removeprefix(deployment.prefix) for topic in await consumer.topics()}
    for topic in {t.dead_letters for t in (*CATALOGUE, *credit().service.outputs)} & topics:
        assert await deployment.records(topic) == [], topic


async def knows_all_customers(deployment: Deployment) -> None:
    rows = await deployment.rows(LIMITS)
    assert {key: row.records for key, row in rows.items()} == {str(n): 1 for n in range(OLD_CUSTOMERS)}


async def roll(deployment: Deployment, names: Sequence[str], **options: object) -> None:
    """Restarts one worker after the other with the core and `more`."""
    for name, worker in zip(names, list(deployment.workers), strict=True):
        await deployment.stop(worker)
        await deployment.start(*CORE, name=name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_service_joins_the_composed_core_under_load_and_leaves_it_again(deployment: Deployment, guarantee):
    options = {"processing_guarantee": guarantee}
    once = guarantee == "exactly_once"
    for name in ("w0", "w1"):
        await deployment.start(*CORE, name=name, **options)
    await history(deployment)
    async with under_load(deployment, 30) as load:
        await roll(deployment, ("w0", "w1"), more=[credit()], **options)
        joined = load.sent
        assert {w.topology.group for w in deployment.workers} == {COMPOSED}
        await deployment.shared(*deployment.workers)
        while load.sent < joined + 100:
            await asyncio.sleep(0.05)
    await nothing_failed(deployment, load.sent, once=once)
    first = set((await judged(deployment))[CREDIT])
    assert first >= set(range(joined, load.sent)), "each order after the join is judged"
    assert min(first) >= 30, "none of those that were decided before"
    await knows_all_customers(deployment)

    await stop_all(deployment)  # then everything restarts under the new composition
    await deployment.send(ORDERS, *orders(*range(load.sent, load.sent + 10)))
    for name in ("w0", "w1"):
        await deployment.start(*CORE, name=name, more=[credit()], **options)
    assert {w.topology.group for w in deployment.workers} == {JOINED}
    await deployment.send(ORDERS, *orders(*range(load.sent + 10, load.sent + 20)))
    await nothing_failed(deployment, load.sent + 20, once=once)
    assert set((await judged(deployment))[CREDIT]) == first | set(range(load.sent, load.sent + 20))

    await stop_all(deployment)  # split again
    await deployment.send(ORDERS, *orders(*range(load.sent + 20, load.sent + 30)))
    await deployment.start(*CORE, name="w0", **options)
    await deployment.start(name="credit", more=[credit()], **options)
    assert {w.topology.group for w in deployment.workers} == {COMPOSED, "credit"}
    await deployment.send(ORDERS, *orders(*range(load.sent + 30, load.sent + 40)))
    await nothing_failed(deployment, load.sent + 40, once=once)
    assert set((await judged(deployment))[CREDIT]) == first | set(range(load.sent, load.sent + 40))
    await knows_all_customers(deployment)


async def test_a_service_starts_apart_from_now_on(deployment: Deployment):
    await deployment.start(*CORE)
    await history(deployment)
    apart = await deployment.start(name="credit", more=[credit()])
    await deployment.stop(apart)  # it has read nothing, and knows where it starts
    await deployment.send(ORDERS, *orders(*range(30, 40)))
    await deployment.start(name="credit", more=[credit()])
    await nothing_failed(deployment, 40)
    assert (await judged(deployment))[CREDIT] == Counter(range(30, 40))
    await knows_all_customers(deployment)


async def test_a_service_that_ran_apart_joins_the_running_core_where_it_stopped(deployment: Deployment):
    await deployment.start(*CORE)
    await history(deployment)
    apart = await deployment.start(name="credit", more=[credit()])
    await deployment.send(ORDERS, *orders(*range(30, 40)))
    await nothing_failed(deployment, 40)
    await deployment.stop(apart)
    await deployment.send(ORDERS, *orders(*range(40, 50)))
    await decided(deployment, *range(50))
    await roll(deployment, ("w0",), more=[credit()])
    await deployment.send(ORDERS, *orders(*range(50, 60)))
    await nothing_failed(deployment, 60)
    assert (await judged(deployment))[CREDIT] == Counter(range(30, 60))
    await knows_all_customers(deployment)


async def test_a_service_that_is_to_catch_up_starts_at_the_beginning(deployment: Deployment):
    for name in ("w0", "w1"):
        await deployment.start(*CORE, name=name)
    await history(deployment)
    await roll(deployment, ("w0", "w1"), more=[credit()], catch_up="credit")
    await deployment.send(ORDERS, *orders(*range(30, 40)))
    await nothing_failed(deployment, 40)
    assert (await judged(deployment))[CREDIT] == Counter(range(40))
    await knows_all_customers(deployment)


async def test_a_service_leaves_by_a_rolling_restart_and_returns_where_it_stopped(deployment: Deployment):
    for name in ("w0", "w1"):
        await deployment.start(*CORE, name=name)
    await history(deployment)
    await roll(deployment, ("w0", "w1"), more=[credit()])
    await deployment.send(ORDERS, *orders(*range(30, 40)))
    await nothing_failed(deployment, 40)
    await roll(deployment, ("w0", "w1"))
    await deployment.send(ORDERS, *orders(*range(40, 50)))
    await nothing_failed(deployment, 50)
    assert (await judged(deployment))[CREDIT] == Counter(range(30, 40))
    await roll(deployment, ("w0", "w1"), more=[credit()])
    await nothing_failed(deployment, 50)
    assert (await judged(deployment))[CREDIT] == Counter(range(30, 50))
