"""Decompresses record batches, with every codec of Kafka, to at most `MAX_BYTES` each.

aiokafka's own functions have no limit: a batch of one MiB of zstd may hold 32 GiB of zeros, and would exhaust the
memory of every worker that reads it.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cramjam

Buffer = bytes | bytearray | memoryview

MAX_BYTES = 128 * 1024 * 1024
"""Bytes of a decompressed batch at most: 128 times the default size of a producer's batch."""

CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
"""Names of codecs by their number in the attributes of a batch; 0 is no compression."""

_FIRST_GUESS_BYTES = 16 * 1024
"""Bytes of the first output buffer at least."""

_GROWTH = 8
"""Factor from one output buffer to the next; also the ratio of compression that the first one allows for."""
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_BYTES = 16
"""Bytes of the header of xerial framing: magic, version, and oldest compatible version."""


class DecompressionError(ValueError):
    """Data is of another codec than its batch names, is truncated, or is too large once decompressed."""


class _TooLarge(DecompressionError):
    def __init__(self) -> None:
        super().__init__(f"it exceeds {MAX_BYTES >> 20} MiB once decompressed")


def decompress(codec: int, data: Buffer) -> Buffer:
    """Decompresses the records of a batch.

    Arguments:
        codec: number of the codec in the attributes of a batch, 1 to 7.
        data: the compressed records.

    Raises:
        DecompressionError: the codec is not known, or the data cannot be decompressed.
    """
    if codec not in CODECS:
        raise DecompressionError(f"its compression codec {codec} is not known: there are {_known_codecs()}")
    try:
        output: Buffer = _FUNCTIONS[codec](bytes(data))
    except DecompressionError as error:
        raise DecompressionError(f"its {CODECS[codec]} data cannot be decompressed: {error}") from None
    except Exception as error:  # cramjam passes on what its codecs raise: DecompressionError, OSError, ValueError
        raise DecompressionError(f"its {CODECS[codec]} data cannot be decompressed: {error}") from error
    return output


def _known_codecs() -> str:
    return ", ".join(f"{number} {name}" for number, name in CODECS.items())


def _gzip(data: bytes) -> Buffer:
    output = bytearray()
    while data:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        output += member.decompress(data, MAX_BYTES + 1 - len(output))
        if len(output) > MAX_BYTES:
            raise _TooLarge
        if not member.eof:
            raise DecompressionError("it is truncated")
        data = member.unused_data.lstrip(b"\0")  # gzip allows several members, each padded with zeros
    return output


def _snappy(data: bytes) -> Buffer:
    """Raw snappy, or xerial framing, which the Java client writes: blocks, each preceded by its length."""
    if not data.startswith(_XERIAL):
        return _snappy_block(data, MAX_BYTES)
    output, at = bytearray(), 0
    while at < len(data):
        if data.startswith(_XERIAL, at):  # concatenated streams have a header each
            at += _XERIAL_BYTES
            continue
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if not 0 <= size <= len(data) - at:
            raise DecompressionError(f"the length of a block is {size} bytes, {len(data) - at} are left")
        output += _snappy_block(data[at : at + size], MAX_BYTES - len(output))
        at += size
    return output


def _snappy_block(data: bytes, max_bytes: int) -> Buffer:
    if cramjam.snappy.decompress_raw_len(data) > max_bytes:
        raise _TooLarge
    return bytes(cramjam.snappy.decompress_raw(data))


def _into(decompress_into: Callable[[bytes, bytearray], int]) -> Callable[[bytes], Buffer]:
    """A function that decompresses into a buffer, and retries with a larger one after an error, up to `MAX_BYTES`.

    lz4 and zstd raise the same error for a small buffer and for damaged data; only the largest buffer tells them apart.
    """

    def decompress_growing(data: bytes) -> Buffer:
        size = max(_FIRST_GUESS_BYTES, _GROWTH * len(data))
        while True:
            size = min(size, MAX_BYTES)
            buffer = bytearray(size)
            try:
                return memoryview(buffer)[: decompress_into(data, buffer)]
            except (cramjam.DecompressionError, OSError) as error:
                if size < MAX_BYTES:
                    size *= _GROWTH
                # Relies on the text of cramjam's error for a full buffer: "failed to write whole buffer".
                elif "whole buffer" in str(error):
                    raise _TooLarge from None
                else:
                    raise

    return decompress_growing


_FUNCTIONS: dict[int, Callable[[bytes], Any]] = {
    1: _gzip,
    2: _snappy,
    3: _into(cramjam.lz4.decompress_into),
    4: _into(cramjam.zstd.decompress_into),
}
