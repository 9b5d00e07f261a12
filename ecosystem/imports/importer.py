"""Runs an import: each batch of rows is one Kafka transaction of messages, dead letters and the position after them.

So every row is imported once, whenever the process ends. A transactional id per import lets one process at a time
commit: the start of another fences it, and finds out whether its last transaction was committed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, MessageSizeTooLargeError, ProducerFenced

from ecosystem.imports.conversion import Converter, InvalidRow
from ecosystem.imports.errors import ImportStopped, SourceUnavailable
from ecosystem.imports.mapping import Columns, ImportMapping
from ecosystem.imports.positions import POSITIONS, ImportPosition, read_positions
from ecosystem.imports.source import Batch, Row, Source
from runtime.common import failpoints
from runtime.common.clock import utc_now
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topics import ensure_topics, public_topics
from runtime.model.dead_letters import dead_letter
from runtime.model.records import Record, Write

log = logging.getLogger(__name__)

IMPORTED_FROM = "imported-from"
"""Header of imported messages and of dead letters: import and place of the row, as in `payments payments.csv:17`."""

_POLL_S = 0.5
"""Seconds between two looks at a source that has no new rows."""
_PAUSE_S = 2.0
"""Seconds before the next attempt after an error of broker or source."""

OpenSource = Callable[[dict[str, ImportPosition]], Source]
"""Opens the source at the committed positions."""


@dataclass
class Tally:
    """Rows that this process has imported and dead-lettered."""

    imported: int = 0
    rejected: int = 0


class Importer:
    """Imports the rows of a source.

    Arguments:
        settings: broker and topic prefix, with the partitions of the deployment.
        mapping: what becomes of a row.
        open_source: opens the source.
        report: called after each committed batch.
    """

    def __init__(
        self,
        settings: Settings,
        mapping: ImportMapping,
        open_source: OpenSource,
        report: Callable[[Batch, Tally], None] = lambda _batch, _tally: None,
    ) -> None:
        self.tally = Tally()
        self._settings = settings
        self._mapping = mapping
        self._open_source = open_source
        self._report = report
        self._names = KafkaNames(settings.topic_prefix)
        self._converter = Converter(mapping)

    async def run(self, stop: asyncio.Event, *, follow: bool) -> Tally:
        """Imports until the source has no more rows, or with `follow` until `stop` is set.

        With `follow`, broker and source may be away for any time. Raises `ImportStopped`; without `follow` also
        `SourceUnavailable` and `KafkaError`.
        """
        await ensure_topics(self._settings, {**public_topics(), POSITIONS.name: POSITIONS.retention.config()})
        while not (stop.is_set() or await self._attempt(stop, follow=follow)):
            await _wait(stop, _PAUSE_S)
        return self.tally

    async def _attempt(self, stop: asyncio.Event, *, follow: bool) -> bool:
        """Returns whether the import is at its end; if not, an error interrupted it."""
        try:
            await self._session(stop, follow=follow)
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise ImportStopped(f"another process has begun the import {self._mapping.name}") from error
        except (KafkaError, SourceUnavailable) as error:
            if not follow:
                raise
            log.warning("import interrupted, retried import=%s error=%r", self._mapping.name, error)
            return False
        return True

    async def _session(self, stop: asyncio.Event, *, follow: bool) -> None:
        """Imports from the committed positions, until an error leaves open whether a transaction is committed."""
        producer = clients.transactional_producer(self._settings, self._names.group(f"import-{self._mapping.name}"))
        await aiokafka_internals.start_producer(producer)  # fences earlier processes, and ends their transaction
        source = None
        try:
            source = self._open_source(await read_positions(self._settings, self._mapping.name))
            while not stop.is_set():
                batch = await source.poll()
                if batch is not None:
                    await self._commit(producer, batch)
                    await source.acknowledge(batch)
                elif follow:
                    await _wait(stop, _POLL_S)
                else:
                    return
        finally:
            if source is not None:
                await source.close()
            await aiokafka_internals.stop_producer(producer)

    async def _commit(self, producer: AIOKafkaProducer, batch: Batch) -> None:
        position = batch.position
        key = position.source.encode()
        rows = [writes for row in batch.rows if (writes := list(self._writes(row)))]
        rejected = sum(writes[0].topic == self._mapping.target.dead_letters for writes in rows)
        messages = [write for writes in rows for write in writes]
        messages.append(Write(POSITIONS.name, self._partition(key), key, position.to_json()))
        await producer.begin_transaction()
        await asyncio.gather(*[await self._send(producer, write) for write in messages])
        failpoints.reach("import.sent")
        await producer.commit_transaction()
        failpoints.reach("import.committed")
        self.tally.imported += len(rows) - rejected
        self.tally.rejected += rejected
        self._report(batch, self.tally)

    async def _send(self, producer: AIOKafkaProducer, write: Write) -> Awaitable[object]:
        topic = self._names.topic(write.topic)
        try:
            ack: Awaitable[object] = await producer.send(
                topic, write.value, key=write.key, partition=write.partition, headers=list(write.headers)
            )
        except MessageSizeTooLargeError as error:
            raise ImportStopped(f"a row is too large for {topic}: {error}") from error
        return ack

    def _writes(self, row: Row) -> Iterator[Write]:
        """The messages of a row, or its dead letter; none for a change of other columns."""
        topic = self._mapping.target.name
        headers = ((IMPORTED_FROM, f"{self._mapping.name} {row.place}".encode()),)
        try:
            before, after = self._message_before(row), self._message(row)
            gone = self._gone(before, after)
        except InvalidRow as invalid:
            record = Record(topic, self._partition(b""), -1, 0, None, row.raw, headers)
            yield dead_letter(record, f"import {self._mapping.name}", f"{row.place}: {invalid}", utc_now())
            return
        if gone is not None:
            yield Write(topic, self._partition(gone), gone, None, headers)
        if after is not None and after != before:
            key, value = after
            yield Write(topic, self._partition(key), key, value, headers)

    def _message(self, row: Row) -> tuple[bytes, bytes] | None:
        """Key and value of the message of a row; `None` if the row is deleted."""
        if row.error is not None:
            raise InvalidRow(row.error)
        return None if row.columns is None else self._converted(row.columns)

    def _message_before(self, row: Row) -> tuple[bytes, bytes] | None:
        """Key and value of the message of the row before its change; `None` if there was none."""
        with suppress(InvalidRow):
            return None if row.before is None else self._converted(row.before)
        return None

    def _gone(self, before: tuple[bytes, bytes] | None, after: tuple[bytes, bytes] | None) -> bytes | None:
        """The key that a change or deletion has removed. Raises `InvalidRow` where the topic cannot say so."""
        if before is None or (after is not None and after[0] == before[0]):
            return None
        if not self._mapping.target.retention.compacted:
            raise InvalidRow(f"row is deleted, or has another key, which {self._mapping.topic} cannot express")
        return before[0]

    def _converted(self, columns: Columns) -> tuple[bytes, bytes]:
        message = self._converter.convert(columns)
        return self._mapping.target.key(message).encode(), message.to_json()

    def _partition(self, key: bytes) -> int:
        return partition_of(key, self._settings.partitions)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
