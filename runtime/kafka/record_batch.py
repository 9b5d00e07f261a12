"""Parses record batches record by record, for batches that aiokafka's parser rejects.

Source: kafka.apache.org/documentation, Message Format. Version 2 is a batch; versions 0 and 1 are a message, or a
message that wraps compressed ones. Brokers serve them where they were written before Kafka 4. Relies on aiokafka's
`DefaultRecordBatch` for the header of a batch and its checksum.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch

from runtime.kafka.decompression import Buffer, decompress
from runtime.model.records import Header

FRAME = struct.Struct(">qiib")
"""The first fields of every version: offset, length of what follows, four bytes, version ("magic")."""

OVERHEAD = 12
"""Bytes of the fields offset and length, which the length does not include."""

V2 = struct.Struct(">qiibIhiqqqhii")
"""The header of a batch of version 2, up to its record count."""

_MIN_LENGTH = {0: 14, 1: 22, 2: V2.size - OVERHEAD}
"""Smallest valid length by version, in bytes."""

_CODEC = 0x07
_LOG_APPEND_TIME = 0x08
_ATTRIBUTES = slice(21, 23)


class CorruptRecordError(ValueError):
    """Bytes are not a valid record, message or batch."""


class ParsedRecord(NamedTuple):
    """A record, or a range of unreadable ones.

    `unreadable` is the reason. With it, `last_offset` is the last offset of the range that begins at `offset`; if it is
    `None`, only the headers are unreadable, and key and value are as they were written.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    unreadable: str | None = None
    last_offset: int | None = None


def is_framed(version: int, length: int) -> bool:
    """Whether this length is valid for a batch of this version."""
    return length >= _MIN_LENGTH.get(version, 2**31)


def find_valid_batch(raw: bytes, start: int, offset: int) -> tuple[int, int] | None:
    """Finds the next batch of version 2 with a valid checksum. Returns its position and its base offset.

    Arguments:
        raw: fetched bytes.
        start: position to search from.
        offset: smallest valid base offset of the batch.
    """
    at = start - 1
    while (at := raw.find(b"\x02", at + 1 + FRAME.size - 1)) >= 0:
        at -= FRAME.size - 1
        if at >= start:
            base, length, _, version = FRAME.unpack_from(raw, at)
            if offset <= base < offset + 2**31 and is_framed(version, length) and at + OVERHEAD + length <= len(raw):
                batch = DefaultRecordBatch(memoryview(raw)[at : at + OVERHEAD + length])
                if batch.validate_crc():
                    return at, base
    return None


def decompress_batch(batch: Any, raw: memoryview) -> tuple[Any, Buffer]:
    """Decompresses a batch of version 2. Returns it for aiokafka's parser, and its bytes of records.

    Raises `DecompressionError`.
    """
    records = decompress(batch.attributes & _CODEC, raw[V2.size :])
    header = bytearray(raw[: V2.size])
    header[_ATTRIBUTES] = (batch.attributes & ~_CODEC & 0xFFFF).to_bytes(2, "big")
    return DefaultRecordBatch(b"".join((header, records))), records


def parse(batch: Any, count: int, records: Buffer) -> Iterator[ParsedRecord]:
    """Parses the records of a batch of version 2 one by one: a damaged record leaves its neighbours readable.

    After a record with an invalid length, the boundaries of records are unknown: the remainder is one unreadable range,
    up to the batch's last offset.
    """
    data, at, expected, last = bytes(records), 0, batch.base_offset, batch.next_offset - 1
    for _ in range(count):
        if expected > last:
            return  # the count exceeds the number of offsets
        try:
            size, begin = _varint(data, at)
            if not 0 < size <= len(data) - begin:
                raise CorruptRecordError(f"the length of a record is {size} bytes, {len(data) - begin} are left")
        except ValueError as error:
            reason = f"the boundaries of records are unknown after a damaged one: {error}"
            yield ParsedRecord(expected, batch.first_timestamp, None, None, (), reason, last)
            return
        body, at = data[begin : begin + size], begin + size
        try:
            record = _record(batch, body)
            if not expected <= record.offset <= last:
                raise CorruptRecordError(f"its offset is {record.offset}, not between {expected} and {last}")
        except ValueError as error:
            reason = f"the record is damaged: {error}"
            record = ParsedRecord(expected, batch.first_timestamp, None, None, (), reason, expected)
        expected = record.offset + 1
        yield record
    if at < len(data) and expected <= last:
        reason = f"{len(data) - at} bytes follow the last of its {count} records"
        yield ParsedRecord(expected, batch.first_timestamp, None, None, (), reason, last)


def _record(batch: Any, body: bytes) -> ParsedRecord:
    at = 1  # skips the attributes, which Kafka does not use yet
    delta_ms, at = _varint(body, at)
    delta, at = _varint(body, at)
    key, at = _nullable_bytes(body, at)
    value, at = _nullable_bytes(body, at)
    count, at = _varint(body, at)
    if not 0 <= count <= len(body):
        raise CorruptRecordError(f"its number of headers is {count}")
    headers, invalid_names = list[Header](), list[str]()
    for number in range(1, count + 1):
        raw_name, at = _nullable_bytes(body, at)
        if raw_name is None:
            raise CorruptRecordError(f"header {number} has no name")
        header_value, at = _nullable_bytes(body, at)
        try:
            name = raw_name.decode()
        except UnicodeDecodeError:
            name = raw_name.decode(errors="backslashreplace")
            invalid_names.append(f"header {number}, {name}")
        headers.append((name, header_value))
    if at != len(body):
        raise CorruptRecordError(f"it ends {len(body) - at} bytes before its length says")
    time_ms = batch.max_timestamp if batch.attributes & _LOG_APPEND_TIME else batch.first_timestamp + delta_ms
    reason = f"the name of a header is not UTF-8: {'; '.join(invalid_names[:3])}" if invalid_names else None
    return ParsedRecord(batch.base_offset + delta, time_ms, key, value, headers, reason)


def _nullable_bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Reads bytes preceded by their length, and the position after them; a negative length is null."""
    size, at = _varint(data, at)
    if size < 0:
        return None, at
    if at + size > len(data):
        raise CorruptRecordError(f"the length of a field is {size} bytes, {len(data) - at} are left")
    return data[at : at + size], at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Reads a zigzag-encoded integer of up to 64 bits, and the position after it."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise CorruptRecordError("a variable-length integer does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def parse_legacy(raw: Buffer, first: int) -> list[ParsedRecord]:
    """Parses a message of version 0 or 1, or the compressed messages that it wraps.

    Arguments:
        raw: the message, from its offset on.
        first: offset of the first record to return.

    Raises:
        ValueError: the checksum does not match, or the message is truncated or cannot be decompressed.
    """
    if zlib.crc32(raw[16:]) != int.from_bytes(raw[12:16], "big"):
        raise CorruptRecordError("its checksum does not match")
    offset, attributes, time_ms, key, value = _message(raw)
    if not attributes & _CODEC:
        return [ParsedRecord(offset, time_ms, key, value)]
    inner = decompress(attributes & _CODEC, value or b"")
    records, at = list[ParsedRecord](), 0
    while at < len(inner):
        _, length, _, version = FRAME.unpack_from(inner, at) if len(inner) - at >= FRAME.size else (0, -1, 0, 0)
        if version not in {0, 1} or not is_framed(version, length) or at + OVERHEAD + length > len(inner):
            raise CorruptRecordError("a message in it is truncated")
        inner_offset, _, inner_ms, key, value = _message(inner[at : at + OVERHEAD + length])
        records.append(ParsedRecord(inner_offset, time_ms if attributes & _LOG_APPEND_TIME else inner_ms, key, value))
        at += OVERHEAD + length
    # From version 1 on, inner offsets count from 0, and the wrapper has the offset of the last inner message.
    shift = offset - records[-1].offset if records and raw[FRAME.size - 1] else 0
    return [record for r in records if (record := r._replace(offset=r.offset + shift)).offset >= first]


def _message(raw: Buffer) -> tuple[int, int, int, bytes | None, bytes | None]:
    """Reads offset, attributes, timestamp (-1: none), key and value. Raises `CorruptRecordError`."""
    offset, _, _, version, attributes = struct.unpack_from(">qiIbb", raw)
    (time_ms,), at = (struct.unpack_from(">q", raw, 18), 26) if version else ((-1,), 18)
    parts = list[bytes | None]()
    for _ in range(2):
        if at + 4 > len(raw):
            raise CorruptRecordError("it is truncated")
        (size,) = struct.unpack_from(">i", raw, at)
        at += 4
        if size > len(raw) - at:
            raise CorruptRecordError(f"the length of a field is {size} bytes, {len(raw) - at} are left")
        parts.append(None if size < 0 else bytes(raw[at : at + size]))
        at += max(0, size)
    return offset, attributes, time_ms, parts[0], parts[1]
