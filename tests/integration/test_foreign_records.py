"""Whatever other producers write: what can be read is processed, the rest set aside with the remedy, and orders go on.

`tests/foreign/cases.py` has the table, docs/reference/foreign-records.md explains it.
"""

import asyncio
import json
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Physical
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ecosystem.services import CORE
from email_service.state import CUSTOMERS as ADDRESSES
from runtime.errors import KeyNotOwned
from runtime.model.dead_letters import MAX_BYTES, REASON_HEADERS
from runtime.model.records import TopicPartition
from schemas.topics import CATALOGUE, DEAD_LETTERS
from tests.commands import orders
from tests.foreign import franz
from tests.foreign.cases import CASES, DeadLettered, Decided, Elsewhere, Known, Refused, Skipped, Stock
from tests.foreign.console import Console, class_path
from tests.foreign.python_writers import KafkaPython, Librdkafka
from tests.foreign.record import WriteError
from tests.workers import Deployment, until
from validators.inventory.state import STOCK

ROOT = Path(__file__).parents[2]
SERVICES = (*CORE, "fulfilment", "email")
WRITTEN = [name for name, case in CASES.items() if case.record is not None]


class DeadLetters:
    """Those of all topics, by the place of the record they are about."""

    def __init__(self, consumer, prefix):
        self._consumer = consumer
        self._prefix = prefix
        self._found = {}

    async def of(self, topic, place):
        """The letter with its headers as text, or `None`: all that are committed by now are read."""
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        while any([await self._consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    headers = [(name, (text or b"").decode(errors="replace")) for name, text in record.headers]
                    if tuple(name for name, _ in headers[-len(REASON_HEADERS) :]) == REASON_HEADERS:
                        said = dict(headers)
                        self._found[said["topic"], int(said["partition"]), int(said["offset"])] = record, said
        return self._found.get((topic, *place))


class Shop:
    """A worker, the writers, and what became of what they wrote."""

    def __init__(self, deployment: Deployment, worker, letters, made):
        self.deployment = deployment
        self.worker = worker
        self.letters = letters
        self._made = made
        self._writers = {}
        self._orders = 0
        self.set_aside = []
        self.written = set()

    def writer(self, name):
        if name not in self._writers:
            self._writers[name] = self._made[name]()
        return self._writers[name]

    async def goes_on(self):
        """The worker is ready, and an ordinary order is VALIDATED."""
        answer = await self.deployment.ask(self.worker, "GET", "/readyz")
        assert answer.status == 200, answer
        self._orders += 1
        order = {
            "id": f"plain {self._orders}",
            "customerId": self._orders,
            "product": "plain",
            "quantity": 1,
            "price": 1,
        }
        status, said = await self.deployment.post(self.worker, **order)
        assert status == 201, said
        assert (await self.deployment.outcome(self.worker, order["id"]))["state"] == "VALIDATED"

    def row(self, table, key):
        try:
            return self.worker.read(table, key)
        except KeyNotOwned:
            return None


@pytest.fixture(scope="module")
async def shop(kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    async with Deployment(kafka, f"t-{secrets.token_hex(4)}-", folder) as deployment:
        worker = await deployment.start(*SERVICES)
        await deployment.stock(plain=1_000_000)
        topics = [deployment.prefix + topic.dead_letters for topic in CATALOGUE]
        async with AIOKafkaConsumer(
            bootstrap_servers=kafka, isolation_level="read_committed", auto_offset_reset="earliest"
        ) as consumer:
            written = [deployment.prefix + t + DEAD_LETTERS for t in worker.topology.consumed]
            consumer.assign([Physical(t, p) for t in {*written} & {*topics} for p in range(4)])
            made = {
                "librdkafka": lambda: Librdkafka(kafka),
                "kafka-python": lambda: KafkaPython(kafka),
                "franz-go": lambda: franz.Franz(franz.build(folder), kafka),  # type: ignore[attr-defined]
                "console": lambda: Console(class_path(), kafka),
            }
            yield Shop(deployment, worker, DeadLetters(consumer, deployment.prefix), made)


@pytest.mark.parametrize("name", WRITTEN)
async def test_a_foreign_record_is_processed_or_dead_lettered_and_orders_continue(shop, name):
    case, deployment = CASES[name], shop.deployment
    writer = shop.writer(case.writer)
    headers = tuple(
        (n, v and v.replace(b"{group}", shop.worker.topology.group.encode())) for n, v in case.record.headers
    )
    physical = replace(case.record, topic=deployment.prefix + case.record.topic, headers=headers)
    await exists(deployment, physical.topic)
    try:
        if case.config:
            await configure(deployment, physical.topic, case.config)
        await judge(shop, case, lambda: writer.write(physical))
    finally:
        if case.config:
            await configure(deployment, physical.topic, {"cleanup.policy": "compact"})
    shop.written.add(name)
    await shop.goes_on()


async def judge(shop, case, write):
    """Writes, and waits for what the case says becomes of it."""
    key = (case.record.key or b"").decode(errors="replace")
    if isinstance(case.outcome, Refused):
        with pytest.raises(WriteError, match=case.outcome.words):
            await write()
        return
    if case.outcome == Stock(None):  # there must be something to withdraw
        await shop.deployment.stock(**{key: 1})
    place = await write()
    match case.outcome:
        case Stock(count):
            await until(lambda: (row := shop.row(STOCK, key), row and row.count)[1] == count, f"stock {count}")
            assert await shop.letters.of(case.record.topic, place) is None
        case Known():
            await until(lambda: shop.row(ADDRESSES, key), "customer known")
        case Decided():
            assert (await shop.deployment.outcome(shop.worker, key))["state"] in {"VALIDATED", "FAILED"}
        case Skipped():
            tp = TopicPartition(case.record.topic, place.partition)
            if tp in shop.worker._ownership.positions:
                await until(lambda: shop.worker._ownership.positions[tp] > place.offset, "passed over")
            assert await shop.letters.of(case.record.topic, place) is None
            assert shop.row(STOCK, key) is None
        case DeadLettered(words):
            await dead_letter(shop, case, place, words)


async def dead_letter(shop, case, place, words):
    """Waits for the dead letter, and looks at all that it must tell."""
    record, said = await until(lambda: shop.letters.of(case.record.topic, place), "a dead letter", every=0.1)
    assert (said["topic"], int(said["partition"]), int(said["offset"])) == (case.record.topic, *place)
    for word in words:
        assert word in said["error"]
    size = len(case.record.key or b"") + len(case.record.value or b"")
    if size > MAX_BYTES:
        assert int(said["cut"]) == size
    elif "header" not in words:  # else the client could not read the record
        assert record.key == case.record.key
        assert (record.value or None) == (case.record.value or None)
        own = record.headers[: -len(REASON_HEADERS)]
        assert tuple((name.encode(), value) for name, value in own) == case.record.headers
    assert said["service"]
    shop.set_aside.append((case.record.topic, *place))


async def test_the_commands_read_all_foreign_records(shop):
    """Runs last."""
    deployment = shop.deployment
    tail, listed, shown, audited = await asyncio.gather(
        orders(deployment, "tail", "--no-follow"),
        orders(deployment, "dead-letters", "list", "--json"),
        orders(deployment, "dead-letters", "list"),
        orders(deployment, "audit", "--grace", "120"),
    )

    for code, said in (tail, listed, shown, audited):
        assert "Traceback" not in said
        assert code == 0, said[-3000:]
    rows = [json.loads(line) for line in listed[1].splitlines()]
    places = {(row["topic"], row["from_partition"], row["from_offset"]) for row in rows}
    assert set(shop.set_aside) <= places
    if "among the dead letters" in shop.written:
        assert "messages of other producers in dead-letter topics" in shown[1]
    if "partitioner of librdkafka (CRC-32)" in shop.written:
        assert "misplaced: belongs in partition" in tail[1]
        assert "partitioner=murmur2_random" in audited[1]
    row = next(row for row in rows if row["topic"] == shop.set_aside[0][0])
    code, said = await orders(deployment, "dead-letters", "show", row["topic"], f"{row['partition']}@{row['offset']}")
    assert (code, "error: " in said) == (0, True), said


async def test_a_worker_reads_all_foreign_records_again_after_a_restart(shop):
    """Runs after it: the same topics from their beginning, in a group of its own."""
    await shop.deployment.stop(shop.worker)
    shop.worker = await shop.deployment.start(*SERVICES, "portal", name="again")
    await shop.goes_on()


async def exists(deployment: Deployment, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()
    try:
        if topic not in await admin.list_topics():
            await admin.create_topics([NewTopic(topic, 4, 1)])
    finally:
        await admin.close()


async def configure(deployment: Deployment, topic, config):
    """Sets what a topic is configured with, all of it, and waits until the broker goes by it."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()

    async def applied():
        [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        [(*_, entries)] = response.resources
        return config.items() <= {(entry[0], entry[1]) for entry in entries}

    try:
        await admin.alter_configs([resource])
        await until(applied, f"{topic} configured")
    finally:
        await admin.close()


def test_every_case_tested_elsewhere_has_its_test():
    for case in CASES.values():
        if isinstance(case.outcome, Elsewhere):
            path, _, function = case.outcome.test.partition("::")
            assert f"def {function}" in (ROOT / path).read_text()
