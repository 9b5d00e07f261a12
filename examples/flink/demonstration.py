"""Runs Flink over a sample day, kills it in the middle, and compares its rows with those of our own join."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError
from rich.console import Console

from ecosystem.clients.reader import partitions_of
from ecosystem.clients.writer import Writer
from examples.flink.comparison import Comparison, compare
from examples.flink.consumer import ConfirmationConsumer
from examples.flink.engine import GROUP, Engine
from examples.flink.install import FlinkError
from examples.flink.sample import Half, halves
from examples.flink.topics import ENRICHED_BY_FLINK, PAID_BY_FLINK, TOPICS, WAREHOUSE_DELIVERIES
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.topics import ensure_topics
from schemas.topics import CUSTOMERS, ORDERS, PAYMENTS, WAREHOUSE_INVENTORY

CURRENCY = "EUR"
_SEED = 7
_INPUTS = (CUSTOMERS.name, ORDERS.name, PAYMENTS.name, WAREHOUSE_DELIVERIES.name)
_OUTPUTS = (ENRICHED_BY_FLINK.name, PAID_BY_FLINK.name, WAREHOUSE_INVENTORY.name)
_PATIENCE_S = 180.0
_POLL_S = 0.25


async def demonstrate(settings: Settings, home: Path, console: Console, orders: int = 1000) -> list[Comparison]:
    """Returns the comparisons at the end. Raises `FlinkError` if Flink ends, or does not finish in time.

    Arguments:
        settings: brokers, and a topic prefix without topics.
        home: folder for Flink's checkpoints and the list of confirmations.
        console: for progress.
        orders: orders of the day.
    """
    first, second = halves(orders, _SEED)
    await create_topics(settings)
    await _write(settings, first)
    started = time.monotonic()
    engine = Engine(home / "engine", settings, CURRENCY, console)
    engine.start()
    try:
        await _wait_until_checkpointed(settings, engine)
        console.print(f"first half processed {time.monotonic() - started:.1f} s after the start; kill -9 of Flink")
        engine.kill()
        await _write(settings, second)
        started = time.monotonic()
        engine.start()
        await _wait_until_checkpointed(settings, engine)
        console.print(f"second half processed {time.monotonic() - started:.1f} s after the restart")
    finally:
        engine.stop()
    listed = _confirm(settings, home)
    comparisons = await compare(settings, CURRENCY)
    [paid] = [comparison.flinks for comparison in comparisons if comparison.name == "paid"]
    return [*comparisons, Comparison("confirmed", paid, {order_id: paid.get(order_id) for order_id in listed})]


async def create_topics(settings: Settings) -> None:
    """Creates the topics of this example where they are missing."""
    await ensure_topics(settings, {topic.name: topic.retention.config() for topic in TOPICS})


async def _write(settings: Settings, half: Half) -> None:
    async with Writer(settings) as writer:
        await writer.write(CUSTOMERS, half.customers)
        await writer.write(WAREHOUSE_DELIVERIES, half.bookings)
        await writer.write(PAYMENTS, half.payments)
        await writer.write(ORDERS, half.orders)


async def _wait_until_checkpointed(settings: Settings, engine: Engine) -> None:
    """Waits until a checkpoint includes all input, and the transactions of the output are committed."""
    ends = await _log_ends(settings, _INPUTS, committed=True)
    deadline = time.monotonic() + _PATIENCE_S
    while not (await _has_committed(settings, ends) and await _no_transaction_is_open(settings)):
        engine.check()
        if time.monotonic() > deadline:
            raise FlinkError(f"Flink did not process the input within {_PATIENCE_S:.0f} s; its log is {engine.log}")
        await asyncio.sleep(_POLL_S)


async def _has_committed(settings: Settings, ends: Mapping[TopicPartition, int]) -> bool:
    """Whether Flink has committed these offsets, which it does when a checkpoint is complete."""
    async with clients.admin(settings) as admin:
        try:
            committed = await admin.list_consumer_group_offsets(settings.topic_prefix + GROUP)
        except GroupCoordinatorNotAvailableError:  # the broker has never had a group before
            return False
    return all(tp in committed and committed[tp].offset >= end for tp, end in ends.items() if end)


async def _no_transaction_is_open(settings: Settings) -> bool:
    ends = [await _log_ends(settings, _OUTPUTS, committed=committed) for committed in (False, True)]
    return ends[0] == ends[1]


async def _log_ends(settings: Settings, topics: Sequence[str], *, committed: bool) -> Mapping[TopicPartition, int]:
    partitions = await partitions_of(settings, topics)
    consumer = clients.standalone_consumer(settings)
    await consumer.start()
    try:
        return await aiokafka_internals.log_ends(consumer, partitions, committed=committed)
    finally:
        await consumer.stop()


def _confirm(settings: Settings, home: Path) -> set[str]:
    """Consumes all paid orders. Returns the ids of those on the list."""
    topic, group = settings.topic_prefix + PAID_BY_FLINK.name, settings.topic_prefix + "confirmations"
    servers = settings.kafka_bootstrap_servers
    deadline = time.monotonic() + _PATIENCE_S
    with ConfirmationConsumer(servers, topic, group, home / "confirmations.db") as consumer:
        while not consumer.consume(1.0) and time.monotonic() < deadline:
            pass  # the group is forming
        while consumer.consume(1.0):
            pass
        return consumer.confirmed()
