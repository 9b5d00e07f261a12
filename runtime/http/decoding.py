"""Decompresses request bodies (`Content-Encoding`) up to a size limit, and rejects truncated ones."""

import zlib

from runtime.http.answers import HttpProblem

_ACCEPTED = "gzip, deflate"
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_DEFLATE = 8
"""Compression method in the lower half of zlib's first byte (RFC 1950, 2.2)."""


class BodyTooLong(Exception):
    """The decompressed body exceeds the limit."""


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompresses a body; never produces more than `limit` + 1 bytes.

    Arguments:
        body: as received.
        encoding: value of Content-Encoding.
        limit: bytes of the result at most.

    Raises:
        HttpProblem: 415 for an unknown encoding, 400 for data that cannot be decompressed.
        BodyTooLong: the result exceeds `limit`.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            bits = _GZIP
        case "deflate":
            # Some clients omit the zlib header.
            bits = _ZLIB if body[:1] and body[0] & 0xF == _DEFLATE else _RAW
        case _:
            detail = f"The Content-Encoding {encoding!r} is not supported. Send the body uncompressed, or as gzip."
            raise HttpProblem(415, detail, headers={"Accept-Encoding": _ACCEPTED})
    try:
        return _decompress(body, bits, limit)
    except zlib.error as error:
        raise HttpProblem(400, f"The request body is not {encoding}, as its Content-Encoding says: {error}.") from None


def _decompress(body: bytes, bits: int, limit: int) -> bytes:
    result = b""
    while True:
        member = zlib.decompressobj(bits)
        result += member.decompress(body, limit + 1 - len(result))
        if len(result) > limit:
            raise BodyTooLong
        if not member.eof:
            raise zlib.error("it is truncated")
        body = member.unused_data
        if not body:
            return result
        if bits != _GZIP:  # only gzip allows several members (RFC 1952, 2.2)
            raise zlib.error("further data follow it")
