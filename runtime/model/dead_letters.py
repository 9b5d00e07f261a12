"""Dead letters: messages that cannot be processed, with the reason, so that the stream goes on."""

from datetime import datetime

from pydantic import ValidationError

from runtime.model.records import Header, Record, Write
from schemas.topics import DEAD_LETTERS

REASON = ("service", "error", "topic", "partition", "offset", "time")
"""The last headers of a dead letter. Earlier headers with these names belong to the message."""

CUT = "cut"
"""Header of a truncated dead letter: size of the message in bytes."""

LOST_UNTIL = "lost-until"
"""Header of a dead letter for lost records, which begin at its offset: the offset after the last of them."""

_MAX_ERROR = 1000
MAX_BYTES = 960 * 1024
"""Bytes of a dead letter without its own headers. A message may be as large as Kafka accepts, or larger compressed."""
_MAX_KEY = 64 * 1024


def dead_letter(record: Record, service: str, error: str, now: datetime, most: int | None = None) -> Write:
    """The dead letter of a record for `<topic>.dead-letters`: the message, and headers with service, error and
    position.

    A message that is too large is truncated, with its size in the header `cut`: no message may stop the stream.
    `most`: bytes that the topic accepts in a message, if known to be less than usual.
    """
    reason = _reason(record, service, error, now)
    key, value, headers = record.key, record.value, tuple(record.headers)
    topic, partition = record.topic + DEAD_LETTERS, record.partition
    size = Write(topic, partition, key, value, headers).size
    room = MAX_BYTES if most is None else min(MAX_BYTES, most - Write(topic, partition, None, None, reason).size)
    if size > room:
        headers = ((CUT, str(size).encode()),)
        room = max(0, room - Write(topic, partition, None, None, headers).size)
        key = key and key[: min(_MAX_KEY, room // 2)]
        value = value and value[: room - len(key or b"")]
    if key is None and value is None:
        value = b""  # aiokafka does not send a record without key and value
    return Write(topic, partition, key, value, (*headers, *reason))


def _reason(record: Record, service: str, error: str, now: datetime) -> tuple[Header, ...]:
    place = record.topic, str(record.partition), str(record.offset)
    said = service, error[:_MAX_ERROR], *place, now.isoformat()
    return tuple((name, text.encode()) for name, text in zip(REASON, said, strict=True))


def describe(error: Exception) -> str:
    """The error, field by field, without values: logs and headers must not contain orders."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    return str(error)
