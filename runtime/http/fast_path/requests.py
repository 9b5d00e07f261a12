"""Reads HTTP requests that the fast path may answer, by llhttp (httptools)."""

import enum
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

import httptools

R = TypeVar("R")

MAX_HEAD = 8190
"""Bytes of an incomplete head: aiohttp's limit of one line."""

_IGNORED = frozenset(
    (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"dnt",
        b"forwarded",
        b"pragma",
        b"priority",
        b"traceparent",  # there is no fast path while the worker traces
        b"tracestate",
        b"user-agent",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    )
)
"""Headers that no handler of a fast route reads. `tests/unit/http/test_fast_path.py` compares the responses."""

_WAIT = re.compile(rb"wait=([0-9]{1,4})")
_JSON = frozenset((b"application/json", b"application/json; charset=utf-8"))
_HOST = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    rb"(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?"  # up to 64999
)


class State(enum.Enum):
    """What is known of a request."""

    PARTIAL = enum.auto()
    """Its remainder has not arrived."""
    COMPLETE = enum.auto()
    """All of it has arrived, and nothing after it."""
    UNFIT = enum.auto()
    """Not a request of the fast path, or malformed. The bytes after it cannot be told from it."""


class RequestReader(Generic[R]):
    """Reads the requests of a connection, one at a time: `clear` begins the next one.

    Strict: a request that has anything unusual, such as a header that is not known to be without effect, a body in
    chunks, or another request behind it, is not `plain`, and is for aiohttp.

    Arguments:
        match: the route of a method and a target, if the fast path has one. Without one, a request is not plain either.
        max_body: bytes of a body at most.
        permits: whether a `Host` is one that is answered.
    """

    __slots__ = (
        "_begun",
        "_complete",
        "_headers_complete",
        "_length",
        "_match",
        "_max_body",
        "_parser",
        "_permits",
        "body",
        "forwarded",
        "plain",
        "raw",
        "route",
        "signature",
        "signed_at",
        "target",
        "wait_s",
    )

    def __init__(
        self,
        match: Callable[[bytes, bytes], R | None],
        max_body: int,
        permits: Callable[[bytes], bool],
    ) -> None:
        self._match = match
        self._permits = permits
        self._max_body = max_body
        self._parser = httptools.HttpRequestParser(self)
        self.clear()

    def close(self) -> None:
        """Ends the reader, with its connection: parser and reader have each other, which would be a cycle."""
        del self._parser

    def clear(self) -> None:
        """Forgets the request that was read."""
        self.raw = b""
        """All bytes of the request."""
        self.target = b""
        self.body = b""
        self.plain = True
        """Whether the fast path understands all of it."""
        self.route: R | None = None
        """What `match` returned; `None` before the head is complete."""
        self.wait_s: int | None = None
        """Seconds for which the client prefers to wait, if it does."""
        self.forwarded = False
        """Whether it says that another worker has forwarded it."""
        self.signed_at = self.signature = b""
        """What proves that, if workers have keys."""
        self._length = 0
        self._begun = self._headers_complete = self._complete = False

    @property
    def _may_fit(self) -> bool:
        """Whether a request of which a part has arrived may turn out to be plain: its remainder is waited for."""
        return self.plain and (self._headers_complete or len(self.raw) <= MAX_HEAD)

    def feed(self, data: bytes) -> State:
        """Reads the next bytes of the connection."""
        self.raw = self.raw + data if self.raw else data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return State.UNFIT
        if self._complete:
            if self._parser.get_http_version() != "1.1":
                self.plain = False
            return State.COMPLETE
        return State.PARTIAL if self._may_fit else State.UNFIT

    # Called by httptools. An exception there becomes an `HttpParserError`.

    def on_message_begin(self) -> None:
        if self._begun:
            raise ValueError("another request follows")
        self._begun = True

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case known if known in _IGNORED:
                pass
            case b"host":
                self.plain = self.plain and _is_plain_host(value) and self._permits(value)
            case b"content-length":
                self._length = int(value)
            case b"content-type":
                self.plain = self.plain and value in _JSON
            case b"prefer":
                self.plain = self.plain and self.wait_s is None and (wait := _WAIT.fullmatch(value)) is not None
                self.wait_s = int(wait[1]) if self.plain and wait is not None else None
            case b"x-forwarded-by":
                self.forwarded = True
            case b"x-forwarded-at":
                self.plain = self.plain and not self.signed_at
                self.signed_at = value
            case b"x-forwarded-signature":
                self.plain = self.plain and not self.signature
                self.signature = value
            case b"connection":
                self.plain = self.plain and value.lower() == b"keep-alive"
            case _:
                self.plain = False

    def on_headers_complete(self) -> None:
        self._headers_complete = True
        if self.plain:
            self.route = self._match(self._parser.get_method(), self.target)
        if self.route is None or self._length > self._max_body:
            self.plain = False

    def on_body(self, part: bytes) -> None:
        self.body = self.body + part if self.body else part

    def on_message_complete(self) -> None:
        self._complete = True


@lru_cache(maxsize=64)
def _is_plain_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None
