"""The topics of a deployment as a test may copy, doctor and write them: by hand, without any worker."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaProducer

from ecosystem.audit.facts import CORE, MODELS, TOPICS, Fact, Source, placed
from ecosystem.audit.reading.sort import Sorted
from ecosystem.audit.report import Report, Rules
from ecosystem.audit.run import judge
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka.topics import ensure_topics
from schemas.messages import CheckType
from tests.workers import Deployment

PARTITIONS = 4
NOTIFIED = ("shop@example.org",)
"""Who is written to about products."""
_MODELS = {TOPICS[source]: MODELS[source] for source in TOPICS}


@dataclass(frozen=True)
class Kept:
    """A record as it is copied."""

    topic: str
    partition: int
    time_ms: int
    key: bytes
    value: bytes | None

    @property
    def message(self) -> Any:
        return None if self.value is None else _MODELS[self.topic].from_json(self.value)

    def saying(self, **changes: Any) -> "Kept":
        """The same with these fields changed."""
        return replace(self, value=self.message.model_copy(update=changes).to_json())


class Logs:
    """All records of the topics an audit reads."""

    def __init__(self, records: Iterable[Kept]) -> None:
        self.records = list(records)

    def of(self, source: Source, key: str) -> list[Kept]:
        return [r for r in self.records if r.topic == TOPICS[source] and r.key == key.encode()]

    def add(self, *records: Kept) -> None:
        """Appends: behind all there is in their partition."""
        self.records += records

    def drop(self, *records: Kept) -> None:
        for record in records:
            self.records.remove(record)

    def change(self, record: Kept, **changes: Any) -> None:
        """Replaces a record by one that says otherwise, in its place."""
        self.records[self.records.index(record)] = record.saying(**changes)

    def copy(self) -> "Logs":
        return Logs(self.records)


async def read(deployment: Deployment) -> Logs:
    """What is there, once nothing is written any more."""
    found = [await deployment.records(name) for name in TOPICS.values()]
    return Logs(
        Kept(name, r.partition, r.timestamp, r.key, r.value)
        for name, records in zip(TOPICS.values(), found, strict=True)
        for r in records
    )


async def write(servers: str, records: Iterable[Kept], names: Iterable[str] = CORE.values()) -> Settings:
    """Writes the records of these topics to topics of a prefix of their own, and returns settings that lead there."""
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix=f"t-{secrets.token_hex(4)}-")
    wanted = frozenset(names)
    records = (record for record in records if record.topic in wanted)
    # Records may bear an old time: with the broker's own limit it would remove them whenever it next looks.
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


async def judged(logs: "Logs", **rules: Any) -> Report:
    """What an audit makes of the records, without a broker to read them from."""
    sources = {name: source for source, name in TOPICS.items()}
    offsets: Counter[tuple[str, int]] = Counter()
    report = Report()
    with Sorted() as facts:
        for r in logs.records:
            offset, source = offsets[r.topic, r.partition], sources[r.topic]
            offsets[r.topic, r.partition] += 1
            key, about = placed(source, r.key, r.value)
            facts.add(key, Fact(source, r.partition, offset, r.time_ms, False, r.value, about))
        defaults = {
            "required": frozenset(CheckType),
            "deadline": timedelta(seconds=60),
            "grace": timedelta(0),
            "exactly_once": True,
            "now_ms": int(time.time() * 1000),
            "seen": frozenset(TOPICS),
            "notified": NOTIFIED,
        }
        await judge(facts, Rules(**{**defaults, **rules}), report)
    return report


def kept(source: Source, key: str, message: Any, time_ms: int, by: str | None = None) -> Kept:
    """A record made by hand; `by` is the key that its partition goes by, if that is another."""
    partition = partition_of((by or key).encode(), PARTITIONS)
    return Kept(TOPICS[source], partition, time_ms, key.encode(), None if message is None else message.to_json())


def _chunks(records: Iterable[Kept], size: int) -> Iterator[list[Kept]]:
    chunk: list[Kept] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    yield chunk


Doctor = Callable[[Logs], None]
