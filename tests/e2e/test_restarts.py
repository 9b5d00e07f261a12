"""Workers stop, start and crash: no order or waiting request is lost, and no verdict is duplicated."""

import asyncio
from collections import Counter

import pytest

from runtime.model.watch import Watches
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.workers import Deployment, until

CHECKS = 3


@pytest.mark.parametrize("service", ["fraud", "inventory", "details"])
async def test_a_stopped_validator_catches_up_without_duplicate_verdicts(deployment: Deployment, service):
    (worker,) = await deployment.start_core(apart=True)
    await deployment.stock(JUMPERS=1000)
    before = await post(deployment, worker, 10)
    await decided(deployment, worker, before)
    (validator,) = [w for w in deployment.workers if w.readiness()["services"] == [service]]
    await deployment.caught_up(service)
    offsets = await deployment.progress(service)

    await deployment.stop(validator)
    meanwhile = await post(deployment, worker, 20)
    assert (await deployment.get(worker, meanwhile[-1], timeout=60_000))[0] == 200
    status, _ = await deployment.get(worker, meanwhile[-1], "validated", timeout=100)
    assert status == 504, "nobody decides without it"
    await deployment.start(service, name=service)

    await decided(deployment, worker, meanwhile)
    await deployment.caught_up(service)
    advanced = await deployment.progress(service)
    assert sum(o for o, _ in advanced.values()) >= sum(o for o, _ in offsets.values()) + len(meanwhile)
    assert all(advanced[tp][0] >= offset for tp, (offset, _) in offsets.items())
    await each_judged_once(deployment, before + meanwhile)


async def test_one_of_two_workers_restarts_without_duplicate_verdicts(deployment: Deployment):
    stays, goes = await deployment.start_core(apart=False, orders=2)
    await deployment.stock(JUMPERS=1000)
    before = await post(deployment, stays, 10)

    stopping = asyncio.create_task(deployment.stop(goes))
    meanwhile = await post(deployment, stays, 10)
    await stopping
    meanwhile += await post(deployment, stays, 10)
    comes = await deployment.start(name="w1", ready=False)
    meanwhile += await post(deployment, stays, 10)

    await decided(deployment, comes, before + meanwhile)
    await decided(deployment, stays, before + meanwhile)
    await each_judged_once(deployment, before + meanwhile)


async def test_all_workers_restart_with_their_state(deployment: Deployment, apart):
    workers = await deployment.start_core(apart=apart)
    await deployment.stock(JUMPERS=1000)
    before = await post(deployment, workers[0], 10)
    outcomes = [await deployment.outcome(workers[0], order_id) for order_id in before]

    for worker in list(deployment.workers):
        await deployment.stop(worker)
    (worker,) = await deployment.start_core(apart=apart)

    assert [await deployment.outcome(worker, order_id) for order_id in before] == outcomes
    after = await post(deployment, worker, 10)
    await decided(deployment, worker, after)
    await each_judged_once(deployment, before + after)


@pytest.mark.parametrize("then", [(), ("validated",)], ids=["the order", "its outcome"])
async def test_a_waiting_request_gets_503_when_the_worker_stops(deployment: Deployment, apart, then):
    (worker,) = await deployment.start_core(apart=apart)
    waiters = [
        asyncio.create_task(deployment.ask(worker, "GET", "/".join(["/v1/orders", str(n), *then]) + "?timeout=60000"))
        for n in range(50)
    ]
    await until(lambda: waiting(worker) >= 50, "all waiting")

    await deployment.stop(worker)
    answers = await asyncio.gather(*waiters)  # without the stop they would be answered after a minute

    assert {(a.status, a.headers["Retry-After"], a.headers["Content-Type"]) for a in answers} == {
        (503, "1", "application/problem+json")
    }


async def test_a_request_waiting_at_another_worker_is_answered_when_the_owner_stops(deployment: Deployment, apart):
    stays, goes = await deployment.start_core(apart=apart, orders=2)
    await deployment.stock(JUMPERS=1000)
    ids = [str(n) for n in range(20)]
    theirs = [order_id for order_id in ids if stays.owner(order_id) == goes.url]
    assert theirs, "both hold some"
    waiters = [
        asyncio.create_task(deployment.ask(stays, "GET", f"/v1/orders/{order_id}/validated?timeout=60000"))
        for order_id in theirs
    ]
    await until(lambda: waiting(goes) >= len(theirs), "all waiting at the owner")

    await deployment.stop(goes)
    for order_id in theirs:
        await deployment.post(stays, **order(id=order_id))

    answers = await asyncio.gather(*waiters)
    assert [(a.status, a.json().get("id"), a.json().get("state")) for a in answers] == [
        (200, order_id, "VALIDATED") for order_id in theirs
    ]


async def test_posts_succeed_while_workers_join_and_leave(deployment: Deployment, apart):
    """Every order answered with 201 exists, whoever owns it. A 503 is repeated."""
    stays, goes = await deployment.start_core(apart=apart, orders=2)
    await deployment.stock(JUMPERS=1000)
    taken, done = [], asyncio.Event()

    async def client(name):
        number = 0
        while not done.is_set():
            number += 1
            body = order(id=f"{name}-{number}")
            assert (await deployment.post(stays, **body))[0] in {200, 201}
            taken.append(body["id"])

    async with asyncio.TaskGroup() as clients:
        for name in "ab":
            clients.create_task(client(name))
        await deployment.stop(goes)
        services = ("orders",) if apart else ()
        await deployment.start(*services, name="w1")
        await deployment.shared(stays, deployment.workers[-1])
        done.set()

    await decided(deployment, stays, taken)
    await each_judged_once(deployment, taken)


def order(**changes):
    return {"customerId": 1, "product": "JUMPERS", "quantity": 1, "price": 1, **changes}


async def post(deployment: Deployment, worker, count):
    """Posts valid orders. Returns their ids."""
    answers = await asyncio.gather(*(deployment.post(worker, **order()) for _ in range(count)))
    assert {status for status, _ in answers} == {201}
    return [body["id"] for _, body in answers]


async def decided(deployment: Deployment, worker, ids):
    outcomes = await asyncio.gather(*(deployment.outcome(worker, order_id) for order_id in ids))
    assert {o["state"] for o in outcomes} <= {"VALIDATED", "FAILED"}


async def each_judged_once(deployment: Deployment, ids):
    verdicts = Counter((v.order_id, v.check_type) for v in await deployment.values(ORDER_VALIDATIONS))
    assert {order_id for order_id, _ in verdicts} == set(ids)
    assert len(verdicts) == CHECKS * len(ids)
    assert set(verdicts.values()) == {1}, "one verdict per check and order"
    states = Counter((o.id, o.state.decided) for o in await deployment.values(ORDERS))
    assert states == Counter((order_id, known) for order_id in ids for known in (False, True))


def waiting(worker):
    watches: Watches = worker._watches
    return len(watches)
