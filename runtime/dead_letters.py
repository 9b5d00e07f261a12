"""Dead letters: what a service cannot read or bear is set aside with the reason, and the stream goes on."""

from datetime import datetime

from pydantic import ValidationError

from runtime.records import Record, Write
from schemas.topics import FORTNIGHT, Kept

SUFFIX = ".dead-letters"
KEPT: Kept = FORTNIGHT

_MAX_ERROR = 1000


def dead_letter(record: Record, service: str, error: str, now: datetime) -> Write:
    """The message as it was, for `<topic>.dead-letters`, with headers that say who failed on it, why and where."""
    headers = (
        *record.headers,
        ("service", service.encode()),
        ("error", error[:_MAX_ERROR].encode()),
        ("topic", record.topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
        ("time", now.isoformat().encode()),
    )
    return Write(record.topic + SUFFIX, record.partition, record.key, record.value, headers)


def describe(error: Exception) -> str:
    """What is wrong, field by field, without the content: a log or header must not repeat an order."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'message'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    return str(error)
