"""Reads the history: the records of an input, inputs that have finished, and the time of each stage."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ecosystem.replay.records import Mark, Place, mark_of
from examples.numbers_pipeline.stages import FINISH, STAGES, START, Numbers
from runtime.model.records import Header

WHOLE = "start to finish"
"""Name of the way through all stages, beside the names of the stages."""

_STEPS = (
    *((stage.name, stage.inputs[0].topic.name, stage.outputs[0].name) for stage in STAGES),
    (WHOLE, START.name, FINISH.name),
)
"""Name, first topic and last topic."""

_RECORDS = """
    SELECT topic, partition, "offset", produced_at, key, value, headers FROM records
    WHERE id = $1 ORDER BY produced_at, array_position($2::text[], topic), "offset"
"""
_FINISHED = """
    SELECT r.partition, r."offset", r.id, i.numbers IS NULL AND r.stored_at > now() - interval '5 seconds' AS early,
        i.numbers, r.value, extract(epoch FROM r.produced_at - i.made_at)::float8 AS seconds, r.headers
    FROM unnest($2::int[], $3::bigint[]) AS seen (partition, next_offset)
    JOIN records r ON r.topic = $1 AND r.partition = seen.partition AND r."offset" >= seen.next_offset
    LEFT JOIN inputs1 i ON i.id = r.id
    ORDER BY r.produced_at, r."offset" LIMIT 1000
"""
_ENDS = """SELECT partition, max("offset") + 1 FROM records WHERE topic = $1 GROUP BY partition"""
_TIMINGS = """
    WITH reached AS (
        SELECT id, topic, min(produced_at) AS at FROM records JOIN inputs1 USING (id)
        WHERE $4::timestamptz IS NULL OR made_at >= $4 GROUP BY id, topic
    ), took AS (
        SELECT step.number, step.name, extract(epoch FROM b.at - a.at)::float8 AS seconds
        FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS step (name, first, last, number)
        JOIN reached a ON a.topic = step.first JOIN reached b ON b.topic = step.last AND b.id = a.id
    )
    SELECT name, count(*), percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY seconds), max(seconds)
    FROM took GROUP BY number, name ORDER BY number
"""
"""The first record of an input in each topic counts, so that inputs that are submitted again change no times."""


class StoredRecord(NamedTuple):
    """A record as it is stored."""

    topic: str
    partition: int
    offset: int
    produced_at: datetime
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]

    @property
    def place(self) -> Place:
        """Where it lies."""
        return Place(self.topic, self.partition, self.offset)

    @property
    def mark(self) -> Mark | None:
        """Which record was submitted again, if this one comes of it."""
        return mark_of(self.headers)


class FinishedInput(NamedTuple):
    """A record of the topic `finish`, with its input if that is known."""

    id: str
    numbers: str | None
    result: bytes
    seconds: float | None
    mark: Mark | None


class StageTiming(NamedTuple):
    """How long inputs took through a stage, in seconds."""

    name: str
    count: int
    p50: float
    p90: float
    p99: float
    longest: float


class Follower:
    """Finds inputs that have finished, each once.

    Arguments:
        connection: an asyncpg connection to the history.
        partitions: of each topic.
    """

    def __init__(self, connection: Any, partitions: int) -> None:
        self._connection = connection
        self._next = dict.fromkeys(range(partitions), 0)
        """Next offset to look at, by partition: the sink stores the records of a partition in order."""

    async def skip(self) -> None:
        """Leaves out what has finished until now."""
        self._next |= {row[0]: row[1] for row in await self._connection.fetch(_ENDS, FINISH.name)}

    async def poll(self) -> list[FinishedInput]:
        """Returns what has finished since the last call."""
        found, early = [], set()
        for row in await self._connection.fetch(_FINISHED, FINISH.name, list(self._next), list(self._next.values())):
            if row["early"]:
                early.add(row["partition"])  # its input is being stored: it has another partition, or transaction
            if row["partition"] not in early:
                self._next[row["partition"]] = row["offset"] + 1
                mark = mark_of(_pairs(row["headers"]))
                found.append(FinishedInput(row["id"], row["numbers"], row["value"], row["seconds"], mark))
        return found


async def records_of(connection: Any, id_: str) -> list[StoredRecord]:
    """Returns the records of an input, by time."""
    topics = [START.name, *(last for _, _, last in _STEPS[:-1])]
    rows = await connection.fetch(_RECORDS, id_, topics)
    return [StoredRecord(*row[:-1], headers=_pairs(row["headers"])) for row in rows]


async def timings(connection: Any, since: datetime | None) -> list[StageTiming]:
    """Returns the times of the inputs that were made since a time; `None`: of all."""
    rows = await connection.fetch(_TIMINGS, *map(list, zip(*_STEPS, strict=True)), since)
    return [StageTiming(name, count, *quantiles, longest) for name, count, quantiles, longest in rows]


def shown(value: bytes | None) -> str:
    """The numbers of a record, for people."""
    try:
        return " ".join(map(str, Numbers.from_json(value or b"").numbers))
    except ValueError:
        return "no message"


def _pairs(flat: Sequence[bytes | None]) -> list[Header]:
    return [
        ((name or b"").decode(errors="surrogateescape"), value)
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    ]
