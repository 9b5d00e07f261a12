"""The fast path forwards to the key owner with the same responses as aiohttp's application, and leaves it the rest."""

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from yarl import URL

from runtime.http.fast_path import owners
from runtime.http.fast_path.owners import OwnerConnections, OwnerResponse
from tests.unit.http.fakes import Cluster, decided, running, until
from tests.unit.http.test_fast_path import FAST, KNOWN, get, rows

GENERATED = {"a new order without an id"}
"""Requests that any worker answers."""


async def _answer(worker, request):
    """What a worker answers, without what differs between any two answers."""
    status, headers, body = await worker.raw(request)
    headers.pop("date")
    body = re.sub(rb'"createdAt":"[^"]+"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', b"-", body)
    headers["location"] = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "-", headers.get("location", ""))
    return status, headers | {"content-length": "-"}, body


@asynccontextmanager
async def pairs(**settings):
    """Two pairs of workers, one with the fast path: the second of each asks the first."""
    async with AsyncExitStack() as stack:

        async def pair(*, fast):
            cluster = Cluster()
            return [
                await stack.enter_async_context(running(cluster, http_fast_path=fast, **settings)) for _ in range(2)
            ]

        yield await pair(fast=True), await pair(fast=False)


@pytest.mark.parametrize("settings", [{}, {"worker_keys": "k"}], ids=["without keys", "with keys"])
async def test_a_forwarded_request_is_answered_as_by_aiohttp_and_without_it(settings):
    async with pairs(**settings) as (fast, slow):
        for name, request in FAST.items():
            answers = []
            for owner, other in (fast, slow):
                owner.host.cluster.rows = rows()
                answers.append(await _answer(other, request))
                await until(lambda owner=owner: len(owner.host.watches) == 0)
            assert answers[0] == answers[1], name
            assert sum(w.by_aiohttp for w in fast) == 0, name
        assert [order.id for order in fast[1].host.produced if order.id == "o-3"] == []
        assert len(fast[0].host.produced) == len(slow[0].host.produced) > 0


async def test_requests_to_the_owner_share_connections(pair):
    owner, other = pair
    owner.host.cluster.rows = rows()
    for _ in range(5):
        assert (await other.raw(get("/v1/orders/o-1")))[0] == 200
    assert len(owner.connections) == 1
    assert owner.by_aiohttp == other.by_aiohttp == 0


async def test_an_owner_that_has_closed_an_idle_connection_is_asked_again(pair):
    owner, other = pair
    owner.host.cluster.rows = rows()
    for _ in range(3):
        assert (await other.raw(get("/v1/orders/o-1")))[0] == 200
        for connection in list(owner.connections):
            connection.force_close()


async def test_a_wait_at_the_owner_that_takes_long_is_answered_by_it(pair, monkeypatch):
    monkeypatch.setattr("runtime.http.forwarding.CHECK_OWNER_S", 0.01)
    owner, other = pair
    asked = asyncio.ensure_future(other.raw(get("/v1/orders/o-1/validated")))
    await until(lambda: len(owner.host.watches) == 1 and other.host.asked > 3)
    owner.host.cluster.put(decided(KNOWN))
    assert (await asked)[0] == 200
    assert owner.by_aiohttp == other.by_aiohttp == 0


class Caller:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def answered(self, response):
        self.told.append(response)

    def lost(self):
        self.told.append(None)


@asynccontextmanager
async def server(*answers):
    """A server that gives each request the next answer, in these pieces; `None` closes. Its URL, and requests."""
    asked, left = [], list(answers)

    async def serve(reader, writer):
        try:
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                answer = left.pop(0)
                if answer is None:
                    break
                for piece in answer:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield URL.build(scheme="http", host="127.0.0.1", port=listening.sockets[0].getsockname()[1]), asked


REQUEST = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nOther: x\r\nAge: 3\r\nContent-Length: 2\r\n\r\n{}"
READ = OwnerResponse(200, {"Content-Type": "a/b", "Age": "3"}, b"{}")


async def _ask(connections, url):
    caller = Caller()
    connections.call(url, REQUEST, caller)
    await until(lambda: bool(caller.told))
    return caller.told


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([OK], READ),
        ([bytes([byte]) for byte in OK], READ),
        (
            [OK.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(b"{}", b"2\r\n{}\r\n0\r\n\r\n")],
            READ,
        ),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], OwnerResponse(204, {}, b"")),
        ([b"nonsense\r\n\r\n"], None),
        ([OK + OK], None),
        ([OK[:-1], b""], None),
        (None, None),
    ],
    ids=["whole", "bytes", "chunks", "without a body", "nonsense", "two", "a part", "closed"],
)
async def test_a_response_of_an_owner_is_read(answer, expected):
    connections = OwnerConnections()
    async with server(answer) as (url, _):
        caller = Caller()
        call = connections.call(url, REQUEST, caller)
        if answer == [OK[:-1], b""]:
            await asyncio.sleep(0.05)
            assert caller.told == []
            call.close()
        await until(lambda: bool(caller.told))
        assert caller.told == [expected]
        connections.close()


async def test_a_connection_is_used_again_unless_the_owner_closes_it():
    connections = OwnerConnections()
    closing = OK.replace(b"Age: 3", b"Age: 3\r\nConnection: close")
    async with server([OK], [closing], [OK], [OK + b"more"], [OK]) as (url, asked):
        for expected in (READ, READ, READ, None, READ):
            assert await _ask(connections, url) == [expected]
        assert len(asked) == 5
        connections.close()


async def test_an_unreachable_owner_is_told():
    assert await _ask(OwnerConnections(), URL("http://127.0.0.1:1")) == [None]


async def test_an_abandoned_call_is_told_nothing_and_its_connection_is_closed():
    connections = OwnerConnections()
    async with server([OK], [OK]) as (url, asked):
        for connected in (False, True):
            caller = Caller()
            call = connections.call(url, REQUEST, caller)
            if connected:
                await until(lambda: len(asked) == 1)
            call.abandon()
            assert await _ask(connections, url) == [READ] if not connected else True
            assert caller.told == []
        connections.close()


async def test_a_connection_that_was_idle_for_long_is_closed(monkeypatch):
    monkeypatch.setattr(owners, "_IDLE_S", -1.0)
    connections = OwnerConnections()
    async with server(*[[OK]] * 6) as (url, _):
        callers = [Caller() for _ in range(3)]
        for caller in callers:
            connections.call(url, REQUEST, caller)
        await until(lambda: all(caller.told for caller in callers))
        await until(lambda: not connections._idle[url])
