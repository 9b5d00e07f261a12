"""What the tests of both senders write to scripted brokers, and how they judge error codes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from runtime.common.settings import Settings
from runtime.model.records import Membership, TopicPartition, Write
from tests.kafka_script import ScriptedBrokers

CODES = [-1, *range(1, 121)]
FENCED = {22, 25, 27, 82}
PRODUCER_FENCED = {47, 90}
ME = Membership(3, "me")
OFFSETS = {TopicPartition("b", 0): 5}
METADATA = {TopicPartition("b", 0): "note"}
WRITES = [Write("a", 0, b"k", b"v0"), Write("b", 1, b"k", b"v1"), Write("a", 0, b"k", None, (("h", b"x"),))]
ENDS = {TopicPartition("a", 0): 1, TopicPartition("b", 1): 0}


@asynccontextmanager
async def ending(brokers: ScriptedBrokers, make: Callable[[Settings], Any]) -> AsyncIterator[Callable[[], Any]]:
    """A function that makes a producer, not started; all of them are ended."""
    made = []

    def new() -> Any:
        made.append(make(Settings(kafka_bootstrap_servers=brokers.servers, _env_file=None)))  # type: ignore[call-arg]
        return made[-1]

    yield new
    for producer in made:
        await producer.end()
