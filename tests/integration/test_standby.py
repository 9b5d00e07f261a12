"""Copies of state on other workers, on a real broker."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import CollectorRegistry

from orders_service.state import ORDERS_VIEW
from runtime.kafka.log_reader import KafkaLogReader
from runtime.loop.standby import StandbyReplicas
from runtime.metrics.loop import LoopMetrics
from runtime.model.service import Input, Service, Table
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStores
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.workers import Deployment, until

LEVELS = Table("keeper-levels", StockLevel)
KEEPER = Service("keeper", (Input(WAREHOUSE_INVENTORY, lambda *_: None),), (), (LEVELS,))


async def orders(deployment: Deployment, worker, *ids):
    """Posts sound orders and waits for their outcomes."""
    for id_ in ids:
        status, _ = await deployment.post(worker, id=id_, customerId=1, product="JUMPERS", quantity=1, price=1)
        assert status == 201
    return [await deployment.outcome(worker, id_) for id_ in ids]


async def followed(*workers, replicas=1):
    """Waits until every partition has its copies, and each was seen to be complete after this was called."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    def complete(worker, table, partition):
        age = worker._member.standbys.age(table, partition)
        return age is not None and age < loop.time() - began

    def done():
        copies = [(worker, p) for worker in workers for p in worker._member.standbys.partitions]
        return len(copies) == 4 * replicas and all(
            complete(worker, table, p) for worker, p in copies for table in worker.topology.tables
        )

    await until(done, "copies complete")


def partitions(worker):
    return set(worker.readiness()["partitions"])


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_standby_replica_is_promoted_without_restoring_anything(deployment: Deployment, guarantee):
    restored = []
    first = await deployment.start(name="w0", processing_guarantee=guarantee)
    second = await deployment.start(name="w1", processing_guarantee=guarantee, restored=restored.append)
    await deployment.shared(first, second)
    await deployment.stock(JUMPERS=1000)
    await orders(deployment, first, *[f"o-{n}" for n in range(40)])
    await followed(first, second)

    for n in range(40):
        copies = [worker.read_stale(ORDERS_VIEW, f"o-{n}") for worker in (first, second)]
        assert [copy is not None and copy.row.decided and copy.age_s < 60 for copy in copies] == [True, True]
    restored.clear()
    await deployment.stop(first)
    await until(lambda: partitions(second) == {0, 1, 2, 3}, "taken over")
    assert sum(restored) < 5
    assert second.readiness()["standby"] == {}
    await orders(deployment, second, "after")


async def test_of_three_workers_the_one_with_the_standby_replica_takes_over(deployment: Deployment):
    restored = []
    workers = [await deployment.start(name=f"w{n}", ready=n > 0, restored=restored.append) for n in range(3)]
    await deployment.shared(*workers)
    await deployment.stock(JUMPERS=1000)
    await orders(deployment, workers[0], *[f"o-{n}" for n in range(30)])
    await followed(*workers)
    restored.clear()

    goes = max(workers, key=lambda w: len(partitions(w)))
    await deployment.stop(goes)
    workers.remove(goes)
    await deployment.shared(*workers)
    await followed(*workers)
    assert sum(restored) < 5
    for n in range(30):
        assert (await deployment.get(workers[0], f"o-{n}", timeout=0))[0] == 200


async def test_a_restarted_worker_is_assigned_the_partitions_on_its_disk(deployment: Deployment):
    restored = []
    first = await deployment.start(name="w0")
    second = await deployment.start(name="w1")
    await deployment.shared(first, second)
    await deployment.stock(JUMPERS=1000)
    await orders(deployment, first, *[f"o-{n}" for n in range(30)])
    await followed(first, second)
    await deployment.stop(second)
    await until(lambda: len(partitions(first)) == 4, "one has all")

    second = await deployment.start(name="w1", ready=False, restored=restored.append)
    await deployment.shared(first, second)
    await followed(first, second)
    assert sum(restored) < 5


@pytest.mark.parametrize(("replicas", "copies"), [(0, 0), (1, 1), (5, 2)])
async def test_standby_replicas_are_as_many_as_settings_and_workers_allow(deployment: Deployment, replicas, copies):
    workers = [await deployment.start(name=f"w{n}", ready=False, standby_replicas=replicas) for n in range(3)]
    await deployment.shared(*workers)
    await followed(*workers, replicas=copies)
    told = {key: [worker.standbys(key) for worker in workers] for key in "abcdefgh"}
    for key, urls in told.items():
        assert [len(each) for each in urls] == [copies] * 3
        assert urls[0] == urls[1] == urls[2]
        assert workers[0].owner(key) not in urls[0]


async def test_a_worker_without_confirmed_membership_answers_no_query_as_owner(deployment: Deployment):
    worker = await deployment.start()
    await deployment.stock(JUMPERS=1000)
    await orders(deployment, worker, "known")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await until(lambda: worker._member.consumer.confirmed() > began, "a heartbeat")
    assert worker._member.consumer.confirmed() <= loop.time()

    session = worker.settings.session_timeout_s
    worker._member.consumer.confirmed = lambda: loop.time() - session - 1  # as if it had been paused
    worker._member.standbys._confirmed = worker._member.consumer.confirmed
    known = await deployment.ask(worker, "GET", "/v1/orders/known/validated?timeout=0")
    unknown = await deployment.ask(worker, "GET", "/v1/orders/unknown?timeout=0")

    assert (known.status, known.headers.get("X-Served-By")) == (200, "standby")
    assert unknown.status == 503, "not 404: it may be known to another owner by now"


async def test_a_standby_replica_follows_a_recreated_changelog(deployment: Deployment):
    broker = KafkaLogReader(deployment.settings(), "keeper")
    confirmed = asyncio.get_running_loop().time
    follower = StandbyReplicas(Topology((KEEPER,)), MemoryStores(), broker, LoopMetrics(CollectorRegistry()), confirmed)
    topic = deployment.prefix + LEVELS.changelog
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
        for key in (b"a", b"b", b"c"):
            await deployment.send_raw(LEVELS.changelog, key, b"1", partitions=1)
        follower.follow({0})
        rows = lambda: follower._stores.open(LEVELS.name, 0).rows  # type: ignore[attr-defined]  # noqa: E731
        await until(lambda: rows().keys() == {b"a", b"b", b"c"}, "followed")

        await admin.delete_topics([topic])
        await until(lambda: gone(admin, topic), "deleted", every=0.2)
        await admin.create_topics([NewTopic(topic, 1, 1)])
        await until(lambda: sent(deployment), "written anew", every=0.2)
        await until(lambda: rows().keys() == {b"z"}, "followed anew")
    finally:
        await follower.stop()
        await broker.stop()
        await admin.close()


async def gone(admin, topic):
    return topic not in await admin.list_topics()


async def sent(deployment: Deployment):
    try:
        async with asyncio.timeout(5):
            await deployment.send_raw(LEVELS.changelog, b"z", b"9", partitions=1)
    except Exception:  # the producer has the old topic in mind for a while
        return False
    return True


async def test_a_worker_without_owner_or_replica_forwards_reads_to_a_standby(deployment: Deployment):
    keys = {"worker_keys": "a-key"}
    workers = [await deployment.start(name=f"w{n}", ready=n > 0, **keys) for n in range(3)]
    await deployment.shared(*workers)
    await deployment.stock(JUMPERS=1000)
    outcomes = {o["id"]: o for o in await orders(deployment, workers[0], *[f"o-{n}" for n in range(20)])}
    await followed(*workers)

    id_ = "o-7"
    (owner,) = [w for w in workers if w.owner(id_) == w.url]
    (standby,) = [w for w in workers if w.url in w.standbys(id_)]
    (third,) = [w for w in workers if w not in {owner, standby}]
    assert third.read_stale(ORDERS_VIEW, id_) is None
    await owner._http.runner.cleanup()  # the worker keeps running, unreachable by HTTP
    for asked in (third, standby):
        answer = await deployment.repeated(asked, "GET", f"/v1/orders/{id_}/validated?timeout=20000")
        assert (answer.status, answer.headers["X-Served-By"]) == (200, "standby")
        assert int(answer.headers["Age"]) < 60
        assert answer.json() == outcomes[id_]
        answer = await deployment.repeated(asked, "GET", f"/v1/orders/{id_}?timeout=0")
        assert (answer.status, answer.json()["state"]) == (200, "VALIDATED")
    unknown = [f"u-{n}" for n in range(20) if third.owner(f"u-{n}") == owner.url]
    answers = [await deployment.ask(third, "GET", f"/v1/orders/{id_}?timeout=100") for id_ in unknown[:2]]
    assert {(a.status, a.headers["Retry-After"]) for a in answers} == {(503, "1")}
