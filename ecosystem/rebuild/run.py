"""Builds a second history from the topics, and switches to it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ecosystem.clients.reader import partitions_of
from ecosystem.rebuild.older_records import OlderRecords
from ecosystem.rebuild.successor import NEXT, RebuildError, Successor
from history_service.app import MIGRATIONS
from history_service.maintenance import Maintenance
from history_service.settings import HistorySettings
from history_service.sink import sink
from history_service.stages import TOPIC_STAGES
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.data_loss.losses import LossReporter
from runtime.database.pool import Database
from runtime.metrics.loop import LoopMetrics
from runtime.metrics.sink import SinkMetrics
from runtime.model.records import Write
from runtime.sink.consumer import SINK, KafkaSinkConsumer
from runtime.sink.engine import SinkEngine
from runtime.sink.postgres import PostgresSinkDatabase

log = logging.getLogger(__name__)

GROUP = f"{SINK}-next"
"""Suffix of the group whose members build a second history."""
NEAR = 10_000
"""Records that may wait at a switch: the successor reads them within a second."""
_POLL_S = 0.5
_ANALYSE_S = 3600.0
"""Seconds that the statistics of large tables may take."""

OnProgress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much in all; 0: not known."""


@asynccontextmanager
async def opened(settings: Settings, schema: str | None = None) -> AsyncIterator[Database]:
    """The database of the history, migrated. Raises `DatabaseNotConfigured` and `DatabaseUnavailable`."""
    url = settings.of(HistorySettings).history_database_url
    database = Database("history", url, MIGRATIONS, settings, schema=schema)
    async with database.open():
        await database.ready(settings.database_timeout_s)
        yield database


class Rebuild:
    """Builds a second history. Several processes may do so at once: they share the partitions.

    Arguments:
        settings: broker, prefix, and database of the history.
        topics_only: whether records that the topics no longer have are left behind.
        on_progress: see `OnProgress`.
    """

    def __init__(self, settings: Settings, *, topics_only: bool, on_progress: OnProgress) -> None:
        self._settings = settings
        self._topics_only = topics_only
        self._on_progress = on_progress
        self._most_waiting = 0

    async def run(self, *, switch: bool) -> bool:
        """Builds, and switches if asked to. False if another process has switched meanwhile.

        Raises `RebuildError`, `DatabaseNotConfigured`, `DatabaseUnavailable`, `KafkaError`.
        """
        partitions = len(await partitions_of(self._settings, TOPIC_STAGES))
        if not partitions:
            raise RebuildError(f"There are no topics with the prefix {self._settings.topic_prefix!r}.")
        async with AsyncExitStack() as stack:
            current = await stack.enter_async_context(opened(self._settings))
            successor = Successor(current, TOPIC_STAGES)
            await successor.prepare()
            database = await stack.enter_async_context(opened(self._settings, NEXT))
            await successor.copy_logs()
            maintenance = Maintenance(database, self._settings.of(HistorySettings).history_retention_months, utc_now)
            await stack.enter_async_context(self._reading(database, maintenance))
            try:
                if not await self._near(successor, partitions):
                    return False
                if not self._topics_only:
                    await self._copy_older(current, database, maintenance)
                await self._prepare_tables(database, maintenance)
            except (DBAPIError, asyncpg.PostgresError):  # of tables that another process has moved, perhaps
                if await successor.waiting() is None:
                    return False
                raise
            while switch and not await successor.switch():
                if not await self._near(successor, partitions):
                    return False
                self._on_progress("waiting until the tables are not in use", 0, 0)
                await asyncio.sleep(_POLL_S)
        return True

    @asynccontextmanager
    async def _reading(self, database: Database, maintenance: Maintenance) -> AsyncIterator[None]:
        """Stores records of the topics, as the sink of a worker does."""
        consumer = KafkaSinkConsumer(self._settings, "history", tuple(TOPIC_STAGES), GROUP)
        target = PostgresSinkDatabase(database)
        metrics = CollectorRegistry()
        engine = SinkEngine(
            "history",
            sink(maintenance),
            consumer,
            target,
            _publish_nothing,
            clock=utc_now,
            losses=LossReporter(LoopMetrics(metrics)),
            metrics=SinkMetrics(metrics),
        )
        await consumer.start()
        running = asyncio.create_task(engine.run(), name="rebuild")
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await consumer.stop()
            await target.close()

    async def _near(self, successor: Successor, partitions: int) -> bool:
        """Waits until few records wait. False if another process has switched."""
        while (found := await successor.waiting()) is not None:
            placed, waiting = found
            if placed >= partitions and waiting <= NEAR:
                return True
            self._most_waiting = max(self._most_waiting, waiting)
            self._on_progress("reading the topics", self._most_waiting - waiting, self._most_waiting)
            await asyncio.sleep(_POLL_S)
        return False

    async def _copy_older(self, current: Database, database: Database, maintenance: Maintenance) -> None:
        target = PostgresSinkDatabase(database)

        def show(copied: int) -> None:
            self._on_progress("copying records that the topics no longer have", copied, 0)

        try:
            await OlderRecords(current.connect, target, maintenance, show).copy()
        finally:
            await target.close()

    async def _prepare_tables(self, database: Database, maintenance: Maintenance) -> None:
        """Makes partitions ahead, and statistics, without which the first plans would be poor."""
        self._on_progress("analysing the tables", 0, 0)
        await maintenance.run()
        async with database.transaction(_ANALYSE_S) as connection:
            await connection.execute(text("ANALYZE orders, order_words, records"))


async def _publish_nothing(writes: Sequence[Write]) -> None:
    """Dead letters of rejected records were produced when the records were stored first."""
    for write in writes:
        log.warning("record rejected again, no dead letter is repeated topic=%s", write.topic)
