"""Records that the broker no longer has before they were read: told, counted, dead-lettered once, audited."""

import asyncio
import json
import logging
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Physical
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DeleteGroupsRequest
from click.testing import CliRunner
from prometheus_client import REGISTRY, CollectorRegistry

from ecosystem.audit import ViolationKind, audit
from ecosystem.cli.main import main
from ecosystem.clients.dead_letters import records
from ecosystem.embedded.kafka import Cluster
from ecosystem.services import CORE, changelogs, consumed_topics
from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.data_loss.losses import LossCause, LossPath, LossReporter, RecordsLost
from runtime.errors import CommitInDoubt
from runtime.kafka.log_reader import KafkaLogReader
from runtime.loop.checkpoint import ExactlyOnce
from runtime.loop.standby import StandbyReplicas
from runtime.metrics.loop import LoopMetrics
from runtime.model.service import Input, Service, Table
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStores
from schemas.messages import Order, StockLevel
from schemas.topics import FOR_EVER, ORDERS, WAREHOUSE_INVENTORY
from tests.commands import orders
from tests.workers import Deployment, until

IDS = [f"o{n}" for n in range(32)]
CHANGELOG = {"cleanup.policy": "compact"}
LEVELS = Table("keeper-levels", StockLevel)
KEEPER = Service("keeper", (Input(WAREHOUSE_INVENTORY, lambda *_: None),), (), (LEVELS,))


@asynccontextmanager
async def admin(deployment: Deployment):
    client = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def remove(deployment: Deployment, topic, before):
    """DeleteRecords: by partition, up to, not including, an offset."""
    async with admin(deployment) as client:
        await client.delete_records(
            {Physical(deployment.prefix + topic, p): RecordsToDelete(offset) for p, offset in before.items()}
        )


async def made_anew(deployment: Deployment, topic, config, partitions=4):
    """Deletes a topic and makes it again."""
    name = deployment.prefix + topic
    async with admin(deployment) as client:
        await client.delete_topics([name])

        async def made():
            try:
                response = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
            except KafkaError:  # it is still being deleted
                return False
            return all(code == 0 for _, code, *_ in response.topic_errors)

        await until(made, f"{topic} made anew", every=0.1)

        async def led():
            [described] = await client.describe_topics([name])
            found = described["partitions"]
            return not described["error_code"] and len(found) == partitions and all(p["leader"] >= 0 for p in found)

        await until(led, f"{topic} has leaders", every=0.1)


async def forget_group(client, group):
    """Deletes a group, and with it what it has committed, as the broker does when its offsets expire."""
    node = await client.find_coordinator(group)
    response = await client._send_request(DeleteGroupsRequest([group]), node)
    assert all(code == 0 for _, code in response.results), response


async def posted(deployment: Deployment, *ids):
    """Writes orders as an outsider. Returns by partition where they are."""
    places = {}
    for id_ in ids:
        order = Order(id=id_, customer_id=1, product="JUMPERS", quantity=1, price=1)
        sent = await deployment.send_raw(ORDERS.name, id_.encode(), order.to_json())
        places.setdefault(sent.partition, {})[sent.offset] = id_
    return places


async def decided(deployment: Deployment, worker, *ids):
    for id_ in ids:
        await deployment.outcome(worker, id_)


async def read_up_to(deployment: Deployment, group, topic=ORDERS.name):
    """What a group has committed of a topic, by partition."""
    progress = await deployment.progress(group)
    return {tp.partition: offset for tp, (offset, _) in progress.items() if tp.topic == deployment.prefix + topic}


def lacking(before, places):
    """The ranges that are gone once all but the last record of each partition are, and the orders in them."""
    ranges, ids = [], []
    for p, offsets in sorted(places.items()):
        last = max(offsets)
        if before.get(p, 0) < last:
            ranges.append((ORDERS.name, p, before.get(p, 0), last))
            ids += [id_ for offset, id_ in offsets.items() if offset < last]
    assert ids, "of one partition at least two orders"
    return ranges, ids


def counted(topic):
    return REGISTRY.get_sample_value("faust_orders_lost_records_total", {"topic": topic}) or 0


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR and "records lost" in r.getMessage()]


def says(caplog, topic, partition, first, end, path="input"):
    expected = (
        f"topic={topic} partition={partition} first={first} last={end - 1} count={end - first} path={path} cause="
    )
    return any(expected in message for message in told(caplog))


async def gone(deployment: Deployment):
    """The ranges that dead letters stand for, in order."""
    settings = deployment.settings()
    return sorted(
        [
            (letter.id.topic, letter.from_partition, letter.from_offset, letter.lost_until)
            async for letter in records.read_dead_letters(settings, [*consumed_topics(settings), *changelogs(settings)])
            if letter.lost_until is not None
        ]
    )


async def found_lost(deployment: Deployment):
    """What the audit says is lost, and whether that is all that it finds."""
    report = await audit(deployment.settings())
    lost = sorted(v.subject for v in report.violations if v.kind is ViolationKind.RECORDS_LOST)
    assert all(v.subject_type == "partition" for v in report.violations if v.kind is ViolationKind.RECORDS_LOST)
    return lost, report


async def worked(deployment: Deployment, *ids, **changes):
    """A worker has decided these orders and stopped."""
    worker = await deployment.start(**changes)
    await deployment.stock(JUMPERS=1000)
    await posted(deployment, *ids)
    await decided(deployment, worker, *ids)
    await deployment.caught_up(worker.topology.group)
    await deployment.stop(worker)
    return worker.topology.group


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_records_deleted_while_no_worker_ran_are_reported_and_others_processed(
    deployment: Deployment, caplog, guarantee
):
    group = await worked(deployment, *IDS[:8], processing_guarantee=guarantee)
    before = await read_up_to(deployment, group)
    places = await posted(deployment, *IDS[8:16])
    ranges, _ = lacking(before, places)
    await remove(deployment, ORDERS.name, {p: max(offsets) for p, offsets in places.items()})
    count = counted(ORDERS.name)

    worker = await deployment.start(processing_guarantee=guarantee)
    await posted(deployment, *IDS[16:24])
    await decided(deployment, worker, *IDS[16:24])

    assert worker.readiness()["ready"]
    assert len(told(caplog)) == len(ranges)
    assert all(says(caplog, *one) for one in ranges)
    assert counted(ORDERS.name) - count == sum(end - first for *_, first, end in ranges)
    assert await gone(deployment) == ranges
    lost, report = await found_lost(deployment)
    assert lost == [f"orders[{p}]" for _, p, *_ in ranges]
    assert set(report.found) == {ViolationKind.RECORDS_LOST}

    await deployment.stop(worker)
    worker = await deployment.start(processing_guarantee=guarantee)
    assert len(told(caplog)) == len(ranges), "once it was passed over it is not found again"
    assert await gone(deployment) == ranges


async def test_records_deleted_during_a_long_batch_are_reported_and_others_processed(
    deployment: Deployment, caplog, monkeypatch
):
    worker = await deployment.start()
    await deployment.stock(JUMPERS=1000)
    await posted(deployment, *IDS[:8])
    await decided(deployment, worker, *IDS[:8])
    async with worker._member.engine.loop.turn:  # as if the batch took its time: nothing is taken meanwhile
        places = {}
        for ids in (IDS[8:16], IDS[16:24], IDS[24:]):
            for p, offsets in (await posted(deployment, *ids)).items():
                places.setdefault(p, {}).update(offsets)
            await asyncio.sleep(0.3)  # some of it is read ahead, which is not lost
        await remove(deployment, ORDERS.name, {p: max(offsets) for p, offsets in places.items()})
    last = [offsets[max(offsets)] for offsets in places.values()]
    await decided(deployment, worker, *last)

    ranges = await gone(deployment)
    assert ranges
    missing = {id_ for _, p, first, end in ranges for offset, id_ in places[p].items() if first <= offset < end}
    view = await deployment.rows(ORDERS_VIEW)
    assert view.keys() == set(IDS) - missing, "each is decided, or told to be lost"
    assert len(told(caplog)) == len(ranges)
    assert all(says(caplog, *one) for one in ranges)
    await until(lambda: worker.readiness()["ready"], "ready")


async def test_on_lost_records_stop_ends_the_worker_before_it_skips_anything(deployment: Deployment, caplog):
    group = await worked(deployment, *IDS[:8], on_lost_records="stop")
    before = await read_up_to(deployment, group)
    places = await posted(deployment, *IDS[8:16])
    ranges, _ = lacking(before, places)
    await remove(deployment, ORDERS.name, {p: max(offsets) for p, offsets in places.items()})

    for _ in range(2):
        worker = await deployment.start(on_lost_records="stop", ready=False)
        await worker.ended()
        assert isinstance(worker.failure, RecordsLost)
        _, partition, first, end = next(one for one in ranges if one[1] == worker.failure.loss.partition)
        said = str(worker.failure)
        assert f"topic orders partition {partition} offsets {first} to {end - 1}" in said
        assert "retention.ms" in said
        assert "ON_LOST_RECORDS=continue" in said
        assert not worker.readiness()["ready"]
        await deployment.stop(worker)
        assert await read_up_to(deployment, group) == before
        assert await gone(deployment) == []

    worker = await deployment.start(on_lost_records="continue")
    await decided(deployment, worker, *(offsets[max(offsets)] for offsets in places.values()))
    assert await gone(deployment) == ranges
    await deployment.stop(worker)
    worker = await deployment.start(on_lost_records="stop")
    assert worker.failure is None, "it has been passed over"


async def test_a_service_new_to_a_topic_has_lost_nothing(deployment: Deployment, caplog):
    group = await worked(deployment, *IDS[:8])
    await remove(deployment, ORDERS.name, await read_up_to(deployment, group))
    worker = await deployment.start("fulfilment", name="late", on_lost_records="stop")
    assert worker.readiness()["ready"]
    assert told(caplog) == []
    assert await gone(deployment) == []


async def test_another_composition_reports_records_its_predecessor_lost(deployment: Deployment, caplog):
    group = await worked(deployment, *IDS[:8])
    before = await read_up_to(deployment, group)
    places = await posted(deployment, *IDS[8:16])
    ranges, _ = lacking(before, places)
    await remove(deployment, ORDERS.name, {p: max(offsets) for p, offsets in places.items()})

    worker = await deployment.start(*CORE, "fulfilment")
    await decided(deployment, worker, *(offsets[max(offsets)] for offsets in places.values()))
    assert await gone(deployment) == ranges
    assert len(told(caplog)) == len(ranges)


async def test_expired_offsets_are_reported_as_lost_records(deployment: Deployment, caplog):
    group = await worked(deployment, *IDS[:8])
    starts = {p: offset - 1 for p, offset in (await read_up_to(deployment, group)).items() if offset > 1}
    await remove(deployment, ORDERS.name, starts)
    async with admin(deployment) as client:
        await forget_group(client, deployment.prefix + group)

    worker = await deployment.start()
    await posted(deployment, "new")
    await decided(deployment, worker, "new")
    assert await gone(deployment) == [(ORDERS.name, p, 0, start) for p, start in sorted(starts.items())]
    assert all("cause=offsets-gone" in message for message in told(caplog))


@pytest.mark.parametrize("grown", [False, True])
async def test_a_recreated_input_is_read_from_its_start(deployment: Deployment, caplog, grown):
    group = await worked(deployment, *IDS[:8])
    before = await read_up_to(deployment, group)
    await made_anew(deployment, ORDERS.name, FOR_EVER.config())
    ids = [f"n{n}" for n in range(300 if grown else 4)]
    await until(lambda: anew(deployment), "written anew", every=0.2)
    await posted(deployment, *ids)
    worker = await deployment.start()
    await decided(deployment, worker, *ids)

    assert {m.split("cause=")[1].split()[0] for m in told(caplog)} == {LossCause.RECREATED}
    assert await gone(deployment) == [(ORDERS.name, p, 0, 0) for p in sorted(before)]
    assert len(told(caplog)) == len(before)


@pytest.mark.parametrize(("topic", "config"), [(ORDERS.name, FOR_EVER.config()), (ORDERS_VIEW.changelog, CHANGELOG)])
async def test_a_running_worker_reports_a_recreated_topic_and_continues(deployment: Deployment, caplog, topic, config):
    worker = await deployment.start()
    await deployment.stock(JUMPERS=1000)
    await posted(deployment, *IDS[:8])
    await decided(deployment, worker, *IDS[:8])
    await deployment.caught_up(worker.topology.group)

    await made_anew(deployment, topic, config)
    await until(lambda: anew(deployment), "written anew", every=0.2)
    await until(lambda: worker.readiness()["ready"], "ready")
    await decided(deployment, worker, "anew")

    async def all_told():
        return {one[:2] for one in await gone(deployment)} >= {(topic, partition_of(b"anew", 4))}

    await until(all_told, "told", every=0.5)
    assert any(f"topic={topic} " in message and "cause=recreated" in message for message in told(caplog))
    assert worker.failure is None


async def anew(deployment: Deployment):
    """Whether an order could be written: the producer has a topic that is gone in mind for a while."""
    try:
        async with asyncio.timeout(5):
            return await posted(deployment, "anew")
    except (KafkaError, TimeoutError):
        return None


@pytest.mark.parametrize("disk", ["its own", "another"])
async def test_state_with_a_recreated_changelog_is_reported_lost(deployment: Deployment, caplog, disk):
    group = await worked(deployment, *IDS[:8])
    await made_anew(deployment, ORDERS_VIEW.changelog, CHANGELOG)
    name = "w0" if disk == "its own" else "w9"

    worker = await deployment.start(name=name, on_lost_records="stop", ready=False)
    await worker.ended()
    assert isinstance(worker.failure, RecordsLost)
    assert worker.failure.loss.topic == ORDERS_VIEW.changelog
    assert worker.failure.loss.cause is LossCause.RECREATED
    await deployment.stop(worker)
    assert await gone(deployment) == []
    caplog.clear()

    worker = await deployment.start(name=name)
    await posted(deployment, *IDS[8:16])
    await decided(deployment, worker, *IDS[8:16])
    found = await gone(deployment)
    assert {one[:2] for one in found} == {(ORDERS_VIEW.changelog, p) for p in range(4)}
    assert len(told(caplog)) == len(found) == 4
    lost, report = await found_lost(deployment)
    assert lost == [f"{ORDERS_VIEW.changelog}[{p}]" for p in range(4)]
    assert all("see records-lost" in v.text for v in report.violations if v.kind is ViolationKind.VIEW_DIFFERS)

    await deployment.caught_up(group)
    await deployment.stop(worker)
    caplog.clear()
    await deployment.start(name=name, on_lost_records="stop")
    assert told(caplog) == []


@pytest.mark.parametrize("stop", [False, True])
async def test_a_standby_replica_with_a_recreated_changelog_is_reported_lost(deployment: Deployment, caplog, stop):
    topic = deployment.prefix + LEVELS.changelog
    kept, failures = [], []

    async def keep(loss):
        kept.append(loss)

    lost = LossReporter(LoopMetrics(CollectorRegistry()), stop=stop, failed=failures.append, persist=keep)
    broker = KafkaLogReader(deployment.settings(), "keeper")
    confirmed = asyncio.get_running_loop().time
    stores = MemoryStores()

    def follower():
        return StandbyReplicas(Topology((KEEPER,)), stores, broker, LoopMetrics(CollectorRegistry()), confirmed, lost)

    async with admin(deployment) as client:
        await client.create_topics([NewTopic(topic, 1, 1)])
    for key in (b"a", b"b", b"c"):
        await deployment.send_raw(LEVELS.changelog, key, b"1", partitions=1)
    first = follower()
    first.follow({0})
    rows = lambda: stores.open(LEVELS.name, 0).rows  # noqa: E731
    await until(lambda: rows().keys() == {b"a", b"b", b"c"}, "followed")
    await first.stop()

    await made_anew(deployment, LEVELS.changelog, CHANGELOG, partitions=1)
    second = follower()
    second.follow({0})
    try:
        await until(lambda: failures if stop else kept, "told")
        assert (rows().keys() == {b"a", b"b", b"c"}) is stop
        assert "path=standby cause=recreated" in told(caplog)[0]
        assert [loss.path for loss in kept] == ([] if stop else [LossPath.STANDBY])
    finally:
        await second.stop()
        await broker.stop()


async def test_commands_list_lost_records_and_refuse_to_redrive_them(deployment: Deployment, monkeypatch):
    group = await worked(deployment, *IDS[:8])
    before = await read_up_to(deployment, group)
    places = await posted(deployment, *IDS[8:16])
    ranges, _ = lacking(before, places)
    await remove(deployment, ORDERS.name, {p: max(offsets) for p, offsets in places.items()})
    worker = await deployment.start()
    await decided(deployment, worker, *(offsets[max(offsets)] for offsets in places.values()))
    await deployment.stop(worker)
    monkeypatch.setenv("TOPIC_PREFIX", deployment.prefix)

    def run(*arguments):
        return CliRunner().invoke(main, ["dead-letters", *arguments, "--bootstrap", deployment.servers])

    listed = await asyncio.to_thread(run, "list", "--json")
    letters = [json.loads(line) for line in listed.output.splitlines()]
    assert (
        sorted((one["topic"], one["from_partition"], one["from_offset"], one["lost_until"]) for one in letters)
        == ranges
    )
    _, partition, first, end = ranges[0]
    shown = await asyncio.to_thread(run, "show", "orders", f"{partition}@0")
    assert f"lost: offsets from {first} up to, not including, {end}" in shown.output
    assert (
        f"records {first} to {end - 1} were removed (retention or DeleteRecords) before they were read" in shown.output
    )
    code, refused = await orders(deployment, "dead-letters", "redrive", "orders", "--all")
    assert code == 1
    assert "it stands for lost records: there is nothing to write back" in refused
    audited = await asyncio.to_thread(
        CliRunner().invoke, main, ["audit", "--json", "--grace", "0", "--bootstrap", deployment.servers]
    )
    assert audited.exit_code == 1
    report = json.loads(audited.output)
    assert report["violations_by_kind"] == {"records-lost": len(ranges)}
    assert f"orders[{partition}]" in {violation["partition"] for violation in report["violations"]}


async def test_records_deleted_by_retention_are_reported(tmp_path, prefix, caplog):
    with Cluster(tmp_path / "kafka", properties={"log.retention.check.interval.ms": "500"}) as cluster:
        async with Deployment(cluster.bootstrap_servers, prefix, tmp_path) as deployment:
            group = await worked(deployment, *IDS[:8])
            before = await read_up_to(deployment, group)
            places = await posted(deployment, *IDS[8:16])
            await deployment.configure(ORDERS.name, {"retention.ms": "100", "file.delete.delay.ms": "100"})
            tps = {Physical(deployment.prefix + ORDERS.name, p): max(offsets) + 1 for p, offsets in places.items()}
            async with AIOKafkaConsumer(bootstrap_servers=deployment.servers) as consumer:

                async def removed():
                    return await consumer.beginning_offsets(list(tps)) == tps

                await until(removed, "removed by retention", every=0.2)
            await deployment.configure(ORDERS.name, {"retention.ms": "-1"})
            worker = await deployment.start()
            await posted(deployment, *IDS[16:24])
            await decided(deployment, worker, *IDS[16:24])
            ranges = sorted((ORDERS.name, tp.partition, before.get(tp.partition, 0), end) for tp, end in tps.items())
            assert await gone(deployment) == ranges
            assert all(says(caplog, *one) for one in ranges)


async def test_lost_records_are_reported_once_across_a_rebalance_and_a_failed_batch(
    deployment: Deployment, caplog, monkeypatch
):
    group = await worked(deployment, *IDS[:8])
    before = await read_up_to(deployment, group)
    places = await posted(deployment, *IDS[8:16])
    ranges, _ = lacking(before, places)
    await remove(deployment, ORDERS.name, {p: max(offsets) for p, offsets in places.items()})
    failed = Counter()
    commit = ExactlyOnce.commit

    async def fails_at_first(self, writes, membership):
        if failed["batches"] < 2 and any(w.topic == ORDERS.dead_letters for w in writes.outputs):
            failed["batches"] += 1
            raise CommitInDoubt("made up")
        return await commit(self, writes, membership)

    monkeypatch.setattr(ExactlyOnce, "commit", fails_at_first)
    workers = await asyncio.gather(*(deployment.start(name=f"w{n}", ready=False) for n in range(2)))
    await deployment.shared(*workers)
    await decided(deployment, workers[0], *(offsets[max(offsets)] for offsets in places.values()))
    assert failed["batches"] == 2
    assert await gone(deployment) == ranges
    assert len(told(caplog)) >= len(ranges)
