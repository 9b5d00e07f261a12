"""Stale reads while the key owner is unavailable: marked as such, and never wrong."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from orders_service.state import OrderView
from runtime.hosting import ServiceDefinition, StaleRow
from runtime.http.forwarding import NOT_OWNED, READ_FROM, SERVED_BY
from runtime.http.signatures import FORWARDED_BY
from schemas.messages import Order, OrderState
from tests.unit.http.fakes import ORDER, Cluster, Running, answered_by, decided, running, until

CREATED = Order(id="o-1", customer_id=1, product="x", quantity=1, price=1, created_at=datetime.now(UTC))
PATH = "/v1/orders/o-1"
NOBODY = URL("http://127.0.0.1:1")
"""A port without a listener."""


def silent(asked: asyncio.Event) -> ServiceDefinition:
    """A worker that accepts requests and never answers, as a paused one."""

    async def say_nothing(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    return answered_by(say_nothing)


@pytest.fixture
async def trio(cluster: Cluster) -> AsyncIterator[tuple[Running, Running]]:
    """Two workers, the second of which has standby replicas of all keys; the owner has crashed."""
    async with running(cluster) as worker, running(cluster) as standby:
        cluster.move(NOBODY)
        cluster.standbys = [standby.host.url]
        yield worker, standby


def marked(answer: Any) -> tuple[str | None, str | None]:
    return answer.headers.get(SERVED_BY), answer.headers.get("Age")


@pytest.mark.parametrize("asked", [0, 1], ids=["another worker", "the standby itself"])
async def test_a_standby_answers_for_a_crashed_owner_and_marks_the_response(trio: Any, asked: int):
    trio[1].host.copies["o-1"] = StaleRow(decided(CREATED), 3.9)
    async with trio[asked].get(PATH) as answer:
        assert (answer.status, marked(answer)) == (200, ("standby", "3"))
        assert (await answer.json())["state"] == "VALIDATED"
    async with trio[asked].get(PATH + "/validated?timeout=0") as answer:
        assert (answer.status, marked(answer)) == (200, ("standby", "3"))
        assert (await answer.json())["id"] == "o-1"


async def test_an_available_owner_answers_itself(pair: tuple[Running, Running], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.http.forwarding.CHECK_OWNER_S", 60.0)
    owner, other = pair
    owner.host.cluster.put(decided(CREATED))
    other.host.copies["o-1"] = StaleRow(OrderView(order=CREATED), 0)
    for worker in pair:
        async with worker.get(PATH + "?timeout=60000") as answer:
            assert (answer.status, marked(answer)) == (200, (None, None))
            assert (await answer.json())["state"] == "VALIDATED"
    assert other.host.asked == 0


@pytest.mark.parametrize(
    ("row", "order", "outcome"),
    [
        (None, 503, 503),
        (OrderView(), 503, 503),
        (OrderView(order=CREATED), 200, 503),
        (decided(CREATED, OrderState.FAILED, "x"), 200, 200),
    ],
    ids=["nothing", "verdicts only", "undecided", "decided"],
)
async def test_a_standby_answers_only_what_cannot_be_wrong(trio: Any, row: OrderView | None, order: int, outcome: int):
    worker, standby = trio
    if row is not None:
        standby.host.copies["o-1"] = StaleRow(row, 0)
    for path, status in ((PATH, order), (PATH + "/validated", outcome)):
        for asked in (worker, standby):
            async with asked.get(path + "?timeout=50") as answer:
                assert answer.status == status
                if status == 503:
                    assert answer.headers["Retry-After"] == "1"


async def test_a_waiting_get_is_answered_when_the_replica_has_the_row(trio: Any):
    worker, standby = trio
    gets = [asyncio.ensure_future(w.get(PATH + "/validated?timeout=60000")) for w in trio]
    await until(lambda: standby.host.asked > 3)
    standby.host.copies["o-1"] = StaleRow(decided(CREATED), 0)
    for get in gets:
        async with asyncio.timeout(60), await get as answer:
            assert (answer.status, marked(answer)) == (200, ("standby", "0"))
    assert len(worker.host.watches) == len(standby.host.watches) == 0


async def test_a_paused_owner_is_not_waited_for(cluster: Cluster):
    asked = asyncio.Event()
    async with running(cluster, (silent(asked),)), running(cluster) as worker, running(cluster) as standby:
        cluster.standbys = [standby.host.url]
        standby.host.copies["o-1"] = StaleRow(decided(CREATED), 0)
        for w in (worker, standby):
            for path in (PATH + "?timeout=60000", PATH + "/validated?timeout=60000", PATH + "?timeout=100"):
                asked.clear()
                started = time.monotonic()
                async with w.get(path) as answer:
                    assert (answer.status, marked(answer)) == (200, ("standby", "0"))
                assert asked.is_set(), "the owner comes first"
                assert time.monotonic() - started < 40


async def test_a_client_that_waits_at_an_available_owner_gets_its_response(pair: tuple[Running, Running]):
    owner, other = pair
    get = asyncio.ensure_future(other.get(PATH + "/validated?timeout=60000"))
    await until(lambda: len(owner.host.watches) == 1)
    await until(lambda: other.host.asked >= 1)
    owner.host.cluster.put(decided(CREATED))
    async with await get as answer:
        assert (answer.status, marked(answer)) == (200, (None, None))


async def test_a_worker_answers_from_its_replica_while_it_restores(pair: tuple[Running, Running]):
    owner = pair[0]
    owner.host.here = False
    owner.host.copies["o-1"] = StaleRow(OrderView(order=CREATED), 2)
    for worker in pair:
        async with worker.get(PATH) as answer:
            assert (answer.status, marked(answer)) == (200, ("standby", "2"))


async def test_a_replica_answers_while_a_key_has_no_owner(trio: Any):
    worker, standby = trio
    worker.host.cluster.move(None)
    standby.host.copies["o-1"] = StaleRow(OrderView(order=CREATED), 0)
    async with worker.get(PATH) as answer:
        assert (answer.status, marked(answer)) == (200, ("standby", "0"))


async def test_a_post_is_answered_by_the_owner_only(trio: Any):
    worker, standby = trio
    standby.host.copies["o-1"] = worker.host.copies["o-1"] = StaleRow(decided(CREATED), 0)
    for w in trio:
        async with w.post({**ORDER, "id": "o-1"}, "/v1/orders?timeout=100") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert worker.host.asked == standby.host.asked == 0


async def test_a_crashed_standby_costs_no_more_than_the_timeout(trio: Any):
    worker, _ = trio
    worker.host.cluster.standbys = [NOBODY]
    async with worker.get(PATH + "?timeout=200") as answer:
        assert answer.status == 503


async def test_a_standby_does_not_forward_a_stale_read(trio: Any):
    worker, standby = trio
    standby.host.copies["o-1"] = StaleRow(decided(CREATED), 0)
    headers = {FORWARDED_BY: "http://elsewhere:1", READ_FROM: "standby"}
    async with worker.get(PATH, headers=headers) as answer:
        assert (answer.status, answer.headers[NOT_OWNED]) == (503, "1")
    assert standby.host.asked == 0


async def test_a_forwarded_request_is_not_answered_by_another_standby(pair: tuple[Running, Running]):
    owner, other = pair
    owner.host.here = False
    owner.host.cluster.standbys = [other.host.url]
    other.host.copies["o-1"] = StaleRow(decided(CREATED), 0)
    async with owner.get(PATH + "?timeout=100", headers={FORWARDED_BY: str(other.host.url)}) as answer:
        assert answer.status == 503
    assert other.host.asked == 0


async def test_requests_to_a_standby_are_spaced_out(trio: Any):
    worker, standby = trio
    async with worker.get(PATH + "?timeout=1200") as answer:
        assert answer.status == 503
    assert 1 <= standby.host.asked <= 3


async def test_a_client_cannot_request_a_stale_read(pair: tuple[Running, Running]):
    owner, _ = pair
    owner.host.cluster.put(decided(CREATED))
    owner.host.copies["o-1"] = StaleRow(OrderView(order=CREATED), 0)
    async with owner.get(PATH, headers={READ_FROM: "standby"}) as answer:
        assert (answer.status, marked(answer)) == (200, (None, None))


async def test_a_stale_read_is_requested_with_a_signature(cluster: Cluster):
    async with running(cluster, worker_keys="k") as worker, running(cluster, worker_keys="k") as standby:
        cluster.move(NOBODY)
        cluster.standbys = [standby.host.url]
        standby.host.copies["o-1"] = StaleRow(decided(CREATED), 0)
        async with worker.get(PATH) as answer:
            assert (answer.status, marked(answer)) == (200, ("standby", "0"))
        async with standby.get(PATH, headers={FORWARDED_BY: "http://me", READ_FROM: "standby"}) as answer:
            assert answer.status == 401
