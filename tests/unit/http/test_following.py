"""`Prefer: wait` and streams of events when partitions move, workers stop, and limits are reached."""

import asyncio

import pytest
from aiohttp import ClientPayloadError

from orders_service.events import events_of
from orders_service.state import OrderView
from runtime.http import event_stream
from schemas.api import Verdict
from schemas.messages import Order, OrderState, ValidationResult
from tests.samples import order
from tests.unit.http.fakes import ORDER, Cluster, decided, running, until

PASSED = [Verdict(check_type=c, validation_result=ValidationResult.PASS) for c in ("FRAUD_CHECK", "INVENTORY_CHECK")]


@pytest.fixture
async def worker():
    async with running(Cluster()) as one:
        yield one


async def posted(worker, prefer, **changes):
    async with worker.post({**ORDER, **changes}, headers={"Prefer": prefer}) as answer:
        return answer.status, await answer.json(), answer.headers.get("Preference-Applied")


async def lines(answer):
    return (await answer.content.read()).decode().splitlines()


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=7", "wait=7"),
        ('wait="7"', "wait=7"),
        ("WAIT = 7", "wait=7"),
        ("respond-async, wait=7", "wait=7"),
        ("wait=7; foo=bar, wait=9", "wait=7"),
        ("wait=100", "wait=60"),
        ("wait=99999999999999999999", "wait=60"),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("waiting=7", None),
        ("return=minimal", None),
    ],
)
async def test_how_a_preference_is_read(worker, prefer, applied):
    worker.host.cluster.put(decided(order(id="o1", customer_id=7, product="book", quantity=2, price="9.99")))
    status, _, said = await posted(worker, prefer, id="o1")
    assert (status, said) == (200, applied)


async def test_an_undecided_order_is_accepted_at_the_end_of_the_wait(worker):
    status, body, applied = await posted(worker, "wait=0", id="o1")
    assert (status, body["state"], body["order"]["id"], applied) == (202, "CREATED", "o1", "wait=0")


async def test_the_answer_comes_with_the_decision(worker):
    waiting = asyncio.create_task(posted(worker, "wait=60", id="o1"))
    await until(lambda: len(worker.host.watches) == 1)
    worker.host.cluster.put(decided(worker.host.produced[0]))
    assert (await waiting)[:2][0] == 201


@pytest.mark.parametrize("ends", ["stop", "move"])
async def test_an_order_that_is_placed_is_accepted_when_the_worker_loses_it(worker, ends):
    """A client that repeated the request without an id would place another order."""
    waiting = asyncio.create_task(posted(worker, "wait=60"))
    await until(lambda: len(worker.host.watches) == 1)
    worker.host.stop() if ends == "stop" else worker.host.cluster.move(None)
    status, body, _ = await waiting
    assert (status, body["state"]) == (202, "CREATED")
    assert len(worker.host.produced) == 1


async def test_without_the_partition_a_new_order_is_produced_and_accepted(worker):
    worker.host.cluster.move(None)
    status, body, applied = await posted(worker, "wait=5")
    assert (status, body["state"], applied) == (202, "CREATED", "wait=5")


async def test_clients_that_wait_for_outcomes_keep_nobody_from_posting():
    async with running(Cluster(), max_requests=2) as worker:
        waiting = [asyncio.create_task(posted(worker, "wait=60", id=f"o{n}")) for n in range(2)]
        await until(lambda: len(worker.host.watches) == 2)
        async with worker.post({**ORDER, "id": "o7"}) as answer:
            assert answer.status == 201
        assert (await posted(worker, "wait=60", id="o8"))[0] == 202  # no room to wait: answered at once
        for one in list(worker.host.produced):
            worker.host.cluster.put(decided(one))
        assert [(await task)[0] for task in waiting] == [201] * 2
        async with worker.get("/v1/orders/o7") as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("state", "verdicts", "states"),
    [
        (OrderState.CREATED, 1, ["CREATED"]),
        (OrderState.VALIDATED, 2, ["CREATED", "VALIDATED"]),
        (OrderState.SHIPPED, 2, ["CREATED", "VALIDATED", "SHIPPED"]),
        (OrderState.CANCELLED, 2, ["CREATED", "VALIDATED", "CANCELLED"]),
        (OrderState.CANCELLED, 1, ["CREATED", "CANCELLED"]),
        (OrderState.FAILED, 1, ["CREATED", "FAILED"]),
    ],
)
def test_events_follow_from_the_row(state, verdicts, states):
    view = OrderView(
        order=order(state=state), verdicts=tuple(PASSED[:verdicts]), required=("FRAUD_CHECK", "INVENTORY_CHECK")
    )
    events = list(events_of(view))
    assert [event.data.state for event in events if isinstance(event.data, Order)] == states
    assert [event.id for event in events] == [f"1-{n}" for n in range(1, len(events) + 1)]


def test_another_attempt_has_ids_of_its_own():
    [first] = events_of(OrderView(order=order(attempt=2)))
    assert first.id == "2-1"


def test_rows_with_verdicts_alone_have_no_events():
    assert list(events_of(OrderView(verdicts=tuple(PASSED)))) == []


async def test_silence_is_filled_with_comments(worker, monkeypatch):
    monkeypatch.setattr("runtime.http.row_events.HEARTBEAT_S", 0.01)
    worker.host.cluster.put(OrderView(order=order()))
    async with worker.get("/v1/orders/o1/events") as answer:
        seen = b""
        while seen.count(b": waiting") < 3:
            seen += await answer.content.readany()
        worker.host.cluster.put(decided(order(), OrderState.FAILED, "no"))
        assert (await lines(answer))[-3].startswith("event: state")
    assert seen.startswith(b"retry: %d" % event_stream.RETRY_MS)


@pytest.mark.parametrize("ends", ["stop", "move"])
async def test_a_stream_ends_when_its_worker_loses_the_order(worker, ends):
    worker.host.cluster.put(OrderView(order=order()))
    async with worker.get("/v1/orders/o1/events") as answer:
        await until(lambda: len(worker.host.watches) == 1)
        worker.host.stop() if ends == "stop" else worker.host.cluster.move(None)
        assert "event: state" in await lines(answer)


@pytest.fixture
async def two():
    cluster = Cluster()
    async with running(cluster) as owner, running(cluster) as other:
        yield owner, other


async def test_a_stream_comes_through_another_worker(two):
    owner, other = two
    owner.host.cluster.put(OrderView(order=order()))
    async with other.get("/v1/orders/o1/events", headers={"Last-Event-ID": "1-1"}) as answer:
        await until(lambda: len(owner.host.watches) == 1)
        owner.host.cluster.put(decided(order(), OrderState.FAILED))
        assert [line for line in await lines(answer) if line.startswith("id")] == ["id: 1-2"]


@pytest.mark.parametrize("ends", ["dies", "moves"])
async def test_a_stream_through_another_worker_ends_with_its_owner(two, ends, monkeypatch):
    monkeypatch.setattr("runtime.http.row_events.HEARTBEAT_S", 0.05)
    owner, other = two
    owner.host.cluster.put(OrderView(order=order()))
    async with other.get("/v1/orders/o1/events") as answer:
        await until(lambda: len(owner.host.watches) == 1)
        await answer.content.readline()
        if ends == "dies":
            await owner.die()
        else:
            owner.host.cluster.move(other.host.url)
        try:
            async with asyncio.timeout(60):
                await answer.content.read()
        except ClientPayloadError:
            pass  # cut off: the client connects again
    async with other.get("/v1/orders/nobody/events?timeout=0") as answer:
        assert answer.status in {404, 503}


async def test_an_unknown_order_is_a_404_from_the_owner(two):
    async with two[1].get("/v1/orders/nobody/events?timeout=0") as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")


async def test_without_an_owner_a_stream_is_a_503(two):
    two[0].host.cluster.move(None)
    async with two[1].get("/v1/orders/o1/events?timeout=50") as answer:
        assert answer.status == 503
