"""Record batches as other producers and damaged disks make them."""

import struct
import zlib

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEAD = 61
"""Bytes of a batch before its records."""

BEGUN_MS = 1_700_000_000_000


def batch(base, records, codec=0, producer=-1, transactional=False):
    """A batch of version 2: `records` are (key, value) or (key, value, headers)."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=transactional,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        batch_size=2**30,
    )
    for number, (key, value, *headers) in enumerate(records):
        builder.append(number, BEGUN_MS + number, key, value, headers[0] if headers else [])
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, base)
    return raw


def legacy(base, records, version, codec=0):
    """A message of version 0 or 1, or with a codec one that holds all of them."""
    builder = LegacyRecordBatchBuilder(version, codec, 2**30)
    for number, (key, value) in enumerate(records):
        builder.append(number if codec and version else base + number, BEGUN_MS + number, key, value)
    raw = bytearray(builder.build())
    if codec:
        struct.pack_into(">q", raw, 0, base + len(records) - 1)
    return raw


def marker(base, producer, committed=False):
    """The marker that ends a transaction."""
    raw = batch(base, [(struct.pack(">HH", 0, int(committed)), b"\0" * 6)], producer=producer, transactional=True)
    struct.pack_into(">h", raw, 21, 0x30)
    return signed(raw)


def signed(raw):
    """The batch with the checksum that it is to have."""
    if raw[16] < 2:
        struct.pack_into(">I", raw, 12, zlib.crc32(raw[16:]))
    else:
        struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return raw


def flipped(raw, at):
    """The batch with a byte that is not what was written; its checksum stays."""
    raw = bytearray(raw)
    raw[at] ^= 0x55
    return raw


def replaced(raw, old, new):
    """The batch with other bytes of the same length in it, and the checksum of these."""
    assert len(old) == len(new)
    at = raw.index(old, HEAD)
    raw = bytearray(raw)
    raw[at : at + len(old)] = new
    return signed(raw)


def of_codec(base, codec, payload, count):
    """A batch whose head names a codec, with whatever as its records, and the right checksum."""
    raw = batch(base, [(b"k", b"v")] * count)[:HEAD] + payload
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">h", raw, 21, codec)
    return signed(raw)
