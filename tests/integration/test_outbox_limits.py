"""Messages that their topic does not take, on a real Kafka: set aside, whole, and those behind them go on."""

import asyncio
import contextlib

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from prometheus_client import REGISTRY
from sqlalchemy import text

from ecosystem.clients.dead_letters import records
from ecosystem.clients.dead_letters.redrive import redrive
from runtime.common.deadlines import SharedTimeout
from runtime.kafka.publisher import KafkaPublisher
from runtime.kafka.topics import ensure_topics
from runtime.model.records import EVENT_ID
from schemas.messages import CheckinRejected
from schemas.topics import CHECKIN_REJECTIONS
from tests.integration.test_outbox import outboxes
from tests.workers import PATIENCE_S, Deployment, until

LIMIT = 2000
LARGE = "x" * 3 * LIMIT
PROBE = b"probe"


async def topics(deployment: Deployment, *limited):
    """Settings, with topics of which the `limited` take small messages only."""
    settings = deployment.settings()
    wanted = {name: {} for name in (CHECKIN_REJECTIONS.name, CHECKIN_REJECTIONS.dead_letters)}
    await ensure_topics(settings, wanted | {name: {"max.message.bytes": str(LIMIT)} for name in limited})
    return settings


async def unlimit(deployment: Deployment):
    """The topic takes large messages, and that has come to the broker."""
    await deployment.configure(CHECKIN_REJECTIONS.name, {"max.message.bytes": "100000"})

    async def taken(partition):
        with contextlib.suppress(MessageSizeTooLargeError):
            name = deployment.prefix + CHECKIN_REJECTIONS.name
            return await deployment.producer.send_and_wait(name, LARGE.encode(), PROBE, partition=partition)

    for partition in range(4):
        await until(lambda partition=partition: taken(partition), "a large message is taken")


@pytest.fixture
async def announcer(deployment: Deployment):
    announcer = KafkaPublisher(deployment.settings(), SharedTimeout(PATIENCE_S))
    await announcer.start()
    yield announcer
    await announcer.stop()


async def put(outbox, *messages):
    """One transaction each; returns the event ids."""
    ids = []
    for key, reason in messages:
        async with outbox.database.transaction() as connection:
            message = CheckinRejected(event_id="e", order_no=key, reason=reason)
            ids.append(await outbox.add(connection, CHECKIN_REJECTIONS, message))
    return ids


async def events(deployment: Deployment, topic):
    """The event ids of each key, in order."""
    found = {}
    for record in await deployment.records(topic):
        if record.key == PROBE:
            continue
        ids = found.setdefault(record.key.decode(), [])
        event_id = dict(record.headers)[EVENT_ID].decode()
        if event_id not in ids:
            ids.append(event_id)
    return found


async def relay(outbox, publish):
    async with asyncio.timeout(PATIENCE_S):
        while await outbox.relay_once(publish):
            pass


def counted():
    return REGISTRY.get_sample_value("faust_orders_outbox_dead_letters_total", {"service": "checkin"}) or 0


async def waiting(outbox):
    async with outbox.database.transaction() as connection:
        found = await connection.execute(text("SELECT shard FROM outbox WHERE published_at IS NULL"))
        return [row.shard for row in found]


async def test_a_message_too_large_for_its_topic_is_dead_lettered_and_delays_no_other(
    deployment: Deployment, announcer, database_url
):
    small = await topics(deployment, CHECKIN_REJECTIONS.name)
    before = counted()
    async with outboxes(database_url, 1) as [outbox]:
        ids = await put(outbox, ("o1", "a"), ("o1", LARGE), ("o1", "b"), ("o2", "c"), ("o3", LARGE), ("o3", "d"))
        await relay(outbox, announcer.publish_all)
        assert await waiting(outbox) == []

    assert await events(deployment, "checkin-rejections") == {"o1": [ids[0], ids[2]], "o2": [ids[3]], "o3": [ids[5]]}
    letters = [letter async for letter in records.read_dead_letters(small, [CHECKIN_REJECTIONS.name])]
    assert sorted(dict(letter.headers)[EVENT_ID].decode() for letter in letters) == sorted([ids[1], ids[4]])
    assert all(CheckinRejected.from_json(letter.value).reason == LARGE for letter in letters)
    assert counted() == before + 2

    await unlimit(deployment)
    done = await redrive(small, CHECKIN_REJECTIONS.name, lambda letter: True)
    assert len(done.written) == 2
    assert (await events(deployment, "checkin-rejections"))["o1"] == [ids[0], ids[2], ids[1]]


async def test_many_messages_larger_than_one_batch_are_published_in_order(
    deployment: Deployment, announcer, database_url
):
    await topics(deployment, CHECKIN_REJECTIONS.name)
    before = counted()
    async with outboxes(database_url, 1) as [outbox]:
        ids = await put(outbox, *((f"o{n % 2}", "x" * 300) for n in range(60)))
        await relay(outbox, announcer.publish_all)

    assert await events(deployment, "checkin-rejections") == {"o0": ids[::2], "o1": ids[1::2]}
    assert counted() == before


async def test_a_message_too_large_even_for_dead_letters_stays_in_the_outbox(
    deployment: Deployment, announcer, database_url
):
    await topics(deployment, CHECKIN_REJECTIONS.name, CHECKIN_REJECTIONS.dead_letters)
    before = counted()
    async with outboxes(database_url, 1) as [outbox]:
        ids = await put(outbox, ("o1", LARGE), ("o1", "b"))
        await relay(outbox, announcer.publish_all)
        [shard] = await waiting(outbox)
        assert shard < 0

        assert await events(deployment, "checkin-rejections") == {"o1": [ids[1]]}
        assert counted() == before + 1

        await unlimit(deployment)
        async with outbox.database.transaction() as connection:
            await connection.execute(text("UPDATE outbox SET shard = -1 - shard WHERE shard < 0"))
        await relay(outbox, announcer.publish_all)
        assert await waiting(outbox) == []

    assert await events(deployment, "checkin-rejections") == {"o1": [ids[1], ids[0]]}
