"""Parses a record of a dead-letter topic: the original message, and why the service failed on it. Pure."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from runtime.model.dead_letters import LOST_UNTIL, MAX_BYTES, ORIGINAL_SIZE, REASON_HEADERS
from runtime.model.records import REDRIVEN, Header, Record
from schemas.topics import DEAD_LETTERS

MAX_REDRIVES = 3
"""Redrives after which a message that failed each time is quarantined: its cause is still there."""
_MAX_DIGITS = 6
"""Digits of the counter `redriven`: a longer value is a header of somebody else."""


class DeadLetterId(NamedTuple):
    """Position of a dead letter in `<topic>.dead-letters`; `topic` is the topic of the original message."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}{DEAD_LETTERS} {self.partition}@{self.offset}"


class NotADeadLetter(ValueError):
    """A record of another producer in a dead-letter topic: it lacks the headers of a dead letter."""


class DeadLetter(NamedTuple):
    """A message that could not be processed.

    `headers` are those of the original message, `from_partition` and `from_offset` its position; the offset is -1 for a
    message that was processed in the batch that produced it. `truncated` is the size in bytes of a message too large to
    be kept whole. `lost_until`: the dead letter stands for a range of lost records, from `from_offset` up to, not
    including, this offset.
    """

    id: DeadLetterId
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    service: str
    error: str
    from_partition: int
    from_offset: int
    failed_at: str
    truncated: int | None
    lost_until: int | None = None

    @property
    def redriven(self) -> int:
        """How often the message had been redriven when it failed, by its last header."""
        return _counted(self.headers)[1]

    def redriven_headers(self, count: int) -> tuple[Header, ...]:
        """Returns the headers of the message, and the counter as the last one in place of an earlier counter."""
        return (*_counted(self.headers)[0], (REDRIVEN, str(count).encode()))

    @classmethod
    def of(cls, record: Record) -> Self:
        """Parses a record of a dead-letter topic. Raises `NotADeadLetter` if it lacks the headers of one."""
        if record.unreadable is not None:
            raise NotADeadLetter(record.unreadable)
        own, reason = record.headers[: -len(REASON_HEADERS)], record.headers[-len(REASON_HEADERS) :]
        if tuple(name for name, _ in reason) != REASON_HEADERS:
            raise NotADeadLetter(f"it does not end in the headers {', '.join(REASON_HEADERS)}")
        service, error, topic, partition, offset, time = [(text or b"").decode(errors="replace") for _, text in reason]
        if topic + DEAD_LETTERS != record.topic:
            raise NotADeadLetter(f"its header topic says {topic!r}")
        id_ = DeadLetterId(topic, record.partition, record.offset)
        try:
            position = int(partition), int(offset)
        except ValueError as fault:
            raise NotADeadLetter(f"its headers partition and offset are no numbers: {fault}") from fault
        content = record.key, record.value, tuple(own)
        lost = None if record.key or record.value else _only_number(own, LOST_UNTIL)
        return cls(id_, record.timestamp_ms, *content, service, error, *position, time, _original_size(own), lost)


def _counted(headers: tuple[Header, ...]) -> tuple[tuple[Header, ...], int]:
    """Splits headers into those of the producer and the counter of redrives."""
    if headers and headers[-1][0] == REDRIVEN:
        raw = headers[-1][1] or b""
        if raw.isdigit() and len(raw) <= _MAX_DIGITS:
            return headers[:-1], int(raw)
    return headers, 0


def _original_size(headers: Sequence[Header]) -> int | None:
    """Returns the size of a truncated message. A message that has such a header itself was small enough to be kept."""
    size = _only_number(headers, ORIGINAL_SIZE)
    return size if size is not None and size > MAX_BYTES else None


def _only_number(headers: Sequence[Header], name: str) -> int | None:
    """Returns the number in the only header, if it has this name."""
    if len(headers) == 1 and headers[0][0] == name and (raw := headers[0][1] or b"").isdigit():
        return int(raw)
    return None
