"""Malformed requests get a problem response where a response is possible, and are not logged as errors."""

import asyncio
import gc
import gzip
import json
import logging
import socket
import struct
import zlib
from typing import Any

import pytest

from tests.unit.http.fakes import ORDER, Running, until

PROBLEM = "application/problem+json"
ORDER_JSON = json.dumps(ORDER).encode()
POST = b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GZIP = gzip.compress(ORDER_JSON)


def posted(body: bytes, *headers: bytes) -> bytes:
    return POST + b"".join(h + b"\r\n" for h in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def encoded(body: bytes, encoding: bytes) -> bytes:
    return posted(body, b"Content-Encoding: " + encoding)


def chunked(*chunks: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


def get(target: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    return (
        b"GET " + target + b" HTTP/" + version + b"\r\nHost: x\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n"
    )


ANSWERED: dict[str, tuple[bytes, set[int]]] = {
    "no gzip": (encoded(b"no gzip", b"gzip"), {400}),
    "gzip, cut": (encoded(GZIP[:-9], b"gzip"), {400}),
    "gzip, cut in its trailer": (encoded(GZIP[:-3], b"gzip"), {400}),
    "gzip, cut in its header": (encoded(GZIP[:5], b"gzip"), {400}),
    "gzip, of nothing": (encoded(b"", b"gzip"), {400}),
    "gzip, with a wrong CRC": (encoded(GZIP[:-8] + b"\0\0\0\0" + GZIP[-4:], b"gzip"), {400}),
    "gzip, and then something": (encoded(GZIP + b"more", b"gzip"), {400}),
    "gzip, twice": (encoded(GZIP + GZIP, b"gzip"), {400}),
    "gzip, in capitals": (encoded(b"no gzip", b"GZIP"), {400}),
    "gzip, in two parts": (encoded(gzip.compress(ORDER_JSON[:9]) + gzip.compress(ORDER_JSON[9:]), b"gzip"), {201}),
    "deflate": (encoded(zlib.compress(ORDER_JSON), b"deflate"), {201}),
    "deflate, bare": (encoded(zlib.compress(ORDER_JSON, wbits=-15), b"deflate"), {201}),
    "deflate, and then something": (encoded(zlib.compress(ORDER_JSON) + b"x", b"deflate"), {400}),
    "as it is": (encoded(ORDER_JSON, b"identity"), {201}),
    "no deflate": (encoded(b"no deflate", b"deflate"), {400}),
    "deflate, cut": (encoded(zlib.compress(ORDER_JSON)[:-5], b"deflate"), {400}),
    "br": (encoded(b"\x0b\x02\x80{}\x03", b"br"), {400, 415}),
    "zstd": (encoded(b"(\xb5/\xfd\x04\0\x11\0\0{}", b"zstd"), {400, 415}),
    "an encoding of raw bytes": (encoded(ORDER_JSON, b"\xff"), {415}),
    "a type of raw bytes": (POST.replace(b"application/json", b"\xff;=") + b"Content-Length: 2\r\n\r\n{}", {415}),
    "an unknown encoding": (encoded(ORDER_JSON, b"rot13"), {415}),
    "two encodings": (encoded(GZIP, b"gzip, gzip"), {415}),
    "a bomb": (encoded(gzip.compress(b" " * 50_000_000), b"gzip"), {413}),
    "a bomb of deflate": (encoded(zlib.compress(b" " * 50_000_000), b"deflate"), {413}),
    "a bomb in chunks": (
        POST
        + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(gzip.compress(b" " * 50_000_000)), gzip.compress(b" " * 50_000_000)),
        {413},
    ),
    "a chunk of no size": (chunked(b"x\r\n{}\r\n0\r\n\r\n"), {400}),
    "a chunk of a size below 0": (chunked(b"-2\r\n{}\r\n0\r\n\r\n"), {400}),
    "a chunk of a huge size": (chunked(b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n"), {400, 413}),
    "a chunk that is longer than it says": (chunked(b"1\r\n{}}}}\r\n0\r\n\r\n"), {400}),
    "a transfer encoding that is unknown": (POST + b"Transfer-Encoding: rot13\r\n\r\n{}", {400, 501}),
    "length and chunks": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", {400}),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", {400}),
    "a length below 0": (POST + b"Content-Length: -1\r\n\r\n{}", {400}),
    "a length with a plus": (POST + b"Content-Length: +2\r\n\r\n{}", {400}),
    "a length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\n{}        ", {400}),
    "a huge length": (POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}", {400, 413}),
    "no length at all": (POST + b"\r\n", {400}),
    "an empty body": (posted(b""), {400}),
    "no UTF-8": (posted(b'{"product": "\xff"}'), {400}),
    "UTF-16": (posted(json.dumps(ORDER).encode("utf-16")), {400}),
    "a byte order mark": (posted(b"\xef\xbb\xbf" + ORDER_JSON), {400, 201}),
    "half a character": (posted(json.dumps({**ORDER, "product": "\ud83e"}).encode()), {400}),
    "half a character in a name": (posted(b'{"\\ud83e": 1}'), {400}),
    "NUL": (posted(b"\0" * 10), {400}),
    "deep nesting": (posted(b"[" * 2000 + b"]" * 2000), {400}),
    "deep nesting in what nobody reads": (posted(b'{"x": ' + b"[" * 1500 + b"]" * 1500 + b"}"), {400}),
    "a number of many digits": (posted(b'{"customerId": ' + b"9" * 3000 + b"}"), {400}),
    "Infinity": (posted(json.dumps({**ORDER, "price": float("inf")}).encode()), {400}),
    "two of one name": (posted(ORDER_JSON[:-1] + b', "price": "x"}'), {400}),
    "an odd type": (posted(ORDER_JSON, b"Content-Type: \xff"), {400, 415}),
    "an unknown charset": (
        POST.replace(b"json", b"json; charset=klingon") + b"Content-Length: 2\r\n\r\n{}",
        {400, 415},
    ),
    "another charset": (POST.replace(b"json", b"json; charset=utf-16") + b"Content-Length: 2\r\n\r\n{}", {400, 415}),
    "a path with half an escape": (get(b"/v1/orders/%"), {400, 404}),
    "a path with an escape of nothing": (get(b"/v1/orders/%zz?timeout=0"), {400, 404}),
    "a path of no UTF-8": (get(b"/v1/orders/%ff%fe?timeout=0"), {400, 404}),
    "a path with NUL": (get(b"/v1/orders/%00"), {400}),
    "a path of raw bytes": (get(b"/v1/orders/\xff\xfe?timeout=0"), {400, 404}),
    "a path with a half surrogate": (get(b"/v1/orders/%ed%a0%80?timeout=0"), {400, 404}),
    "a path upwards": (get(b"/v1/orders/%2e%2e/%2e%2e?timeout=0"), {400, 404}),
    "a query of no UTF-8": (get(b"/v1/orders/a?timeout=%ff"), {400}),
    "a query of raw bytes": (get(b"/v1/orders/a?timeout=\xff"), {400}),
    "a time with an underscore": (get(b"/v1/orders/a?timeout=1_000"), {400}),
    "a time with a plus": (get(b"/v1/orders/a?timeout=%2B5"), {400}),
    "a time in other digits": (get(b"/v1/orders/a?timeout=%D9%A3"), {400}),
    "a target that is a URL": (get(b"http://elsewhere.example/v1/orders/a?timeout=0"), {400, 404}),
    "a target that is none": (get(b"http://[::/v1"), {400, 404}),
    "a target with a bad port": (get(b"http://x:99999/v1"), {400, 404}),
    "a target that is an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404, 405}),
    "a tunnel": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404, 405}),
    "a long path": (get(b"/v1/orders/" + b"a" * 9000), {400, 414}),
    "a long header": (get(b"/docs", b"X: " + b"a" * 9000), {400, 431}),
    "many headers": (get(b"/docs", *[b"X-%d: a" % n for n in range(40_000)]), {400, 431}),
    "a header without a name": (get(b"/docs", b": a"), {400}),
    "a header with a space in its name": (get(b"/docs", b"X Y: a"), {400}),
    "a header with NUL": (get(b"/docs", b"X: a\0b"), {400}),
    "a header that is folded": (get(b"/docs", b"X: a", b" b"), {200, 400}),
    "a bare line feed": (b"GET /docs HTTP/1.1\nHost: x\n\n", {200, 400}),
    "no host": (b"GET /docs HTTP/1.1\r\n\r\n", {200, 400}),
    "two hosts": (get(b"/docs", b"Host: y"), {200, 400, 403}),
    "an odd host": (b"GET /docs HTTP/1.1\r\nHost: [::\xff\r\n\r\n", {200, 400, 403}),
    "a host with a bad port": (b"GET /v1/orders/a?timeout=0 HTTP/1.1\r\nHost: x:99999\r\n\r\n", {400, 403, 404}),
    "HTTP/9.9": (get(b"/docs", version=b"9.9"), {400, 505}),
    "HTTP/0.9": (b"GET /docs\r\n\r\n", {200, 400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405, 505}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2, {400}),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", {400}),
    "an unknown method": (b"BREW /docs HTTP/1.1\r\nHost: x\r\n\r\n", {400, 405, 501}),
    "TRACE": (b"TRACE /docs HTTP/1.1\r\nHost: x\r\n\r\n", {400, 405}),
    "OPTIONS": (b"OPTIONS /v1/orders HTTP/1.1\r\nHost: x\r\n\r\n", {405}),
    "HEAD of what is not there": (b"HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "HEAD of what cannot be": (b"HEAD /v1/orders/%00 HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "an expectation nobody meets": (POST + b"Expect: wonders\r\nContent-Length: 2\r\n\r\n{}", {417}),
    "an empty expectation": (POST + b"Expect:\r\nContent-Length: 2\r\n\r\n{}", {400, 417}),
    "an upgrade": (get(b"/v1/orders/a?timeout=0", b"Connection: Upgrade", b"Upgrade: websocket"), {400, 404}),
    "an upgrade to HTTP/2": (
        get(b"/v1/orders/a?timeout=0", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"),
        {404},
    ),
    "an odd range": (get(b"/docs", b"Range: bytes=x-"), {200, 400, 416}),
    "an odd date": (get(b"/docs", b"If-Modified-Since: yesterday"), {200}),
    "odd cookies": (get(b"/docs", b"Cookie: \xff=;;=;a"), {200, 400}),
    "an odd key": (posted(ORDER_JSON, b"Idempotency-Key: \xff"), {400}),
    "an odd mark": (get(b"/v1/orders/a?timeout=0", b"X-Forwarded-By: \xff"), {400, 404}),
    "an odd accept": (get(b"/metrics", b"Accept: \xff;q=x,,;;version"), {200, 400}),
}
"""Requests by name, and their possible responses."""


@pytest.fixture
def unhandled(caplog: Any, small_heap: None) -> Any:
    """Log records from WARNING up, and unhandled errors of the event loop."""
    gc.collect()  # tasks that earlier tests left behind are reported now, not as errors of this test
    with caplog.at_level(logging.WARNING):
        yield lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info]


async def answer_to(worker: Running, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes on a new connection, then end of file; returns the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
    try:
        async with asyncio.timeout(60):
            writer.write(sent)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, _, lines = head.partition("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines.strip().split("\r\n"))}
            length = 0 if sent.startswith(b"HEAD") else int(headers.get("content-length", 0))
            return int(status.split()[1]), headers, await reader.readexactly(length)
    finally:
        writer.close()


@pytest.mark.parametrize("name", ANSWERED)
async def test_a_malformed_request_is_answered_with_a_problem_and_not_logged(
    worker: Running, unhandled: Any, name: str
) -> None:
    sent, allowed = ANSWERED[name]
    status, headers, body = await answer_to(worker, sent)
    assert status in allowed
    if status >= 400:
        assert headers["content-type"] == PROBLEM
        assert sent.startswith(b"HEAD") or (json.loads(body)["status"], bool(json.loads(body)["detail"])) == (
            status,
            True,
        )
    assert len(worker.host.produced) == (status == 201)
    async with worker.get("/healthz") as answer:
        assert answer.status == 200
    gc.collect()  # a task collected with an unretrieved exception reports it
    assert unhandled() == []


@pytest.mark.parametrize("rest", [b"x\r\n{}\r\n", b"-1\r\n", b"2\r\n{}}}", b"\0"])
async def test_a_body_that_becomes_malformed_later_is_answered(worker: Running, unhandled: Any, rest: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
    async with asyncio.timeout(5):
        writer.write(chunked(b"2\r\n{}\r\n"))
        await asyncio.sleep(0.1)  # the handler has the request, and waits for its body
        writer.write(rest)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.read()  # until the worker closes: where the next request would begin is unknown
    writer.close()
    assert (int(head.split()[1]), PROBLEM.encode() in head) == (400, True)
    gc.collect()
    assert unhandled() == []


GONE = {
    "at once": b"",
    "in the request line": b"GET /v1/ord",
    "in the headers": POST,
    "in the body": POST + b"Content-Length: 100\r\n\r\n{",
    "in a chunk": chunked(b"20\r\n{"),
    "between chunks": chunked(b"1\r\n{\r\n"),
    "in what is packed": POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(GZIP) + GZIP[:20],
    "after a request to continue": POST + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
    "while it waits": get(b"/v1/orders/a?timeout=60000"),
    "while it waits, with more": get(b"/v1/orders/a?timeout=60000") * 3,
    "in TLS": b"\x16\x03\x01\x02\x00",
}
"""What a client has sent when it disconnects."""


@pytest.mark.parametrize("how", ["closes", "resets", "sends no more"])
@pytest.mark.parametrize("name", GONE)
async def test_a_client_that_disconnects_is_no_error(worker: Running, unhandled: Any, name: str, how: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
    writer.write(GONE[name])
    await writer.drain()
    waits = name.startswith("while")
    if waits:
        await until(lambda: len(worker.host.watches) == 1)
    if how == "resets":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    elif how == "sends no more":
        writer.write_eof()
        async with asyncio.timeout(60):
            await reader.read()  # until the worker closes it
    writer.close()
    await until(lambda: len(worker.host.watches) == 0)
    async with worker.post(ORDER) as answer:
        assert answer.status == 201
    gc.collect()
    assert unhandled() == []


@pytest.mark.parametrize(
    "rest",
    [b"x\r\n{}\r\n", b"-1\r\n", b"2\r\n{}}}", b"2\r\n{}\r\n0\r\n: \0\r\n\r\n"],
)
@pytest.mark.parametrize("path", [b"/nothing", b"/docs", b"/v1/orders"])
async def test_a_malformed_remainder_after_the_response_is_no_error(
    worker: Running, unhandled: Any, path: bytes, rest: bytes
) -> None:
    """The handler does not read the body, which is malformed."""
    head = POST.replace(b"/v1/orders", path).replace(b"application/json", b"text/plain")
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
    async with asyncio.timeout(60):
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
        assert status in {404, 405, 415}
        writer.write(rest)
        writer.write_eof()
        await reader.read()
    writer.close()
    gc.collect()
    assert unhandled() == []
