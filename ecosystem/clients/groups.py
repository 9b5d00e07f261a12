"""Consumer groups seen from outside: whether they have read what was written for them."""

from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ecosystem.clients.reader import partitions_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames


async def behind(settings: Settings, groups: Collection[str], topics: Collection[str]) -> list[str]:
    """Those of the groups (logical names) that have not committed up to the ends which the topics have now.

    What a group reads is told by its members: one that has none counts as behind. Raises `KafkaError`.
    """
    names = KafkaNames(settings.topic_prefix)
    ends = await _ends(settings, topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        return [group for group in groups if not await _has_read(admin, names.group(group), ends)]
    finally:
        await admin.close()


async def _ends(settings: Settings, topics: Collection[str]) -> Mapping[TopicPartition, int]:
    partitions = await partitions_of(settings, topics)
    consumer = clients.standalone_consumer(settings)
    await consumer.start()
    try:
        return await aiokafka_internals.log_ends(consumer, partitions, committed=True)
    finally:
        await consumer.stop()


async def _has_read(admin: AIOKafkaAdminClient, group: str, ends: Mapping[TopicPartition, int]) -> bool:
    (response,) = await admin.describe_consumer_groups([group])
    members: list[Any] = response.groups[0][5]
    read = {topic for member in members if member[3] for topic in aiokafka_internals.subscribed_topics(member[3])}
    committed = await admin.list_consumer_group_offsets(group)
    wanted = {tp: end for tp, end in ends.items() if tp.topic in read and end}
    return bool(read) and all(tp in committed and committed[tp].offset >= end for tp, end in wanted.items())
