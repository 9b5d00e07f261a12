"""The history: a service without processors. Its sink stores every record of every topic in PostgreSQL, each once.

A batch of records is one transaction of the database, which also advances the offsets (`sink_offsets`). Inputs are kept
in the table `inputs1`, not in a topic of that name: the sink fills it in the transaction of the record in `start`. A
generator that wrote both would leave one without the other when it is killed in between.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError

from examples.numbers_pipeline.settings import NumbersSettings
from examples.numbers_pipeline.stages import START, TOPICS, Numbers
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.hosting import ServiceDefinition
from runtime.model.service import Service
from runtime.model.sink import BulkWriter, Sink, SinkRecord

NAME = "numbers-history"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999
"""Milliseconds, the end of the year 9999: Python knows no later time."""

_PATIENCE_S = 10.0
"""Seconds that a command waits for the database."""
_COLUMNS = ("log", "topic", "partition", "offset", "id", "produced_at", "key", "value", "headers")
_KEEP_INPUTS = """
    INSERT INTO inputs1 (id, made_at, numbers) SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::jsonb[])
    ON CONFLICT (id) DO NOTHING
"""
"""An input that is submitted again keeps its first time."""


class StoredInput(NamedTuple):
    """A row of `inputs1`."""

    id: str
    made_at: datetime
    numbers: str


class Rows(NamedTuple):
    """Rows of a batch: of `records`, in the order of `_COLUMNS`, and of `inputs1`."""

    records: Sequence[tuple[object, ...]]
    inputs: Sequence[StoredInput] = ()


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition with its database."""
    own = settings.of(NumbersSettings)
    names = [name for topic in TOPICS for name in (topic.name, topic.dead_letters)]
    return ServiceDefinition(
        Service(name=NAME, inputs=(), outputs=()),
        database=Database("numbers", own.numbers_database_url, "examples.numbers_pipeline:migrations", settings),
        sink=Sink(tuple(names), prepare=prepare, prepare_raw=prepare_raw, write=write, catalogue=TOPICS),
    )


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Any]:
    """An asyncpg connection to the history, once its tables are there. Raises `DatabaseUnavailable`."""
    database = build(settings).database
    assert database is not None
    async with database.open():
        await database.ready(_PATIENCE_S)
        connection = await database.connect()
        try:
            yield connection
        finally:
            await connection.close()


def prepare(records: Sequence[SinkRecord]) -> Rows:
    """Makes rows of records."""
    inputs = [row for record in records if record.topic == START.name and (row := _input(record)) is not None]
    return Rows([_row(record, _id(record)) for record in records], inputs)


def prepare_raw(record: SinkRecord) -> Rows:
    """Makes the row of a record that the database has refused: its bytes alone."""
    return Rows([_row(record, None)])


async def write(writer: BulkWriter, slices: Sequence[Rows]) -> None:
    """Writes rows. Inputs are sorted, so that two workers lock them in the same order."""
    await writer.copy("records", _COLUMNS, [row for rows in slices for row in rows.records])
    if inputs := sorted(row for rows in slices for row in rows.inputs):
        await writer.execute(_KEEP_INPUTS, *map(list, zip(*inputs, strict=True)))


def _row(r: SinkRecord, id_: str | None) -> tuple[object, ...]:
    headers = [part for name, value in r.headers for part in (name.encode(errors="surrogateescape"), value)]
    return (r.log, r.topic, r.partition, r.offset, id_, _time(r), r.key, r.value, headers)


def _id(r: SinkRecord) -> str | None:
    try:
        return r.key.decode() if r.key is not None else None
    except UnicodeDecodeError:
        return None


def _input(r: SinkRecord) -> StoredInput | None:
    """The input of a record; `None` if it is no message: the stage `sort` dead-letters it."""
    try:
        message = Numbers.from_json(r.value or b"")
    except ValidationError:
        return None
    return StoredInput(message.id, _time(r), str(list(message.numbers)))


def _time(r: SinkRecord) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(r.timestamp_ms, 0), _LATEST_MS))
