"""A feed on a real broker: where it begins, when it reads, and how it thins out what comes too fast."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from runtime.kafka import clients as kafka_clients
from runtime.observation import feed as feeds
from runtime.observation.feed import Feed, Stream
from runtime.observation.sampling import Sampling
from tests.workers import until


class Collector:
    """An observer that keeps values by topic and partition."""

    def __init__(self):
        self.restarts = 0
        self.restart()

    def restart(self):
        self.restarts += 1
        self.seen = {}
        self.shares = []
        self.skipped = []
        self.narrowed = 0

    def observe(self, topic, records, share):
        self.shares.append(share)
        self.seen.setdefault((topic, records[0].partition), []).extend(int(r.value) for r in records)

    def skip(self, from_ms, to_ms):
        self.skipped.append((from_ms, to_ms))

    def narrow(self):
        self.narrowed += 1

    def values(self, topic):
        return sorted(v for (name, _), values in self.seen.items() if name == topic for v in values)


async def create(deployment, *topics):
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(deployment.prefix + topic, 4, 1) for topic in topics])
    finally:
        await admin.close()


async def write(deployment, topic, values, *, ago_s=0):
    sent = [
        await deployment.producer.send(
            deployment.prefix + topic, b"%d" % v, partition=v % 4, timestamp_ms=int((time.time() - ago_s) * 1000)
        )
        for v in values
    ]
    await asyncio.gather(*sent)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(Feed, "IDLE_S", 0.2)
    monkeypatch.setattr(Feed, "TICK_S", 0.05)
    monkeypatch.setattr(feeds, "_TOPICS_S", 0.5)
    monkeypatch.setattr(feeds, "_LATEST_PAUSE_S", 0.05)


async def test_a_feed_begins_in_the_past_and_reads_while_it_is_viewed(deployment, quick):
    await create(deployment, "news", "state", "other")
    await write(deployment, "news", range(8), ago_s=600)
    await write(deployment, "news", range(8, 16), ago_s=5)
    await write(deployment, "state", range(100), ago_s=600)
    seen = Collector()
    streams = (
        Stream(lambda topic: topic in {"news", "later"}, 100, 60, sampled=True),
        Stream(lambda topic: topic == "state", 3, latest=True, gather_s=0.5),
    )
    feed = Feed(deployment.settings(), streams, seen)
    async with feed.open():
        assert not feed.watched
        with feed.viewing():
            assert not any(feed.has_past(stream) for stream in streams)
            for stream, topic, number in ((streams[0], "news", 8), (streams[1], "state", 12)):
                await until(lambda s=stream: feed.has_past(s), "the past")
                assert len(seen.values(topic)) == number
            await until(lambda: seen.values("news") == [*range(8, 16)], "the last minute")
            await until(lambda: len(seen.values("state")) == 12, "three records of each partition")
            await write(deployment, "news", [16, 17])
            await until(lambda: seen.values("news") == [*range(8, 18)], "what comes")
            await create(deployment, "later")
            await write(deployment, "later", [1])
            await until(lambda: seen.values("later") == [1], "a new topic")
            assert feed.unavailable is None
            assert not any(name == "other" for name, _ in seen.seen)
            for _ in range(3):
                await feed.tick()
        await until(lambda: not feed.watched, "nothing is read any more")
        assert seen.seen == {}
        with feed.viewing():
            await until(lambda: seen.values("news") == [*range(8, 18)], "it begins anew")


async def test_a_feed_reads_fewer_partitions_while_too_much_comes(deployment, quick):
    await create(deployment, "news")
    seen = Collector()
    feed = Feed(deployment.settings(), (Stream(lambda topic: topic == "news", 100, 60, sampled=True),), seen)
    feed.sampling = Sampling(4, budget=100)
    async with feed.open():
        with feed.viewing():
            flooding = asyncio.create_task(flood(deployment))
            await until(lambda: feed.sampling.followed == 1, "one partition of four")
            assert seen.narrowed in {1, 2}
            seen.restart()
            await until(lambda: len(seen.shares) > 10, "records of the sample")
            assert {partition for _, partition in seen.seen} == {0}
            assert set(seen.shares) == {0.25}
            flooding.cancel()
            await until(lambda: feed.sampling.followed == 4, "all partitions")
            seen.restart()

            async def all_seen():  # what is written before the feed has gone to the ends is left out
                await write(deployment, "news", range(4))
                return {partition for _, partition in seen.seen} == {0, 1, 2, 3}

            await until(all_seen, "records of all partitions", every=0.1)


async def test_nothing_is_done_while_nobody_watches(deployment, quick, monkeypatch):
    """Neither a consumer nor an admin client before the first viewer, and none that is left after the last one."""
    await create(deployment, "news")
    clients = []

    def kept(make):
        def made(*args, **options):
            clients.append(make(*args, **options))
            return clients[-1]

        return made

    for name in ("standalone_consumer", "new_admin"):
        monkeypatch.setattr(kafka_clients, name, kept(getattr(kafka_clients, name)))
    feed = Feed(deployment.settings(), (Stream(lambda topic: topic == "news", 100),), Collector())
    async with feed.open():
        assert not clients
        with feed.viewing():
            await until(lambda: feed.has_past(feed._streams[0]), "the feed to read")
            assert clients
        await until(lambda: not feed.watched, "the feed to end")
        consumers = [client for client in clients if isinstance(client, AIOKafkaConsumer)]
        assert consumers
        assert all(consumer._closed for consumer in consumers)
        assert not any("feed" in task.get_name() for task in asyncio.all_tasks())


async def flood(deployment):
    number = 0
    while True:
        await write(deployment, "news", range(number, number + 100))
        number += 100
        await asyncio.sleep(0.05)
