"""A dead letter taken apart: the message as it was, and what the service that failed on it said. Pure."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from runtime.model.dead_letters import LOST_UNTIL, MAX_BYTES, ORIGINAL_SIZE, REASON_HEADERS
from runtime.model.records import Header, Record
from schemas.topics import DEAD_LETTERS


class Where(NamedTuple):
    """Where a letter stands in `<topic>.dead-letters`; `topic` is the one the message is from."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}{DEAD_LETTERS} {self.partition}@{self.offset}"


class NotADeadLetter(ValueError):
    """Somebody else's message among the dead letters: it does not say where it is from."""


class DeadLetter(NamedTuple):
    """A message that was set aside.

    `headers` are those it came with. `from_partition` and `from_offset` say where it was; the offset is -1 for one that
    was decided in the batch that announced it. `cut` is the size in bytes of one that was too large to be kept whole.
    `lost_until`: the letter stands for a range of records that are gone, from `from_offset` up to, not including, this.
    """

    where: Where
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    service: str
    error: str
    from_partition: int
    from_offset: int
    failed_at: str
    cut: int | None
    lost_until: int | None = None

    @classmethod
    def of(cls, record: Record) -> Self:
        """Reads a record of a topic of dead letters. Raises `NotADeadLetter` if it does not have their headers."""
        if record.unreadable is not None:
            raise NotADeadLetter(record.unreadable)
        own, said = record.headers[: -len(REASON_HEADERS)], record.headers[-len(REASON_HEADERS) :]
        if tuple(name for name, _ in said) != REASON_HEADERS:
            raise NotADeadLetter(f"it does not end in the headers {', '.join(REASON_HEADERS)}")
        service, error, topic, partition, offset, time = [(text or b"").decode(errors="replace") for _, text in said]
        if topic + DEAD_LETTERS != record.topic:
            raise NotADeadLetter(f"its header topic says {topic!r}")
        where = Where(topic, record.partition, record.offset)
        try:
            places = int(partition), int(offset)
        except ValueError as fault:
            raise NotADeadLetter(f"its headers partition and offset are no numbers: {fault}") from fault
        content = record.key, record.value, tuple(own)
        lost = None if record.key or record.value else _number_in(own, LOST_UNTIL)
        return cls(where, record.timestamp_ms, *content, service, error, *places, time, _size_before(own), lost)


def _size_before(headers: Sequence[Header]) -> int | None:
    """The size of a message that was cut; one that came with such a header itself was small enough to be kept."""
    size = _number_in(headers, ORIGINAL_SIZE)
    return size if size is not None and size > MAX_BYTES else None


def _number_in(headers: Sequence[Header], name: str) -> int | None:
    """The number that the only header gives, if it has this name."""
    if len(headers) == 1 and headers[0][0] == name and (raw := headers[0][1] or b"").isdigit():
        return int(raw)
    return None
