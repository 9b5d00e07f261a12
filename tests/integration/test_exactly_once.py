"""Each message is decided once, and what others can read is exactly what was decided."""

import asyncio

import pytest

from ecosystem.services import CORE
from runtime.kafka.transactional_sender import TransactionalSender
from runtime.model.records import CONSUMED_BY
from schemas.messages import Order, OrderState
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.recording import Decisions
from tests.workers import PATIENCE_S, Deployment, until

PRODUCTS = 7
"""Each has a stock level, which the inventory service processes once."""
MESSAGES_PER_ORDER = 2 * len(CORE) + 2 * (len(CORE) - 1)
"""CREATED in four services, three repartition records, three verdicts, VALIDATED in four services."""


def orders(count: int) -> list[Order]:
    return [Order(id=f"o{n}", customer_id=n, product=f"P{n % PRODUCTS}", quantity=1, price=1) for n in range(count)]


async def stocked(deployment: Deployment) -> None:
    await deployment.stock(**{f"P{n}": 1000 for n in range(PRODUCTS)})


async def decided(deployment: Deployment, *ids: str) -> None:
    """Waits until every one of these orders has come to its final state, wherever that is known."""
    for id_ in ids:
        await deployment.outcome(deployment.workers[0], id_)


async def final_states(deployment: Deployment) -> dict[str, list[OrderState]]:
    """The decided states announced for each order."""
    result: dict[str, list[OrderState]] = {}
    for order in await deployment.values(ORDERS):
        if order.state.decided:
            result.setdefault(order.id, []).append(order.state)
    return result


async def test_a_fused_record_is_written_with_its_marker_and_not_processed_again(deployment: Deployment):
    decisions = Decisions()
    worker = await deployment.start(wrap=decisions.watch)
    await stocked(deployment)

    await deployment.send(ORDERS, *orders(20))
    await decided(deployment, *[f"o{n}" for n in range(20)])
    await deployment.caught_up(worker.topology.group)

    assert decisions.twice() == []
    verdicts = await deployment.records(ORDER_VALIDATIONS.name)
    assert len(verdicts) == 60
    assert {dict(r.headers)[CONSUMED_BY] for r in verdicts} == {worker.topology.group.encode()}
    assert await deployment.records("inventory-orders-by-product") == []  # internal: never had to be written
    assert decisions.total() == 20 * MESSAGES_PER_ORDER + PRODUCTS


async def test_two_workers_process_each_message_once(deployment: Deployment):
    decisions = Decisions()
    first = await deployment.start(name="w0", wrap=decisions.watch)
    second = await deployment.start(name="w1", wrap=decisions.watch)
    await deployment.shared(first, second)
    await stocked(deployment)

    await deployment.send(ORDERS, *orders(60))
    await decided(deployment, *[f"o{n}" for n in range(60)])
    await deployment.caught_up(first.topology.group)

    assert decisions.twice() == []
    assert decisions.total() == 60 * MESSAGES_PER_ORDER + PRODUCTS
    assert {id_: states for id_, states in (await final_states(deployment)).items() if len(states) != 1} == {}
    by_broker = await deployment.records("inventory-orders-by-product")
    assert by_broker, "what is not local goes by the broker"
    assert CONSUMED_BY not in {name for record in by_broker for name, _ in record.headers}


async def test_a_crash_between_commit_and_apply_loses_and_repeats_nothing(deployment: Deployment):
    decisions = Decisions()
    worker = await deployment.start(wrap=decisions.watch)
    await stocked(deployment)
    await deployment.caught_up(worker.topology.group)

    def crash(*_: object) -> None:
        raise SystemError("crash between commit and apply")

    worker._member.engine.loop._apply = crash
    stocks = decisions.total()
    await deployment.send(ORDERS, *orders(10))
    async with asyncio.timeout(PATIENCE_S):
        await worker.ended()
    await deployment.stop(worker)
    before = decisions.total()
    worker = await deployment.start(wrap=decisions.watch)
    await decided(deployment, *[f"o{n}" for n in range(10)])
    await deployment.caught_up(worker.topology.group)

    assert before > stocks, "something was decided before the crash"
    assert decisions.twice() == []
    assert set(map(len, (await final_states(deployment)).values())) == {1}


async def test_a_batch_of_a_fenced_member_stays_invisible(deployment: Deployment, monkeypatch):
    short = {"session_timeout_s": 6.0}  # half of it is how long the batch holds up who takes over
    first = await deployment.start(name="w0", **short)
    await stocked(deployment)
    generation = first._member.engine.rebalance._membership.generation
    reached, released = asyncio.Event(), asyncio.Event()
    commit_offsets = TransactionalSender._commit_offsets

    async def hold(self, *args):
        """The offsets of the batch are not sent before another member has the partitions. Its records are."""
        if not released.is_set():
            reached.set()
            await released.wait()
        await commit_offsets(self, *args)

    monkeypatch.setattr(TransactionalSender, "_commit_offsets", hold)
    await deployment.send(ORDERS, *orders(1))
    await reached.wait()

    async def written() -> bool:
        records = await deployment.records(ORDERS.name, committed=False)
        return any([b"VALIDATED" in (r.value or b"") for r in records])

    await until(written, "everything of the open batch is written")
    second = await deployment.start(name="w1", ready=False, **short)
    await until(
        lambda: first._member.engine.rebalance._membership.generation > generation,
        "the partitions are being taken over",
    )
    visible = [r for r in await deployment.records(ORDERS.name) if b"VALIDATED" in (r.value or b"")]
    released.set()
    await deployment.shared(first, second)
    await decided(deployment, "o0")

    assert visible == [], "what was written was not visible"
    assert await final_states(deployment) == {"o0": [OrderState.VALIDATED]}
    everything = [r for r in await deployment.records(ORDERS.name, committed=False) if b"VALIDATED" in (r.value or b"")]
    assert len(everything) >= 1


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_restarted_worker_restores_nothing_with_its_state_directory(deployment: Deployment, guarantee):
    worker = await deployment.start(processing_guarantee=guarantee)
    await stocked(deployment)
    await deployment.send(ORDERS, *orders(10))
    await decided(deployment, *[f"o{n}" for n in range(10)])
    await deployment.caught_up(worker.topology.group)
    await deployment.stop(worker)

    restored: list[int] = []
    worker = await deployment.start(processing_guarantee=guarantee, restored=restored.append)
    await decided(deployment, *[f"o{n}" for n in range(10)])

    assert sum(restored) == 0
    assert set(map(len, (await final_states(deployment)).values())) == {1}


async def test_a_lost_state_directory_is_restored_from_the_changelogs(deployment: Deployment):
    worker = await deployment.start()
    await stocked(deployment)
    await deployment.send(ORDERS, *orders(10))
    await decided(deployment, *[f"o{n}" for n in range(10)])
    await deployment.stop(worker)

    worker = await deployment.start(name="another-disk")

    for n in range(10):
        assert (await deployment.get(worker, f"o{n}", timeout=0))[1]["state"] == "VALIDATED"
