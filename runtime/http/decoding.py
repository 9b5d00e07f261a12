"""Bodies that come packed (`Content-Encoding`): unpacked up to a limit, and refused if they are not whole."""

import zlib

from runtime.http.answers import HttpProblem

_ACCEPTED = "gzip, deflate"
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_DEFLATE = 8
"""In the lower half of zlib's first byte (RFC 1950, 2.2)."""


class BodyTooLong(Exception):
    """The body is longer than it may be, once it is unpacked."""


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before it was packed; `encoding` is what Content-Encoding says.

    Raises `HttpProblem` (415, 400) and `BodyTooLong`, without having unpacked more than `limit` bytes.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            bits = _GZIP
        case "deflate":
            # Some clients leave out zlib's frame.
            bits = _ZLIB if body[:1] and body[0] & 0xF == _DEFLATE else _RAW
        case _:
            detail = f"The Content-Encoding {encoding!r} is not read here. Send the body as it is, or as gzip."
            raise HttpProblem(415, detail, headers={"Accept-Encoding": _ACCEPTED})
    try:
        return _unpacked(body, bits, limit)
    except zlib.error as error:
        raise HttpProblem(400, f"The request body is not {encoding}, as its Content-Encoding says: {error}.") from None


def _unpacked(body: bytes, bits: int, limit: int) -> bytes:
    whole = b""
    while True:
        packed = zlib.decompressobj(bits)
        whole += packed.decompress(body, limit + 1 - len(whole))
        if len(whole) > limit:
            raise BodyTooLong
        if not packed.eof:
            raise zlib.error("it is cut off")
        body = packed.unused_data
        if not body:
            return whole
        if bits != _GZIP:  # which alone may have several parts (RFC 1952, 2.2)
            raise zlib.error("something follows it")
