"""Lag of consumer groups, from committed offsets."""

from collections.abc import Collection, Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ecosystem.clients.reader import partitions_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames


async def lagging_groups(settings: Settings, groups: Collection[str], topics: Collection[str]) -> list[str]:
    """Returns the groups that have not committed up to the current last stable offsets of the topics they read.

    The members of a group name its topics: a group without members counts as lagging. Raises `KafkaError`.

    Arguments:
        settings: broker and topic prefix.
        groups: names without prefix.
        topics: names without prefix; other topics are not considered.
    """
    names = KafkaNames(settings.topic_prefix)
    ends = await _last_stable_offsets(settings, topics)
    async with clients.admin(settings) as admin:
        return [group for group in groups if await _is_lagging(admin, names.group(group), ends)]


async def _last_stable_offsets(settings: Settings, topics: Collection[str]) -> Mapping[TopicPartition, int]:
    partitions = await partitions_of(settings, topics)
    consumer = clients.standalone_consumer(settings)
    await consumer.start()
    try:
        return await aiokafka_internals.log_ends(consumer, partitions, committed=True)
    finally:
        await consumer.stop()


async def _is_lagging(admin: AIOKafkaAdminClient, group: str, ends: Mapping[TopicPartition, int]) -> bool:
    _, members = await aiokafka_internals.describe_group(admin, group)
    read = {topic for member in members if member[3] for topic in aiokafka_internals.subscribed_topics(member[3])}
    committed = await admin.list_consumer_group_offsets(group)
    wanted = {tp: end for tp, end in ends.items() if tp.topic in read and end}
    return not read or any(tp not in committed or committed[tp].offset < end for tp, end in wanted.items())
