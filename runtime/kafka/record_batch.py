"""Record batches as a broker stores them, read record by record: what is left when aiokafka's parser has given up.

Source: kafka.apache.org/documentation, Message Format. Version 2 (a batch), and 0 and 1 (a message, or a message that
holds compressed ones), which brokers still serve where they were written before Kafka 4.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch

from runtime.kafka.decompression import Buffer, decompress
from runtime.model.records import Header

FRAME = struct.Struct(">qiib")
"""How every version begins: offset, length of all behind it, four bytes, version ("magic")."""

OVERHEAD = 12
"""Bytes of offset and length, which the length does not count."""

V2 = struct.Struct(">qiibIhiqqqhii")
"""The head of a batch of version 2, its number of records included."""

_LEAST = {0: 14, 1: 22, 2: V2.size - OVERHEAD}
"""Least length by version."""

_CODEC = 0x07
_LOG_APPEND_TIME = 0x08
_ATTRIBUTES = slice(21, 23)


class CorruptRecordError(ValueError):
    """Bytes are not framed as a record is."""


class ParsedRecord(NamedTuple):
    """A record, or with a `fault` why there is none.

    `last_offset` is that of the last record that could not be made out, from `offset` on. It is `None` if key and value
    are as they were written; then a `fault` is one of the headers alone.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    unreadable: str | None = None
    last_offset: int | None = None


def is_framed(version: int, length: int) -> bool:
    """Whether a batch of this version may have this length."""
    return length >= _LEAST.get(version, 2**31)


def find_valid_batch(raw: bytes, start: int, offset: int) -> tuple[int, int] | None:
    """Finds the next batch of version 2 whose checksum is right: where it begins, and its first offset.

    Arguments:
        raw: what was fetched.
        start: where to search from.
        offset: the least offset that the batch may have.
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
    """A compressed batch of version 2 as one that is not, for aiokafka's parser; and its records.

    Raises `DecompressionError`.
    """
    records = decompress(batch.attributes & _CODEC, raw[V2.size :])
    head = bytearray(raw[: V2.size])
    head[_ATTRIBUTES] = (batch.attributes & ~_CODEC & 0xFFFF).to_bytes(2, "big")
    return DefaultRecordBatch(b"".join((head, records))), records


def parse(batch: Any, count: int, records: Buffer) -> Iterator[ParsedRecord]:
    """The records of a batch of version 2, each by itself: a damaged one leaves those around it readable.

    Records behind one whose length is damaged cannot be told apart: they are one fault, up to the batch's last offset.
    """
    data, at, expected, last = bytes(records), 0, batch.base_offset, batch.next_offset - 1
    for _ in range(count):
        if expected > last:
            return  # there are more records than offsets
        try:
            size, begin = _varint(data, at)
            if not 0 < size <= len(data) - begin:
                raise CorruptRecordError(f"a record of {size} bytes where {len(data) - begin} are left")
        except ValueError as error:
            fault = f"where a record begins is not known, behind a damaged one: {error}"
            yield ParsedRecord(expected, batch.first_timestamp, None, None, (), fault, last)
            return
        body, at = data[begin : begin + size], begin + size
        try:
            record = _record(batch, body)
            if not expected <= record.offset <= last:
                raise CorruptRecordError(f"its offset is {record.offset}, between {expected} and {last}")
        except ValueError as error:
            fault = f"the record is damaged: {error}"
            record = ParsedRecord(expected, batch.first_timestamp, None, None, (), fault, expected)
        expected = record.offset + 1
        yield record
    if at < len(data) and expected <= last:
        fault = f"there are {len(data) - at} bytes behind the last of its {count} records"
        yield ParsedRecord(expected, batch.first_timestamp, None, None, (), fault, last)


def _record(batch: Any, body: bytes) -> ParsedRecord:
    at = 1  # attributes, unused so far
    delta_ms, at = _varint(body, at)
    delta, at = _varint(body, at)
    key, at = _nullable(body, at)
    value, at = _nullable(body, at)
    count, at = _varint(body, at)
    if not 0 <= count <= len(body):
        raise CorruptRecordError(f"it has {count} headers")
    headers, odd = list[Header](), list[str]()
    for number in range(1, count + 1):
        raw, at = _nullable(body, at)
        if raw is None:
            raise CorruptRecordError(f"header {number} has no name")
        text, at = _nullable(body, at)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name = raw.decode(errors="backslashreplace")
            odd.append(f"header {number}, {name}")
        headers.append((name, text))
    if at != len(body):
        raise CorruptRecordError(f"it ends {len(body) - at} bytes before its length says")
    time_ms = batch.max_timestamp if batch.attributes & _LOG_APPEND_TIME else batch.first_timestamp + delta_ms
    fault = f"the name of a header is not UTF-8: {'; '.join(odd[:3])}" if odd else None
    return ParsedRecord(batch.base_offset + delta, time_ms, key, value, headers, fault)


def _nullable(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = _varint(data, at)
    if size < 0:
        return None, at
    if at + size > len(data):
        raise CorruptRecordError(f"{size} bytes are announced where {len(data) - at} are left")
    return data[at : at + size], at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in zigzag encoding, of up to 64 bits, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise CorruptRecordError("a number does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def parse_legacy(raw: Buffer, first: int) -> list[ParsedRecord]:
    """What a message of version 0 or 1 holds: itself, or compressed ones.

    Arguments:
        raw: the message, its offset included.
        first: the offset from which on records are wanted.

    Raises:
        ValueError: its checksum is wrong, it cannot be decompressed, or is not framed as a message is.
    """
    if zlib.crc32(raw[16:]) != int.from_bytes(raw[12:16], "big"):
        raise CorruptRecordError("its checksum is wrong")
    offset, attributes, time_ms, key, value = _message(raw)
    if not attributes & _CODEC:
        return [ParsedRecord(offset, time_ms, key, value)]
    inner = decompress(attributes & _CODEC, value or b"")
    found, at = list[ParsedRecord](), 0
    while at < len(inner):
        _, length, _, version = FRAME.unpack_from(inner, at) if len(inner) - at >= FRAME.size else (0, -1, 0, 0)
        if version not in {0, 1} or not is_framed(version, length) or at + OVERHEAD + length > len(inner):
            raise CorruptRecordError("a message in it is not whole")
        its, _, its_ms, key, value = _message(inner[at : at + OVERHEAD + length])
        found.append(ParsedRecord(its, time_ms if attributes & _LOG_APPEND_TIME else its_ms, key, value))
        at += OVERHEAD + length
    # From version 1 on they count from 0, and the message that holds them has the offset of the last.
    ahead = offset - found[-1].offset if found and raw[FRAME.size - 1] else 0
    return [record for r in found if (record := r._replace(offset=r.offset + ahead)).offset >= first]


def _message(raw: Buffer) -> tuple[int, int, int, bytes | None, bytes | None]:
    """Offset, attributes, time (-1: none), key and value. Raises `CorruptRecordError`."""
    offset, _, _, version, attributes = struct.unpack_from(">qiIbb", raw)
    (time_ms,), at = (struct.unpack_from(">q", raw, 18), 26) if version else ((-1,), 18)
    parts = list[bytes | None]()
    for _ in range(2):
        if at + 4 > len(raw):
            raise CorruptRecordError("it is cut short")
        (size,) = struct.unpack_from(">i", raw, at)
        at += 4
        if size > len(raw) - at:
            raise CorruptRecordError(f"{size} bytes are announced where {len(raw) - at} are left")
        parts.append(None if size < 0 else bytes(raw[at : at + size]))
        at += max(0, size)
    return offset, attributes, time_ms, parts[0], parts[1]
