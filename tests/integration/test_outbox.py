"""The outbox on a real PostgreSQL: what is committed goes out, once in effect, in the order of its key."""

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import text

from checkin_service.models import OUTBOX
from runtime.common.settings import Settings
from runtime.database.outbox import MAX_BYTES, Outbox
from runtime.database.pool import Database
from runtime.errors import BrokerUnavailable, DatabaseUnavailable
from runtime.model.records import EVENT_ID
from schemas.messages import CheckinRejected
from schemas.topics import CHECKIN_REJECTIONS
from tests.workers import PATIENCE_S, until


class Log:
    """A topic, as far as a relay sees it: written in order, with faults if there are to be any."""

    def __init__(self, faults: random.Random | None = None) -> None:
        self.written = []
        self._faults = faults

    async def publish(self, writes):
        for write in writes:
            if self._faults is not None:
                await asyncio.sleep(self._faults.random() / 500)
                if self._faults.random() < 0.05:
                    raise BrokerUnavailable("in the middle of it")
            self.written.append((write.key.decode(), dict(write.headers)[EVENT_ID].decode()))

    @property
    def read(self):
        """The event ids of each key as a consumer sees them that knows which it has seen."""
        by_key = defaultdict(dict)
        for key, event_id in self.written:
            by_key[key][event_id] = True
        return {key: list(ids) for key, ids in by_key.items()}


@asynccontextmanager
async def outboxes(url, count):
    """So many workers' outboxes on one database."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            settings = Settings(database_timeout_s=PATIENCE_S)
            database = Database("checkin", SecretStr(url), "checkin_service:migrations", settings)
            await stack.enter_async_context(database.open())
            await until(lambda: database.unavailable is None, "reached")  # noqa: B023
            found.append(Outbox(database, OUTBOX, publish_timeout_s=PATIENCE_S))
        yield found


def message(key="o1", reason="why not"):
    return CheckinRejected(event_id="e", order_no=key, reason=reason)


async def put(outbox, key="o1", **more):
    async with outbox.database.transaction() as connection:
        return await outbox.add(connection, CHECKIN_REJECTIONS, message(key), **more)


async def relay_all(outbox, log):
    while await outbox.relay_once(log.publish):
        pass


async def rows(outbox, what="*"):
    async with outbox.database.transaction() as connection:
        return (await connection.execute(text(f"SELECT {what} FROM outbox ORDER BY id"))).all()


async def test_a_message_is_published_unchanged_with_its_headers(database_url):
    written = []

    async def publish(writes):
        written.extend(writes)

    async with outboxes(database_url, 1) as [outbox]:
        event_id = await put(outbox, source="tests")
        assert await outbox.relay_once(publish) == 1
        assert await outbox.relay_once(publish) == 0

    [write] = written
    assert (write.topic, write.key, write.value) == ("checkin-rejections", b"o1", message().to_json())
    assert dict(write.headers) == {"event-id": event_id.encode(), "source": b"tests"}


async def test_a_rolled_back_message_is_never_published(database_url):
    async with outboxes(database_url, 1) as [outbox]:
        async with outbox.database.transaction() as connection:
            await outbox.add(connection, CHECKIN_REJECTIONS, message())
            await connection.rollback()
        log = Log()
        assert await outbox.relay_once(log.publish) == 0


async def test_a_message_too_large_for_kafka_is_rejected_when_added(database_url):
    async with outboxes(database_url, 1) as [outbox], outbox.database.transaction() as connection:
        with pytest.raises(ValueError, match="exceeds"):
            await outbox.add(connection, CHECKIN_REJECTIONS, message(reason="x" * MAX_BYTES))


async def test_a_committed_message_is_relayed_at_once_by_any_worker(database_url, monkeypatch):
    monkeypatch.setattr(Outbox, "POLL_S", 3600.0)
    async with outboxes(database_url, 2) as [writer, relay]:
        log = Log()
        async with relay.relay(log.publish):
            await until(lambda: _listening(writer), "listening")
            for n in range(3):
                await put(writer)
                await until(lambda n=n: len(log.written) == n + 1, "relayed")


async def _listening(outbox):
    async with outbox.database.transaction() as connection:
        return await connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"))


async def test_two_relays_publish_disjoint_messages(database_url):
    async with outboxes(database_url, 2) as [one, other]:
        for n in range(200):
            await put(one, f"o{n % 20}")
        log = Log()
        await asyncio.gather(relay_all(one, log), relay_all(other, log))
        await relay_all(one, log)

        assert len(log.written) == 200, "none twice, as long as nobody fails"


async def test_a_message_sent_but_not_marked_is_sent_again_with_the_same_id(database_url):
    async with outboxes(database_url, 1) as [outbox]:
        ids = [await put(outbox) for _ in range(3)]
        log = Log()

        async def publish_and_lose_the_database(writes):
            await log.publish(writes)
            async with outbox.database.transaction() as connection:
                await connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'")
                )

        with pytest.raises(DatabaseUnavailable):
            await outbox.relay_once(publish_and_lose_the_database)
        # The server tells that it gives the connection up a moment before it lets go of its locks.
        assert await until(lambda: outbox.relay_once(log.publish), "relayed again") == 3

    assert log.read == {"o1": ids}
    assert len(log.written) == 6


@pytest.mark.parametrize("seed", range(3))
async def test_concurrent_writers_and_relays_lose_nothing_and_keep_order_per_key(database_url, seed):
    """Transactions that last, roll back, and overlap; three relays that fail in the middle, and lose their locks."""
    chance = random.Random(seed)
    committed, taken = defaultdict(list), []
    log = Log(faults=chance)

    async def write(outbox):
        number = 0
        while number < 25 or not taken:
            number += 1
            key = f"o{chance.randrange(4)}"
            async with outbox.database.transaction(60) as connection:
                event_id = await outbox.add(connection, CHECKIN_REJECTIONS, message(key))
                await asyncio.sleep(chance.random() / 50)
                if chance.random() < 0.2:
                    await connection.rollback()
                else:
                    # The key's lock is held from `add` to the commit: this is the order of the commits.
                    committed[key].append(event_id)

    async def relay(outbox):
        while True:
            try:
                await outbox.relay_once(log.publish)
            except (DatabaseUnavailable, BrokerUnavailable):
                pass
            await asyncio.sleep(chance.random() / 100)

    async def take_locks_away(outbox):
        """As from a worker that fell silent for too long: it goes on sending when it wakes."""
        while True:
            await asyncio.sleep(0.1)
            lost = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1869968499"
            async with outbox.database.transaction() as connection:
                taken.extend((await connection.execute(text(f"{lost} LIMIT 1"))).all())

    async with outboxes(database_url, 4) as found:
        troubles = [asyncio.create_task(relay(outbox)) for outbox in found[:3]]
        troubles.append(asyncio.create_task(take_locks_away(found[3])))
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(write(found[3]) for _ in range(4)))
        for task in troubles:
            task.cancel()
        ends = await asyncio.gather(*troubles, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}, "none has ended before"
        log._faults = None
        await until(lambda: _all_relayed(found[0], log), "all relayed")

    assert log.read == committed


async def _all_relayed(outbox, log):
    try:
        await relay_all(outbox, log)
    except DatabaseUnavailable:  # the last connection to be taken away
        return False
    return not [row for row in await rows(outbox) if row.published_at is None]


async def test_a_large_backlog_is_published_in_bounded_batches(database_url):
    async with outboxes(database_url, 1) as [outbox]:
        async with outbox.database.transaction() as connection:
            for n in range(40):
                await outbox.add(connection, CHECKIN_REJECTIONS, message(f"o{n % 3}", "x" * 20_000))
        sizes = []

        async def publish(writes):
            sizes.append(sum(len(w.key) + len(w.value) for w in writes))

        while await outbox.relay_once(publish):
            pass

    assert max(sizes) <= MAX_BYTES
    assert sum(sizes) > 40 * 20_000


async def test_published_messages_are_kept_for_the_retention_then_deleted(database_url):
    async with outboxes(database_url, 1) as [outbox]:
        for _ in range(3):
            await put(outbox)
        await outbox.relay_once(Log().publish)
        await put(outbox)
        async with outbox.database.transaction() as connection:
            await connection.execute(text("UPDATE outbox SET published_at = now() - interval '25 hours' WHERE id < 3"))
            await connection.execute(text("UPDATE outbox SET created_at = now() - interval '99 hours'"))
        await outbox.delete_published()

        assert [row.id for row in await rows(outbox)] == [3, 4]


async def test_the_age_of_the_oldest_waiting_message_grows_while_kafka_is_away_and_ends_when_it_is_back(
    database_url, monkeypatch
):
    """As the metrics `faust_orders_outbox_…` show it."""
    monkeypatch.setattr(Outbox, "MEASURE_S", 0.05)
    log, back = Log(), asyncio.Event()

    async def publish(writes):
        await back.wait()
        await log.publish(writes)

    async with outboxes(database_url, 1) as [outbox]:
        assert outbox.waiting_status() is None, "not measured yet"
        await put(outbox, "o1")
        await put(outbox, "o2")
        async with outbox.relay(publish):
            await until(lambda: (status := outbox.waiting_status()) is not None and status.waiting == 2, "measured")
            labels = {"service": "checkin"}
            waiting = REGISTRY.get_sample_value("faust_orders_outbox_waiting", labels)
            first = REGISTRY.get_sample_value("faust_orders_outbox_oldest_waiting_seconds", labels)
            assert waiting == 2
            assert 0 < first < REGISTRY.get_sample_value("faust_orders_outbox_oldest_waiting_seconds", labels)
            back.set()
            await until(lambda: outbox.waiting_status()[1:] == (0, 0.0), "relayed")
        assert REGISTRY.get_sample_value("faust_orders_outbox_waiting", labels) is None, "shown while it relays"
    assert len(log.written) == 2
