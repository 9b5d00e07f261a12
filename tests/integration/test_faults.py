"""What a worker does when it is alone with a broker that refuses, or with nobody to talk to."""

import asyncio

import pytest
from aiokafka.errors import OutOfOrderSequenceNumber

from runtime.errors import BrokerUnavailable, CommitFenced
from runtime.kafka.topics import ensure_topics
from runtime.model.records import Membership
from schemas.messages import Order, OrderState, OrderValidation
from schemas.topics import ORDERS
from tests.workers import PATIENCE_S, Deployment, until

SOON = {"validation_deadline_s": 1.0}


def order(id_: str) -> Order:
    return Order(id=id_, customer_id=1, product="JUMPERS", quantity=1, price=1)


async def finals(deployment: Deployment) -> list[OrderState]:
    return [o.state for o in await deployment.values(ORDERS) if o.state.decided]


async def test_a_worker_unknown_to_the_group_fires_no_timer(deployment: Deployment):
    worker = await deployment.start("orders", **SOON)
    refused, looked = asyncio.Event(), asyncio.Event()
    commit = worker._member.engine.loop._checkpoint.commit

    async def commit_deadlines_unknown(writes, membership):
        if not writes.outputs:  # the order itself, which is taken as ever
            return await commit(writes, membership)
        if refused.is_set():
            await looked.wait()
            return await commit(writes, membership)
        with pytest.raises(CommitFenced):
            await commit(writes, Membership(membership.generation, "nobody-knows-me"))
        refused.set()
        raise CommitFenced("the group does not know this member")

    worker._member.engine.loop._checkpoint.commit = commit_deadlines_unknown
    await deployment.send(ORDERS, order("o1"))
    async with asyncio.timeout(PATIENCE_S):
        await refused.wait()

    assert await finals(deployment) == []
    looked.set()
    body = await deployment.outcome(worker, "o1")  # it has joined anew, and is answered, and decides
    assert body["state"] == "FAILED"
    assert await finals(deployment) == [OrderState.FAILED]


async def test_at_least_once_an_idle_worker_fires_its_timers(deployment: Deployment):
    worker = await deployment.start("orders", processing_guarantee="at_least_once", **SOON)
    for id_ in ("o1", "o2"):
        await deployment.send(ORDERS, order(id_))
        assert (await deployment.outcome(worker, id_))["state"] == "FAILED"

    assert worker.failure is None


async def test_a_producer_with_a_fatal_error_is_replaced(deployment: Deployment, monkeypatch):
    worker = await deployment.start()
    announcer = worker._publisher
    broken = announcer._producer

    async def gap(*_, **__):
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(OutOfOrderSequenceNumber())
        return refused

    monkeypatch.setattr(broken, "send", gap)
    with pytest.raises(BrokerUnavailable):
        await worker.produce(ORDERS, order("o1"))
    await worker.produce(ORDERS, order("o1"))

    assert announcer._producer is not broken


@pytest.mark.parametrize("bound", ["MAX_PENDING", "MAX_PENDING_BYTES"])
async def test_requests_waiting_for_the_broker_are_bounded(deployment: Deployment, monkeypatch, bound):
    worker = await deployment.start()
    acknowledge = asyncio.get_running_loop().create_future()

    async def slow(*_, **__):
        return acknowledge

    monkeypatch.setattr(worker._publisher._producer, "send", slow)
    monkeypatch.setattr(worker._publisher, bound, 1)
    first = asyncio.create_task(worker.produce(ORDERS, order("o1")))
    await asyncio.sleep(0)
    with pytest.raises(BrokerUnavailable, match="already wait for the broker"):
        await worker.produce(ORDERS, order("o2"))
    acknowledge.set_result(None)
    await first
    await worker.produce(ORDERS, order("o2"))


async def test_a_worker_whose_consumer_stopped_fetching_ends_with_the_reason(deployment: Deployment):
    worker = await deployment.start()
    worker._member.consumer._consumer._fetcher._fetch_task.cancel()

    await worker.ended()

    assert "stopped fetching" in str(worker.failure)


async def test_a_worker_cut_off_from_the_broker_is_not_ready(deployment: Deployment, monkeypatch):
    worker = await deployment.start(session_timeout_s=6.0)
    noticed, again = asyncio.Event(), worker._member.engine.rebalance.retry

    def notice(after: float = 0.0) -> None:
        noticed.set()
        again(max(after, 0.5))

    worker._member.engine.rebalance.retry = notice
    with monkeypatch.context() as deaf:
        deaf.setattr("runtime.kafka.aiokafka_internals.seconds_since_fetch", lambda _: float("inf"))
        async with asyncio.timeout(PATIENCE_S):
            await noticed.wait()
        assert not worker.readiness()["ready"]
    await until(lambda: worker.readiness()["ready"], "ready again")


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_batch_too_large_even_for_dead_letters_ends_the_worker(deployment: Deployment, guarantee):
    await ensure_topics(deployment.settings(), {"order-validations.dead-letters": {"max.message.bytes": "100"}})
    worker = await deployment.start(processing_guarantee=guarantee)
    await deployment.send_raw("order-validations", b"y", b"not JSON, and so set aside")

    async with asyncio.timeout(PATIENCE_S):
        await worker.ended()

    assert "MessageSizeTooLarge" in repr(worker.failure)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_an_input_with_an_oversized_output_is_dead_lettered_and_orders_continue(
    deployment: Deployment, guarantee
):
    await ensure_topics(deployment.settings(), {"order-validations": {"max.message.bytes": "400"}})
    worker = await deployment.start(processing_guarantee=guarantee, validation_deadline_s=15)
    await deployment.stock(JUMPERS=10)
    long = order("o1").model_copy(update={"product": "x" * 250})  # the verdict repeats the product
    await deployment.send(ORDERS, long, *[order(f"o{n}") for n in range(2, 8)])

    outcomes = {n: await deployment.outcome(worker, f"o{n}") for n in range(1, 8)}

    assert worker.failure is None
    fate = outcomes.pop(1)
    assert fate["state"] == "FAILED"
    if guarantee == "exactly_once":  # else the aggregator's state was durable before the broker rejected the verdict
        assert fate["reasons"] == ["INVENTORY_CHECK: no verdict within 15 s"]
    assert {o["state"] for o in outcomes.values()} == {"VALIDATED"}
    letters = await deployment.records("inventory-orders-by-product.dead-letters")
    assert {letter.value for letter in letters} == {long.to_json()}
    assert all(b"which accepts" in dict(letter.headers)["error"] for letter in letters)
    if guarantee == "exactly_once":
        assert len(letters) == 1
    else:  # the redo record has the verdict, so the verdict itself is dead-lettered
        verdicts = await deployment.records("order-validations.dead-letters")
        assert {OrderValidation.from_json(letter.value).check_type for letter in verdicts} == {"INVENTORY_CHECK"}
