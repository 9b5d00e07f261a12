"""Copies of the topics that an audit reads. A test changes the copy and writes it to topics of another prefix."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaProducer

from ecosystem.audit.facts import Fact, split_key
from ecosystem.audit.reading.fact_store import FactStore
from ecosystem.audit.report import Report, Rules
from ecosystem.audit.run import judge
from ecosystem.audit.sources import CORE, MODELS, TOPICS, Source
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka.topics import ensure_topics
from schemas.messages import BuiltInCheck
from tests.workers import Deployment

PARTITIONS = 4
NOTIFIED = ("shop@example.org",)
"""Recipients of e-mails about products."""
_MODELS = {TOPICS[source]: MODELS[source] for source in TOPICS}


@dataclass(frozen=True)
class StoredRecord:
    """A record of a topic, at the end of its partition unless it replaces another."""

    topic: str
    partition: int
    time_ms: int
    key: bytes
    value: bytes | None

    @property
    def message(self) -> Any:
        return None if self.value is None else _MODELS[self.topic].from_json(self.value)

    def with_fields(self, **changes: Any) -> "StoredRecord":
        """A copy of the record with other values of these message fields."""
        return replace(self, value=self.message.model_copy(update=changes).to_json())


class Logs:
    """All records of the topics that an audit reads, in the order of their offsets."""

    def __init__(self, records: Iterable[StoredRecord]) -> None:
        self.records = list(records)

    def of(self, source: Source, key: str) -> list[StoredRecord]:
        return [r for r in self.records if r.topic == TOPICS[source] and r.key == key.encode()]

    def add(self, *records: StoredRecord) -> None:
        """Appends the records to their partitions."""
        self.records += records

    def drop(self, *records: StoredRecord) -> None:
        for record in records:
            self.records.remove(record)

    def change(self, record: StoredRecord, **changes: Any) -> None:
        """Replaces a record, at its offset, by one with other field values."""
        self.records[self.records.index(record)] = record.with_fields(**changes)

    def copy(self) -> "Logs":
        return Logs(self.records)


async def read(deployment: Deployment) -> Logs:
    """Reads all topics. No worker may be writing to them."""
    found = [await deployment.records(name) for name in TOPICS.values()]
    return Logs(
        StoredRecord(name, r.partition, r.timestamp, r.key, r.value)
        for name, records in zip(TOPICS.values(), found, strict=True)
        for r in records
    )


async def write(servers: str, records: Iterable[StoredRecord], names: Iterable[str] = CORE.values()) -> Settings:
    """Writes the records of the topics `names` under a new topic prefix. Returns settings with that prefix."""
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix=f"t-{secrets.token_hex(4)}-")
    wanted = frozenset(names)
    records = (record for record in records if record.topic in wanted)
    # Records may have old timestamps: with the default retention the broker would delete them.
    await ensure_topics(settings, {name: {"retention.ms": "-1"} for name in wanted})
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=5) as producer:
        for chunk in _chunks(records, 20_000):
            acks = [
                await producer.send(
                    settings.topic_prefix + r.topic, r.value, r.key, partition=r.partition, timestamp_ms=r.time_ms
                )
                for r in chunk
            ]
            await asyncio.gather(*acks)
    return settings


async def audit_in_memory(logs: "Logs", **rules: Any) -> Report:
    """Audits the records without a broker. `rules` replace fields of `Rules`."""
    sources = {name: source for source, name in TOPICS.items()}
    offsets: Counter[tuple[str, int]] = Counter()
    report = Report()
    with FactStore() as facts:
        for r in logs.records:
            offset, source = offsets[r.topic, r.partition], sources[r.topic]
            offsets[r.topic, r.partition] += 1
            key, about = split_key(source, r.key, r.value)
            facts.add(key, Fact(source, r.partition, offset, r.time_ms, False, r.value, about))
        defaults = {
            "required": frozenset(BuiltInCheck),
            "deadline": timedelta(seconds=60),
            "grace": timedelta(0),
            "exactly_once": True,
            "now_ms": int(time.time() * 1000),
            "seen": frozenset(TOPICS),
            "notified": NOTIFIED,
        }
        await judge(facts, Rules(**{**defaults, **rules}), report)
    return report


def stored(source: Source, key: str, message: Any, time_ms: int, by: str | None = None) -> StoredRecord:
    """Makes a record. `by` is the partition key if it differs from the record key."""
    partition = partition_of((by or key).encode(), PARTITIONS)
    return StoredRecord(
        TOPICS[source], partition, time_ms, key.encode(), None if message is None else message.to_json()
    )


def _chunks(records: Iterable[StoredRecord], size: int) -> Iterator[list[StoredRecord]]:
    chunk: list[StoredRecord] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    yield chunk


def copy(record, **changes):
    return record.message.model_copy(update=changes)


def post_of(logs, id_):
    return logs.of(Source.ORDERS, id_)[0]


def final_of(logs, id_):
    return logs.of(Source.ORDERS, id_)[-1]
