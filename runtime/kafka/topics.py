"""Creates topics before anybody subscribes: a consumer would silently never read one that is created later."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from runtime.common.settings import Settings
from runtime.errors import PartitionCountMismatch
from runtime.kafka import clients
from runtime.kafka.clients import KafkaNames
from runtime.model.topology import Topology
from schemas import topics
from schemas.topics import Topic

log = logging.getLogger(__name__)

TopicConfigs = Mapping[str, Mapping[str, str]]
"""Configuration of each topic, by its logical name."""

_CHANGELOG = {
    "cleanup.policy": "compact",
    # Small segments are compacted sooner, so a restore reads few outdated records.
    "segment.ms": str(6 * 3600 * 1000),
    "min.cleanable.dirty.ratio": "0.3",
}


_REDO_LOG = {
    "cleanup.policy": "compact",
    # A restore reads little although every batch writes here: only the last redo record of a partition counts.
    "segment.ms": str(10 * 60 * 1000),
    "segment.bytes": str(16 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.01",
    # A piece must fit, whatever the default of the broker is.
    "max.message.bytes": str(1024 * 1024),
}


def public_topics(catalogue: Iterable[Topic[Any]] = topics.CATALOGUE) -> dict[str, dict[str, str]]:
    """The public topics, each with its topic for dead letters."""
    return _with_dead_letters(catalogue)


def topics_of(topology: Topology) -> dict[str, dict[str, str]]:
    """All topics that a worker with this topology reads or writes."""
    changelogs = {table.changelog: dict(_CHANGELOG) for table in topology.tables.values()}
    changelogs |= {table.changelog: dict(_REDO_LOG) for table in topology.redo_tables.values()}
    return {**_with_dead_letters(topology.topics), **changelogs}


def _with_dead_letters(wanted: Iterable[Topic[Any]]) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = {}
    for topic in wanted:
        result[topic.name] = topic.retention.config()
        result[topic.dead_letters] = topics.FORTNIGHT.config()
    return result


async def with_redo_tables(settings: Settings, topology: Topology) -> Topology:
    """The topology with the redo tables that it needs at least once, or that an earlier worker has created.

    A worker that is exactly once redoes what one that was at least once left behind.
    """
    names = [service.name for service in topology.services]
    everywhere = replace(topology, redo=names)
    if settings.at_least_once:
        return everywhere
    names_of = KafkaNames(settings.topic_prefix)
    async with clients.admin(settings, request_timeout_ms=30_000) as admin:
        existing = set(await admin.list_topics())
    found = [s for s, table in everywhere.redo_tables.items() if names_of.topic(table.changelog) in existing]
    return replace(topology, redo=found)


async def ensure_topics(settings: Settings, wanted: TopicConfigs) -> None:
    """Creates missing topics; returns when every partition of each topic has a leader.

    Raises `PartitionCountMismatch` for a topic whose number of partitions is not `settings.partitions`. Exception: a
    topic that has grown since it was created, as its dead letters' topic shows. Its first `settings.partitions`
    partitions count (`runtime.faust_adapter.assignor`).
    """
    names = KafkaNames(settings.topic_prefix)
    async with clients.admin(settings, request_timeout_ms=30_000) as admin:
        existing = set(await admin.list_topics())
        missing = [
            NewTopic(names.topic(name), settings.partitions, settings.replication_factor, topic_configs=dict(config))
            for name, config in wanted.items()
            if names.topic(name) not in existing
        ]
        if missing:
            await _create(admin, missing)
        await _check(admin, [names.topic(name) for name in wanted], settings.partitions)


async def _create(admin: AIOKafkaAdminClient, missing: list[NewTopic]) -> None:
    response = await admin.create_topics(missing)
    for topic, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another worker was faster
            raise error(f"cannot create topic {topic}: {message}")
    log.info("topics created count=%d", len(missing))


async def _check(admin: AIOKafkaAdminClient, wanted: list[str], partitions: int) -> None:
    for _ in range(100):
        described = await admin.describe_topics(wanted)
        leaderless = [
            t["topic"]
            for t in described
            if t["error_code"] or not t["partitions"] or any(p["leader"] < 0 for p in t["partitions"])
        ]
        if not leaderless:
            break
        await asyncio.sleep(0.1)
    else:
        raise KafkaError(f"topics without a leader after 10 s: {', '.join(leaderless)}; check the brokers, and retry")
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
    for name, count in counts.items():
        if count > partitions == counts.get(name + topics.DEAD_LETTERS):
            log.error(
                "topic has grown topic=%s partitions=%d PARTITIONS=%d remedy=%s",
                name,
                count,
                partitions,
                f"its producers must place records by murmur2 of the key modulo {partitions}; others are dead-lettered",
            )
        elif count != partitions:
            raise PartitionCountMismatch(
                f"topic {name} has {count} partitions, PARTITIONS is {partitions}: "
                f"set PARTITIONS={count} for all workers of the deployment"
            )
