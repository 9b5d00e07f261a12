"""Dead letters: what a service cannot read or bear is set aside with the reason, and the stream goes on."""

from datetime import datetime

from pydantic import ValidationError

from runtime.records import Record, Write
from schemas.topics import DEAD_LETTERS

_MAX_ERROR = 1000
MAX_BYTES = 960 * 1024
"""Of a letter but for its own headers: a message may be as large as Kafka takes, or larger if it came compressed."""
_MAX_KEY = 64 * 1024


def dead_letter(record: Record, service: str, error: str, now: datetime) -> Write:
    """The message as it was, for `<topic>.dead-letters`, with headers that say who failed on it, why and where.

    What would not fit there is cut, and its header `cut` tells the size it had: no message may hold up the stream.
    """
    key, value, headers = record.key, record.value, tuple(record.headers)
    size = len(key or b"") + len(value or b"") + sum(len(name.encode()) + len(text or b"") for name, text in headers)
    if size > MAX_BYTES:
        key, value = key and key[:_MAX_KEY], value and value[: MAX_BYTES - _MAX_KEY]
        headers = (("cut", str(size).encode()),)
    if key is None and value is None:
        value = b""  # aiokafka writes nothing that has neither
    headers = (
        *headers,
        ("service", service.encode()),
        ("error", error[:_MAX_ERROR].encode()),
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
        ("time", now.isoformat().encode()),
    )
    return Write(record.topic + DEAD_LETTERS, record.partition, key, value, headers)


def describe(error: Exception) -> str:
    """What is wrong, field by field, without the content: a log or header must not repeat an order."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    return str(error)
