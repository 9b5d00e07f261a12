"""Reads the positions of sinks, which are in the databases of their services."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from ecosystem.clients.backlog.lags import Reader, ReaderPosition
from runtime.errors import DatabaseNotConfigured
from runtime.hosting import ServiceDefinition
from runtime.model.log_ids import LogIds
from runtime.model.records import Offsets, TopicPartition
from runtime.sink.consumer import SINK
from runtime.sink.placement import LogState, StoredPosition, place

_QUERY = """
    SELECT o.topic, o.partition, o.log, l.log_id, o.next_offset FROM sink_offsets o JOIN sink_logs l ON l.id = o.log
"""


@dataclass(frozen=True, slots=True)
class StoredSinks:
    """What the databases of sinks say.

    Arguments:
        positions: by reader.
        never_started: services whose sinks have read nothing yet.
        unknown: why the positions of a service are unknown.
    """

    positions: Mapping[Reader, StoredPosition] = field(default_factory=dict)
    never_started: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


async def read_sinks(definitions: Sequence[ServiceDefinition]) -> StoredSinks:
    """Reads the positions of the sinks of services. A database that does not answer leaves them unknown."""
    positions: dict[Reader, StoredPosition] = {}
    never: list[str] = []
    unknown: dict[str, str] = {}
    for definition in definitions:
        if definition.sink is None or definition.database is None:
            continue
        service, database = definition.service.name, definition.database
        try:
            async with asyncio.timeout(database.timeout_s):
                connection = await database.connect()
                try:
                    rows = await connection.fetch(_QUERY)
                finally:
                    connection.terminate()
        except asyncpg.UndefinedTableError:
            rows = []
        except DatabaseNotConfigured as error:
            unknown[service] = str(error)
            continue
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
            unknown[service] = f"its database does not answer: {error or type(error).__name__}"
            continue
        if not rows:
            never.append(service)
        for row in rows:
            reader = Reader(service, TopicPartition(row["topic"], row["partition"]))
            positions[reader] = StoredPosition(row["log"], row["log_id"], row["next_offset"])
    return StoredSinks(positions, tuple(never), unknown)


def sink_positions(
    stored: StoredSinks, topics: Mapping[str, Sequence[str]], ids: LogIds, starts: Offsets, ends: Offsets
) -> dict[Reader, ReaderPosition]:
    """Where each sink would read on.

    Arguments:
        stored: what the databases say.
        topics: of each service with a sink.
        ids: log ids of the topics.
        starts: log start offset of each partition.
        ends: last stable offset of each partition.
    """
    result = {}
    for service, names in topics.items():
        if service in stored.unknown or service in stored.never_started:
            continue
        for tp in (tp for tp in ends if tp.topic in names):
            now = LogState(ids.get(tp.topic, ""), starts[tp], ends[tp])
            reader = Reader(service, tp)
            result[reader] = ReaderPosition(service + SINK, place(stored.positions.get(reader), now).next_offset)
    return result
