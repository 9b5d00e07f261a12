"""Services change their workers on the same data: each resumes where it stopped."""

import asyncio
import os
import sys
from math import inf

import pytest
from aiokafka import TopicPartition as Physical
from faust.assignor.partition_assignor import PartitionAssignor

from ecosystem.services import CORE, build
from runtime.errors import CompositionInUse
from runtime.faust_adapter.assignor import Assignor
from runtime.kafka.clients import KafkaNames
from runtime.model.records import CONSUMED_BY, TopicPartition
from runtime.worker.worker import Worker
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS
from tests.recording import Decisions
from tests.workers import Deployment, until

COMPOSED = "+".join(sorted(CORE))
VALIDATORS = len(CORE) - 1
EACH_ORDER = len(CORE) + VALIDATORS + VALIDATORS + len(CORE)
"""CREATED for each service, its copies by another key, verdicts, VALIDATED for each service."""


def orders(*numbers: int) -> list[Order]:
    return [Order(id=f"o{n}", customer_id=n, product=f"P{n % 3}", quantity=1, price=1) for n in numbers]


async def stocked(deployment: Deployment) -> None:
    await deployment.stock(P0=1000, P1=1000, P2=1000)


async def decided(deployment: Deployment, *numbers: int) -> None:
    fronts = [w for w in deployment.workers if "orders" in w.readiness()["services"]]
    for n in numbers:
        await deployment.outcome(fronts[-1], f"o{n}")


async def drained(deployment: Deployment) -> None:
    """Waits until the workers have processed and committed all records."""

    def physical(worker: Worker, tp: TopicPartition) -> Physical:
        return KafkaNames(worker.settings.topic_prefix).physical(tp)

    async def ends(consumer) -> dict[Physical, int]:
        tps = [(w, tp) for w in deployment.workers for tp in w._ownership.partitions]
        return await consumer.end_offsets([physical(w, tp) for w, tp in tps])

    async def done() -> bool:
        before = await ends(consumer)
        reached = [
            w._ownership.running
            and all(at >= before.get(physical(w, tp), inf) for tp, at in w._ownership.positions.items())
            for w in deployment.workers
        ]
        return all(reached) and before == await ends(consumer)  # no record was written, and no partition moved

    async with deployment.consumer() as consumer:
        await until(done, "all read")


async def stop_all(deployment: Deployment) -> None:
    await asyncio.gather(*map(deployment.stop, list(deployment.workers)))


async def refused(deployment: Deployment, *services: str) -> str:
    """What a worker with these services says when it does not start."""
    settings = deployment.settings("refused")
    worker = Worker(build(services, settings), settings)
    try:
        with pytest.raises(CompositionInUse) as error:
            await worker.start()
    finally:
        await worker.stop()
    return str(error.value)


async def each_decided_once(deployment: Deployment, decisions: Decisions, count: int) -> None:
    """Waits until all that is to be decided was, and looks for what was decided again, or announced again."""
    await until(lambda: decisions.total() >= count * EACH_ORDER + 3, "all decided")
    await asyncio.sleep(1)  # for what should not come
    assert decisions.twice() == []
    assert decisions.total() == count * EACH_ORDER + 3
    final = [order.id for order in await deployment.values(ORDERS) if order.state.decided]
    assert sorted(final) == sorted(f"o{n}" for n in range(count))


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_services_are_composed_split_and_composed_again_on_the_same_data(deployment: Deployment, guarantee):
    decisions = Decisions()
    options = {"wrap": decisions.watch, "processing_guarantee": guarantee}

    await deployment.start_core(apart=False, **options)
    await stocked(deployment)
    await deployment.send(ORDERS, *orders(*range(20)))
    await decided(deployment, *range(20))
    await stop_all(deployment)  # before it has committed that it passed over its own messages

    await deployment.send(ORDERS, *orders(*range(20, 30)))
    await deployment.start_core(apart=True, **options)
    await deployment.send(ORDERS, *orders(*range(30, 40)))
    await decided(deployment, *range(40))
    await drained(deployment)
    await stop_all(deployment)

    await deployment.send(ORDERS, *orders(*range(40, 50)))
    await deployment.start_core(apart=False, orders=2, **options)
    await deployment.send(ORDERS, *orders(*range(50, 60)))
    await decided(deployment, *range(60))
    await each_decided_once(deployment, decisions, 60)


async def test_a_composition_that_ran_before_resumes_at_its_successors_offsets(deployment: Deployment):
    decisions = Decisions()
    front, back = ("orders", "details"), ("fraud", "inventory")
    count = 0
    for services in (CORE, front, back, front, back, CORE):
        await deployment.start(*services, wrap=decisions.watch)
        if not count:
            await stocked(deployment)
        if services != back:
            await deployment.send(ORDERS, *orders(count, count + 1))
            count += 2
        await drained(deployment)
        await stop_all(deployment)
    await deployment.start(*back, wrap=decisions.watch)
    await deployment.start(*front, name="front", wrap=decisions.watch)
    await each_decided_once(deployment, decisions, count)


async def test_services_stopped_at_different_offsets_are_composed(deployment: Deployment):
    decisions = Decisions()
    await deployment.start_core(apart=True, wrap=decisions.watch)
    await stocked(deployment)
    await deployment.send(ORDERS, *orders(0))
    await decided(deployment, 0)
    await drained(deployment)
    fraud = next(w for w in deployment.workers if w.readiness()["services"] == ["fraud"])
    await deployment.stop(fraud)
    await deployment.send(ORDERS, *orders(1))
    await drained(deployment)
    await stop_all(deployment)

    await deployment.start(wrap=decisions.watch)
    await decided(deployment, 1)
    await each_decided_once(deployment, decisions, 2)


async def test_a_composition_stopped_with_unprocessed_records_behind_processed_ones_is_split(deployment: Deployment):
    decisions = Decisions()
    await deployment.start(wrap=decisions.watch)
    await stocked(deployment)
    await deployment.send(ORDERS, *orders(0))
    await decided(deployment, 0)
    await drained(deployment)
    await stop_all(deployment)
    (validated,) = [order for order in await deployment.values(ORDERS) if order.state is OrderState.VALIDATED]
    await deployment.send(ORDERS, *orders(1))
    # Processed by all of them, behind a record that none has processed.
    await deployment.producer.send_and_wait(
        deployment.prefix + ORDERS.name,
        validated.to_json(),
        key=b"o0",
        partition=next(r.partition for r in await deployment.records(ORDERS.name) if r.key == b"o1"),
        headers=[(CONSUMED_BY, COMPOSED.encode())],
    )

    await deployment.start_core(apart=True, wrap=decisions.watch)
    await decided(deployment, 1)
    await until(lambda: decisions.total() >= 2 * EACH_ORDER + 3, "all decided")
    await drained(deployment)
    assert decisions.twice() == []
    assert decisions.total() == 2 * EACH_ORDER + 3


async def test_a_service_that_runs_in_one_worker_does_not_start_in_another(deployment: Deployment):
    await deployment.start("fraud", "details")

    said = await refused(deployment, "fraud", "orders")
    assert said.startswith(f"fraud runs already, in group {deployment.prefix}details+fraud with 1 member")
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "STATE_DIR": str(deployment.folder / "apart"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ecosystem.cli", "run", "details", "--port", "0"),
        env=environment,
        stderr=asyncio.subprocess.STDOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 1
    assert b"worker cannot start reason=details runs already" in said
    await deployment.start("fraud", "details", name="w1")  # another worker of the same is welcome
    await deployment.start("orders", "inventory", name="w2")  # so are those who share nothing with it


async def test_a_worker_does_not_start_beside_one_of_an_earlier_version(deployment: Deployment, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(Assignor, "_metadata", PartitionAssignor._metadata)
        await deployment.start("fraud", "details")
        said = await refused(deployment, "fraud", "details")
    assert said.startswith(f"1 member(s) of group {deployment.prefix}details+fraud are of an earlier version")

    await stop_all(deployment)
    await deployment.start("fraud", "details")
    await deployment.start("fraud", "details", name="w1")


async def test_services_that_never_ran_read_from_the_beginning(deployment: Deployment):
    decisions = Decisions()
    # Of another deployment, whose group looks like one of ours: "-details+fraud+inventory+orders".
    await deployment.start(name="nearby", topic_prefix=f"{deployment.prefix}-")
    await deployment.start("details", "orders", wrap=decisions.watch, required_checks="ORDER_DETAILS_CHECK")
    await deployment.send(ORDERS, *orders(*range(10)))
    await decided(deployment, *range(10))

    await deployment.start("fraud", "inventory", name="late", wrap=decisions.watch)
    await drained(deployment)

    assert decisions.twice() == []
    assert {n: sum(1 for s, t, _ in decisions if (s, t) == (n, ORDERS.name)) for n in CORE} == dict.fromkeys(CORE, 20)
