"""Record batches as other producers write them, and damaged ones."""

import struct
import zlib

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEAD = 61
"""Length of the batch header, in bytes."""

BEGUN_MS = 1_700_000_000_000


def batch(base, records, codec=0, producer=-1, transactional=False):
    """A record batch of version 2. `records` are (key, value) or (key, value, headers)."""
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
    """A message set of version 0 or 1. With a codec, one message contains all others."""
    builder = LegacyRecordBatchBuilder(version, codec, 2**30)
    for number, (key, value) in enumerate(records):
        builder.append(number if codec and version else base + number, BEGUN_MS + number, key, value)
    raw = bytearray(builder.build())
    if codec:
        struct.pack_into(">q", raw, 0, base + len(records) - 1)
    return raw


def marker(base, producer, committed=False):
    """A transaction marker."""
    raw = batch(base, [(struct.pack(">HH", 0, int(committed)), b"\0" * 6)], producer=producer, transactional=True)
    struct.pack_into(">h", raw, 21, 0x30)
    return signed(raw)


def signed(raw):
    """The batch with its correct checksum."""
    if raw[16] < 2:
        struct.pack_into(">I", raw, 12, zlib.crc32(raw[16:]))
    else:
        struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return raw


def flipped(raw, at):
    """The batch with one byte changed and the old checksum."""
    raw = bytearray(raw)
    raw[at] ^= 0x55
    return raw


def replaced(raw, old, new):
    """The batch with other bytes of the same length and a correct checksum."""
    assert len(old) == len(new)
    at = raw.index(old, HEAD)
    raw = bytearray(raw)
    raw[at : at + len(old)] = new
    return signed(raw)


def of_codec(base, codec, payload, count):
    """A batch with a codec in its header, arbitrary bytes as records, and a correct checksum."""
    raw = batch(base, [(b"k", b"v")] * count)[:HEAD] + payload
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">h", raw, 21, codec)
    return signed(raw)
