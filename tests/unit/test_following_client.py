"""The client that follows an order, or waits for its outcome with the request that places it."""

import asyncio
from decimal import Decimal

import pytest

from ecosystem.clients.api import OrdersApi, RequestRejected, Unreachable
from ecosystem.clients.event_stream import ReceivedEvent, read_events
from orders_service.state import OrderView
from schemas.api import NewOrder
from schemas.messages import Order, OrderState
from tests.samples import order
from tests.unit.http.fakes import Cluster, decided, running, until

NEW = NewOrder(id="o1", customer_id=7, product="book", quantity=2, price=Decimal("9.99"))


async def events_in(text):
    async def lines():
        for line in text.encode().splitlines(keepends=True):
            yield line

    return [event async for event in read_events(lines())]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("", []),
        ("data: 1\n\n", [ReceivedEvent("", "message", "1")]),
        ("id: 7\nevent: state\ndata: 1\n\ndata:2\n\n", [("7", "state", "1"), ("7", "message", "2")]),
        ("data: 1\ndata: 2\r\n\n", [("", "message", "1\n2")]),
        (": comment\n\nretry: 5\n\n", []),
        ("event: state\n\ndata: 1\n\n", [("", "message", "1")]),
        ("data: cut off", []),
    ],
)
async def test_events_are_read_as_the_standard_has_it(text, events):
    assert await events_in(text) == events


@pytest.fixture
async def two():
    cluster = Cluster()
    async with running(cluster) as owner, running(cluster) as other:
        yield owner, other


async def states(api, timeout_ms=60_000):
    return [event.state async for event in api.events("o1", timeout_ms) if isinstance(event, Order)]


async def test_a_stream_that_breaks_is_continued(two):
    owner, other = two
    cluster = owner.host.cluster
    cluster.put(OrderView(order=order()))
    async with OrdersApi(str(other.host.url)) as api:
        following = asyncio.create_task(states(api))
        await until(lambda: len(owner.host.watches) == 1)
        cluster.move(other.host.url)
        await until(lambda: len(other.host.watches) == 1)
        cluster.put(decided(order(), OrderState.FAILED))
        assert await following == [OrderState.CREATED, OrderState.FAILED]


async def test_an_unknown_order_ends_it(two):
    async with OrdersApi(str(two[0].host.url)) as api:
        with pytest.raises(RequestRejected, match="404"):
            await states(api, 0)


async def test_a_worker_without_an_owner_is_asked_until_the_timeout(two):
    two[0].host.cluster.move(None)
    async with OrdersApi(str(two[0].host.url)) as api:
        with pytest.raises(RequestRejected, match="503"):
            await states(api, 20)


async def test_nobody_there_ends_it_at_the_timeout():
    async with OrdersApi("http://127.0.0.1:1") as api:
        with pytest.raises(Unreachable):
            await states(api, 20)


async def test_the_outcome_comes_with_one_request(two):
    owner, other = two
    async with OrdersApi(str(other.host.url)) as api:
        waiting = asyncio.create_task(api.post_and_wait(NEW, 60_000))
        await until(lambda: len(owner.host.watches) == 1)
        owner.host.cluster.put(decided(owner.host.produced[0]))
        assert (await waiting).state is OrderState.VALIDATED


async def test_an_order_that_is_not_decided_in_time_is_a_504(two):
    async with OrdersApi(str(two[0].host.url)) as api:
        with pytest.raises(RequestRejected, match="504"):
            await api.post_and_wait(NEW, 0)
