"""Facts: records and rows in the form in which the audit sorts and judges them."""

import struct
from typing import NamedTuple

from ecosystem.audit.sources import Source
from schemas import topics
from schemas.messages import ATTEMPT_SEPARATOR


class Fact(NamedTuple):
    """A record, or a row of a database, without its key.

    Arguments:
        source: topic, table, database or Maildir.
        partition: partition; 0 of other sources than topics.
        offset: offset; a running number of other sources.
        time_ms: timestamp.
        late: whether it was written while the audit looked up the end offsets. Other records of the same transaction
            or batch may be behind them.
        value: content; `None`: a tombstone.
        about: rest of the key besides order or event: the kind of an e-mail, or its recipient; and the attempt to
            decide the order, behind `ATTEMPT_SEPARATOR`, from the second on.
        replayed: whether it is a replay, or follows from one.
    """

    source: Source
    partition: int
    offset: int
    time_ms: int
    late: bool
    value: bytes | None
    about: str = ""
    replayed: bool = False


_POSITION = struct.Struct(">BIQ")
_CONTENT = struct.Struct(">q???H")
_SOURCES = {source.value: source for source in Source}


def split_key(source: Source, key: bytes, value: bytes | None) -> tuple[bytes, str]:
    """Returns the order, product, customer or event that a record is about, and the rest of its key.

    Raises `ValueError` if the key cannot be decoded, or the payment cannot be read.
    """
    text = key.decode()
    if source is Source.PAYMENTS:
        payment = topics.PAYMENTS.model.from_json(value or b"")
        if payment.id != text:
            raise ValueError("has another key than its id")
        return payment.order_id.encode(), ""
    if source in {Source.EMAILS, Source.EMAILS_REJECTED}:
        order_id, _, kind = text.rpartition("/")
        return order_id.encode(), kind
    if source is Source.RESERVATIONS:
        order_id, separator, attempt = text.partition(ATTEMPT_SEPARATOR)
        return order_id.encode(), separator + attempt
    if source in {Source.NOTICES, Source.NOTICES_REJECTED}:
        event_id, _, recipient = text.partition("/")
        return event_id.encode(), recipient
    return key, ""


def pack(fact: Fact) -> tuple[bytes, bytes]:
    """Encodes position and content. Positions sort bytewise by source, partition and offset."""
    about = fact.about.encode()
    content = _CONTENT.pack(fact.time_ms, fact.late, fact.value is None, fact.replayed, len(about))
    return _POSITION.pack(fact.source, fact.partition, fact.offset), content + about + (fact.value or b"")


def unpack(position: bytes, content: bytes) -> Fact:
    """Decodes what `pack` encoded."""
    source, partition, offset = _POSITION.unpack(position)
    time_ms, late, deleted, replayed, length = _CONTENT.unpack_from(content)
    end = _CONTENT.size + length
    value, about = content[end:], content[_CONTENT.size : end].decode()
    return Fact(_SOURCES[source], partition, offset, time_ms, late, None if deleted else value, about, replayed)
