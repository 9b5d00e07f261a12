"""Writes responses as aiohttp does: the same headers, in the same order."""

import time
from functools import lru_cache
from http import HTTPStatus

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from runtime.hosting import FastResponse

_SERVER = f"\r\nServer: {SERVER_SOFTWARE}".encode()
_JSON = b"Content-Type: application/json\r\n"
_END = {False: b"\r\n\r\n", True: b"\r\nConnection: close\r\n\r\n"}


class _Date:
    """The headers `Date` and `Server`, computed once a second."""

    second = 0
    lines = b""


def encoded(response: FastResponse | web.Response, *, close: bool) -> bytes:
    """The bytes of a response. `close`: the connection is closed after it. One of aiohttp must not be prepared yet."""
    kind = _JSON if isinstance(response, FastResponse) else b""
    lines = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()]).encode()
    body = response.body if isinstance(response.body, bytes) else b""
    head = b"%b%b%bContent-Length: %d%b" % (_status_line(response.status), kind, lines, len(body), _date())
    return b"%b%b%b" % (head, _END[close], body)


@lru_cache
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # of something between workers
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def _date() -> bytes:
    now = int(time.time())
    if now != _Date.second:
        _Date.second, _Date.lines = now, f"\r\nDate: {rfc822_formatted_time()}".encode() + _SERVER
    return _Date.lines
