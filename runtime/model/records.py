"""Records as they are polled and written, and batches of them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from runtime.model.commands import Command
    from runtime.model.redo_progress import RedoProgress

Header = tuple[str, bytes | None]
"""Name and value. Clients may write null values, empty names, and a name twice."""

CONSUMED_BY = "consumed-by"
"""Header of a fused message. Value: the consumer group whose services have processed it already and skip it."""

ALSO_CONSUMED_BY = "also-consumed-by"
"""Header beside `consumed-by`: further services that skip the message, which joined the group later."""

MADE_AT = "made-at"
"""Header of a repartitioned message: event time of its source, in milliseconds since 1970."""

NO_OFFSET = -1
"""Offset of a fused message: it is processed before it has an offset."""

NO_TIMESTAMP = -1
"""Timestamp of a message without one: clients before Kafka 0.10 write none."""

EVENT_ID = "event-id"
"""Header of a message from an outbox: its consumers deduplicate by it, as a message may be written more than once."""

REPLAYED_FROM = "replayed-from"
"""Header of a replayed message and of all that follows from it. Value: `TOPIC/PARTITION/OFFSET` of the original."""

REPLAYS = "replays"
"""Header beside `replayed-from`. Value: how often the original has been replayed, this time included."""

SIDE_EFFECTS = "side-effects"
"""Header beside `replayed-from`. Value `perform`: the replay performs side effects; without it they are suppressed."""


REDRIVEN = "redriven"
"""Last header of a redriven message, the only one that a redrive adds. Value: how often the message was redriven."""


class TopicPartition(NamedTuple):
    """A partition of a topic by its logical name (without the deployment's prefix)."""

    topic: str
    partition: int


class Record(NamedTuple):
    """A polled message.

    Arguments:
        unreadable: why it, or the messages from its offset on, cannot be decoded.
        processed_by: services that have processed it already, and skip it.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    unreadable: str | None = None
    processed_by: frozenset[str] = frozenset()


class Write(NamedTuple):
    """A message to be written. A value of `None` is a tombstone."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return (
            len(self.key or b"")
            + len(self.value or b"")
            + sum(len(name.encode()) + len(text or b"") for name, text in self.headers)
        )


class Membership(NamedTuple):
    """A worker's membership in its consumer group. The coordinator fences offsets of an outdated one."""

    generation: int
    member_id: str


NO_MEMBER = Membership(-1, "")
"""Commits for a group without members, which the coordinator accepts."""


@dataclass(slots=True)
class PolledBatch:
    """All records and commands that waited when a worker polled, and its new positions.

    Arguments:
        records: by topic and partition, in order within a partition.
        positions: the next offset to read of each partition. They are also past control records and past messages
            that all services of the worker have processed already (`consumed-by`).
        membership: the membership of the worker in its group.
        commands: commands of HTTP handlers.
        epoch: the ownership epoch in which the batch was polled.
        done: set once the batch is processed.
    """

    records: list[Record]
    positions: dict[TopicPartition, int]
    membership: Membership
    commands: "Sequence[Command[Any]]" = ()
    epoch: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


Offsets = Mapping[TopicPartition, int]
"""The next offset to read of each partition."""

LastOffsets = Mapping[TopicPartition, int]
"""Offset of the last record written to each partition."""


@dataclass(slots=True)
class Writes:
    """What the commit of a batch makes durable, all or nothing.

    Arguments:
        changelog: changed rows.
        outputs: output records and dead letters.
        offsets: the new positions.
        redo: at least once: the redo records of the batch.
        redo_progress: at least once: ends of the redo tables, and the redo records that are not cleared yet.
    """

    changelog: list[Write] = field(default_factory=list)
    outputs: list[Write] = field(default_factory=list)
    offsets: Offsets = field(default_factory=dict)
    redo: list[Write] = field(default_factory=list)
    redo_progress: "RedoProgress | None" = None

    @property
    def empty(self) -> bool:
        return not (self.changelog or self.outputs or self.offsets)
