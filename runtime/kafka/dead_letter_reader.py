"""Reads new dead letters of all topics, from positions that its caller keeps."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from runtime.common.clock import elapsed_s
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.log_reader import KafkaLogReader
from runtime.model.dead_letters import REASON_HEADERS
from runtime.model.records import Header, TopicPartition
from schemas.topics import DEAD_LETTERS

REFRESH_S = 30.0
"""Seconds until the topics are listed again: new ones come with new services only."""
MAX_RECORDS = 500
"""Dead letters of one call: its caller makes one batch of them."""
TIMEOUT_S = 20.0
"""Seconds that a call may take. The next one continues."""

Positions = Mapping[str, int]
"""The next offset by `TOPIC/PARTITION`; 0 where it is missing."""


class DeadLetter(NamedTuple):
    """Where a dead letter lies, when it was written, and which service could not process its message."""

    topic: str
    partition: int
    offset: int
    at: datetime
    service: str | None


class DeadLetterReader:
    """Reads the dead letter topics of a deployment. Connects at the first call.

    Arguments:
        settings: broker and topic prefix.
        without: topics whose names begin with this are left out.
    """

    def __init__(self, settings: Settings, without: str) -> None:
        self._settings = settings
        self._without = without
        self._names = KafkaNames(settings.topic_prefix)
        self._log = KafkaLogReader(settings, "dead-letters", MAX_RECORDS, 256 * 1024)
        self._partitions: list[TopicPartition] = []
        self._refresh_at = 0.0

    async def stop(self) -> None:
        """Closes the connection."""
        await self._log.stop()

    async def read(self, positions: Positions | None) -> tuple[list[DeadLetter], Positions]:
        """The dead letters from these positions on, and the next positions. `None`: where the topics end now.

        Raises `KafkaError` and `TimeoutError`.
        """
        async with asyncio.timeout(TIMEOUT_S):
            partitions = await self._known_partitions()
            ends = await self._log.log_ends(partitions, committed=True)
            if positions is None:
                return [], {_name(tp): end for tp, end in ends.items() if end}
            behind = [tp for tp, end in ends.items() if positions.get(_name(tp), 0) < end]
            if not behind:
                return [], positions
            starts = await self._log.log_starts(behind)  # the broker may have removed some
            begin = {tp: max(starts[tp], positions.get(_name(tp), 0)) for tp in behind}
            found: list[DeadLetter] = []
            async with self._log.reading(begin) as reading:
                while not found and any(begin[tp] < ends[tp] for tp in behind):
                    for tp, rows in (await reading.rows()).items():
                        found += [DeadLetter(*tp, r.offset, _time(r.timestamp), _service(r.headers)) for r in rows]
                    begin.update(reading.positions())
            return found, {**positions, **{_name(tp): offset for tp, offset in begin.items() if offset}}

    async def _known_partitions(self) -> list[TopicPartition]:
        if elapsed_s() >= self._refresh_at:
            async with clients.admin(self._settings) as admin:
                wanted = [name for name in await admin.list_topics() if self._is_wanted(name)]
                described = await admin.describe_topics(wanted) if wanted else []
            self._partitions = [
                TopicPartition(self._names.logical(topic["topic"]), partition["partition"])
                for topic in described
                for partition in topic["partitions"]
            ]
            self._refresh_at = elapsed_s() + REFRESH_S
        return self._partitions

    def _is_wanted(self, physical: str) -> bool:
        if not physical.startswith(self._names.prefix) or not physical.endswith(DEAD_LETTERS):
            return False
        return not self._names.logical(physical).startswith(self._without)


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"


def _time(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(max(timestamp_ms, 0) / 1000, UTC)


def _service(headers: Iterable[Header]) -> str | None:
    name = REASON_HEADERS[0]
    found = [value for header, value in headers if header == name and value is not None]
    return found[-1].decode(errors="replace") if found else None  # the last one: the message may have had its own
