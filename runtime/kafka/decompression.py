"""Decompression of record batches with every codec of Kafka, of at most `MAX_BYTES` each.

aiokafka's own functions have no limit: a batch of one MiB of zstd may hold 32 GiB of zeros, and would end every worker
that reads it.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cramjam

Buffer = bytes | bytearray | memoryview

MAX_BYTES = 128 * 1024 * 1024
"""Bytes that a batch may have once decompressed: 128 times what producers put into one by default."""

CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
"""Names by the number that the attributes of a batch tell; 0 is none."""

_FIRST_GUESS_BYTES = 16 * 1024
_GROWTH = 8
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_BYTES = 16
"""Of its header: the magic, its version, and the oldest version that can read it."""


class DecompressionError(ValueError):
    """Data is not of the codec that its batch names, is cut short, or is too large once decompressed."""


class _TooLarge(DecompressionError):
    def __init__(self) -> None:
        super().__init__(f"it has more than {MAX_BYTES >> 20} MiB once decompressed")


def decompress(codec: int, data: Buffer) -> Buffer:
    """Decompresses the records of a batch.

    Arguments:
        codec: as in the attributes of a batch, 1 to 7.
        data: the compressed records.

    Raises:
        DecompressionError: the codec is not known, or the data cannot be decompressed.
    """
    if codec not in CODECS:
        raise DecompressionError(f"its compression codec {codec} is not known: there are {_known()}")
    try:
        found: Buffer = _FUNCTIONS[codec](bytes(data))
    except DecompressionError as error:
        raise DecompressionError(f"its {CODECS[codec]} data cannot be decompressed: {error}") from None
    except Exception as error:  # cramjam raises what its codecs do: errors of its own, OSError, ValueError
        raise DecompressionError(f"its {CODECS[codec]} data cannot be decompressed: {error}") from error
    return found


def _known() -> str:
    return ", ".join(f"{number} {name}" for number, name in CODECS.items())


def _gzip(data: bytes) -> Buffer:
    found = bytearray()
    while data:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        found += member.decompress(data, MAX_BYTES + 1 - len(found))
        if len(found) > MAX_BYTES:
            raise _TooLarge
        if not member.eof:
            raise DecompressionError("it is cut short")
        data = member.unused_data.lstrip(b"\0")  # gzip allows several members, and zeros behind them
    return found


def _snappy(data: bytes) -> Buffer:
    """Raw, or in the framing of the Java client: blocks, each behind its length."""
    if not data.startswith(_XERIAL):
        return _snappy_block(data, MAX_BYTES)
    found, at = bytearray(), 0
    while at < len(data):
        if data.startswith(_XERIAL, at):  # what was concatenated has a header each
            at += _XERIAL_BYTES
            continue
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if not 0 <= size <= len(data) - at:
            raise DecompressionError(f"a block of {size} bytes is announced where {len(data) - at} are left")
        found += _snappy_block(data[at : at + size], MAX_BYTES - len(found))
        at += size
    return found


def _snappy_block(data: bytes, most: int) -> Buffer:
    if cramjam.snappy.decompress_raw_len(data) > most:
        raise _TooLarge
    return bytes(cramjam.snappy.decompress_raw(data))


def _into(decompress_into: Callable[[bytes, bytearray], int]) -> Callable[[bytes], Buffer]:
    """Decompresses into a buffer that grows while it is too small; only at its largest an error is one of the data."""

    def decompress_batch(data: bytes) -> Buffer:
        size = max(_FIRST_GUESS_BYTES, _GROWTH * len(data))
        while True:
            size = min(size, MAX_BYTES)
            buffer = bytearray(size)
            try:
                return memoryview(buffer)[: decompress_into(data, buffer)]
            except (cramjam.DecompressionError, OSError) as error:
                if size < MAX_BYTES:
                    size *= _GROWTH
                elif "whole buffer" in str(error):
                    raise _TooLarge from None
                else:
                    raise

    return decompress_batch


_FUNCTIONS: dict[int, Callable[[bytes], Any]] = {
    1: _gzip,
    2: _snappy,
    3: _into(cramjam.lz4.decompress_into),
    4: _into(cramjam.zstd.decompress_into),
}
