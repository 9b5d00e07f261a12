"""Dead letters: what a service cannot read or bear is set aside with the reason, and the stream goes on."""

from datetime import datetime

from pydantic import ValidationError

from runtime.model.records import Header, Record, Write
from schemas.topics import DEAD_LETTERS

REASON = ("service", "error", "topic", "partition", "offset", "time")
"""Headers a dead letter ends in; others of these names before them are the message's own."""

CUT = "cut"
"""Header of one that is not whole: the size it had."""

LOST_UNTIL = "lost-until"
"""Header of one that stands for records that are gone, from its offset on: the offset behind the last of them."""

_MAX_ERROR = 1000
MAX_BYTES = 960 * 1024
"""Of a letter but for its own headers: a message may be as large as Kafka takes, or larger if it came compressed."""
_MAX_KEY = 64 * 1024


def dead_letter(record: Record, service: str, error: str, now: datetime, most: int | None = None) -> Write:
    """The message as it was, for `<topic>.dead-letters`, with headers that say who failed on it, why and where.

    What would not fit there is cut, and its header `cut` tells the size it had: no message may hold up the stream.
    `most`: bytes the topic takes in a message, if that is known to be less than usual.
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
        value = b""  # aiokafka writes nothing that has neither
    return Write(topic, partition, key, value, (*headers, *reason))


def _reason(record: Record, service: str, error: str, now: datetime) -> tuple[Header, ...]:
    place = record.topic, str(record.partition), str(record.offset)
    said = service, error[:_MAX_ERROR], *place, now.isoformat()
    return tuple((name, text.encode()) for name, text in zip(REASON, said, strict=True))


def describe(error: Exception) -> str:
    """What is wrong, field by field, without the content: a log or header must not repeat an order."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    return str(error)
