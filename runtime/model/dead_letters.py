"""Dead letters: messages that cannot be processed, with reason and position, so that processing continues."""

from datetime import datetime

from runtime.model.records import Header, Record, Write
from schemas.topics import DEAD_LETTERS

REASON_HEADERS = ("service", "error", "topic", "partition", "offset", "time")
"""The last headers of a dead letter. Earlier headers of these names belong to the message."""

ORIGINAL_SIZE = "cut"
"""Header of a truncated dead letter: size of the message in bytes."""

LOST_UNTIL = "lost-until"
"""Header of a dead letter for lost records, which begin at its offset: the offset after the last of them."""

_MAX_ERROR = 1000
"""Characters of the error in a dead letter."""
MAX_BYTES = 960 * 1024
"""Bytes of a message in its dead letter, 64 KiB below Kafka's usual limit. Compressed messages may be larger."""
_MAX_KEY = 64 * 1024
"""Bytes of a key in a truncated dead letter."""


def dead_letter(record: Record, service: str, error: str, now: datetime, max_bytes: int | None = None) -> Write:
    """The dead letter of a record in `<topic>.dead-letters`: the message, and the headers `REASON_HEADERS`.

    A message that is too large is truncated, with its size in the header `cut`, so that it cannot stop processing.

    Arguments:
        record: the record.
        service: name of the service that failed.
        error: why.
        now: time of the dead letter.
        max_bytes: bytes that the topic accepts in a message, if known to be less than usual.
    """
    reason = _reason(record, service, error, now)
    key, value, headers = record.key, record.value, tuple(record.headers)
    topic, partition = record.topic + DEAD_LETTERS, record.partition
    size = Write(topic, partition, key, value, headers).size
    room = (
        MAX_BYTES if max_bytes is None else min(MAX_BYTES, max_bytes - Write(topic, partition, None, None, reason).size)
    )
    if size > room:
        headers = ((ORIGINAL_SIZE, str(size).encode()),)
        room = max(0, room - Write(topic, partition, None, None, headers).size)
        key = key and key[: min(_MAX_KEY, room // 2)]
        value = value and value[: room - len(key or b"")]
    if key is None and value is None:
        value = b""  # aiokafka does not send a record without key and value
    return Write(topic, partition, key, value, (*headers, *reason))


def _reason(record: Record, service: str, error: str, now: datetime) -> tuple[Header, ...]:
    position = record.topic, str(record.partition), str(record.offset)
    values = service, error[:_MAX_ERROR], *position, now.isoformat()
    return tuple((name, text.encode()) for name, text in zip(REASON_HEADERS, values, strict=True))
