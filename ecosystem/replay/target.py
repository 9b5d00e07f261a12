"""The cluster that a replay writes to: its topics and partitions, and what it has of a batch in doubt."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition as Physical

from ecosystem.clients.reader import partitions_of
from ecosystem.replay.records import Place, Resubmission, mark_of
from ecosystem.replay.resume import Doubtful
from ecosystem.replay.stages import SETTING
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from schemas.topics import CATALOGUE

_POLL_MS = 200
_OPEN_TRANSACTION_PAUSE_S = 0.1
_PINNED = frozenset(topic.name for topic in CATALOGUE if topic.pinned)


class TargetError(Exception):
    """The target cannot take the replay. The text says why, and the remedy."""


class Unplaceable(ValueError):
    """A record has no place in the target. The text says why."""


class Target:
    """A cluster, and a prefix of topics.

    Arguments:
        settings: brokers and prefix.
        partitions: number of partitions of its topics.
        sources: the same of the history's cluster.
    """

    def __init__(self, settings: Settings, partitions: Mapping[str, int], sources: Mapping[str, int]) -> None:
        self.settings = settings
        self.names = KafkaNames(settings.topic_prefix)
        self.partitions = partitions
        self._sources = sources

    def partition(self, record: Resubmission) -> int:
        """The partition of a record: where it lay if the topic has as many, else by its key. Raises `Unplaceable`.

        >>> target = Target(Settings(), {"orders": 4, "payments": 2}, {"orders": 4, "payments": 4})
        >>> record = Resubmission(Place("orders", 3, 0), "CREATED", "orders", 3, b"my-order", b"", (), 0)
        >>> target.partition(record), target.partition(record._replace(topic="payments"))
        (3, 0)
        """
        number = self.partitions[record.topic]
        # A record that lay in a wrong partition was dead-lettered there, and is so again.
        if number == self._sources.get(record.place.topic, number) and record.topic == record.place.topic:
            return record.partition
        if record.topic in _PINNED:
            raise Unplaceable(
                f"{record.topic} has a record in each partition, and {number} partitions instead of "
                f"{self._sources[record.place.topic]}: set the required checks by `orders checks`"
            )
        return record.partition % number if record.key is None else partition_of(record.key, number)


async def find_target(settings: Settings, topics: Collection[str], sources: Mapping[str, int]) -> Target:
    """Finds the topics of the target. Raises `TargetError` if it lacks one."""
    names = KafkaNames(settings.topic_prefix)
    found = Counter(names.logical(tp.topic) for tp in await partitions_of(settings, topics))
    if missing := sorted(set(topics) - found.keys()):
        raise TargetError(
            f"there is no topic {', '.join(map(names.topic, missing))} at {settings.kafka_bootstrap_servers}: "
            "start workers there, which make their topics, or check TOPIC_PREFIX and --bootstrap"
        )
    return Target(settings, found, sources)


async def ends(target: Target, topics: Collection[str]) -> dict[tuple[str, int], int]:
    """The log end offset of each partition of some topics."""
    if not topics:
        return {}
    partitions = [tp for topic in topics for tp in _physical(target, topic)]
    consumer = clients.standalone_consumer(target.settings)
    await consumer.start()
    try:
        found = await aiokafka_internals.log_ends(consumer, partitions, committed=False)
    finally:
        await consumer.stop()
    return {(target.names.logical(tp.topic), tp.partition): end for tp, end in found.items()}


async def set_already(target: Target, stages: Mapping[str, str]) -> str | None:
    """Why a replay would set back what is newer in the target; `None` if it would not.

    Arguments:
        target: the cluster.
        stages: that of the records for each topic.
    """
    setting = [topic for topic, stage in stages.items() if stage in SETTING]
    used = sorted({topic for (topic, _), end in (await ends(target, setting)).items() if end})
    if not used:
        return None
    return (
        f"{', '.join(used)} has records already, and the last one of a key counts: a replay would set back what is "
        f"newer. Leave {', '.join(stages[topic] for topic in used)} out, name another cluster with --bootstrap, "
        "or give --overwrite"
    )


async def sent_of(target: Target, batch: Doubtful) -> set[Place]:
    """Which records of a batch in doubt the topics have."""
    partitions = {Physical(target.names.topic(topic), partition): at for (topic, partition), at in batch.begins.items()}
    if not partitions:
        return set()
    consumer = clients.standalone_consumer(target.settings, skip_removed=True)
    await consumer.start()
    try:
        # What another producer's open transaction hides is waited for.
        until = await aiokafka_internals.log_ends(consumer, partitions, committed=False)
        consumer.assign([*partitions])
        for tp, offset in partitions.items():
            consumer.seek(tp, offset)
        found: set[Place] = set()
        while any([await consumer.position(tp) < end for tp, end in until.items()]):
            fetched = await consumer.getmany(timeout_ms=_POLL_MS)
            for record in (r for records in fetched.values() for r in records):
                mark = mark_of(record.headers)
                if mark is not None and batch.replays.get(mark.place) == mark.replays:
                    found.add(mark.place)
            if not fetched:
                await asyncio.sleep(_OPEN_TRANSACTION_PAUSE_S)
        return found
    finally:
        await consumer.stop()


def _physical(target: Target, topic: str) -> list[Physical]:
    return [Physical(target.names.topic(topic), number) for number in range(target.partitions[topic])]
