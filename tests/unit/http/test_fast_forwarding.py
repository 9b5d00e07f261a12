"""The fast path forwards to the key owner with the same responses as aiohttp's application, and leaves it the rest."""

import asyncio
import gc
import re
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from yarl import URL

from runtime.hosting import FastResponse
from runtime.http import signatures
from runtime.http.fast_path import owners
from runtime.http.fast_path.owners import OwnerConnections, OwnerResponse
from runtime.http.fast_path.responses import encoded
from tests.unit.http.fakes import Cluster, decided, running, until
from tests.unit.http.test_fast_path import BODY, FAST, JSON, KNOWN, get, no_collections, post, rows, unreachable

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


async def test_a_forwarded_request_leaves_no_cycles(pair):
    owner, other = pair
    for name, request in FAST.items():
        owner.host.cluster.rows = rows()
        reader, writer = await asyncio.open_connection("127.0.0.1", other.host.url.port)
        with no_collections():
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: len(owner.host.watches) == 0)
            assert unreachable() == set(), name
        writer.close()


async def test_a_connection_to_the_owner_that_is_closed_is_no_cycle(pair):
    def connections():
        return sum(isinstance(one, owners.OwnerConnection) for one in gc.get_objects())

    owner, other = pair
    owner.host.cluster.rows = rows()
    with no_collections():
        assert (await other.raw(get("/v1/orders/o-1")))[0] == 200
        assert connections() == 1
        for connection in list(owner.connections):
            connection.force_close()
        await until(lambda: connections() == 0)


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
    """Records its calls."""

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


@asynccontextmanager
async def three(**settings):
    """Three workers that share their keys; the first owns all, and the last is asked."""
    cluster = Cluster()
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(cluster, worker_keys="k", **settings)) for _ in range(3)]


@pytest.mark.parametrize("stops", [False, True])
async def test_a_signed_request_whose_key_moves_while_it_waits_follows_it(stops):
    async with three() as (first, second, asked):
        waiting = asyncio.ensure_future(asked.raw(get("/v1/orders/o-1/validated?timeout=60000")))
        await until(lambda: len(first.host.watches) == 1)
        first.host.cluster.move(second.host.url)
        if stops:
            first.host.stop()
        await until(lambda: len(second.host.watches) == 1)
        if not stops:
            second.host.cluster.move(first.host.url)
            await until(lambda: len(first.host.watches) == 1)
        first.host.cluster.put(decided(KNOWN))
        assert (await waiting)[0] == 200


async def test_a_signature_is_checked_once_however_long_the_request_takes(monkeypatch):
    async with three() as (owner, _, asked):
        owner.host.cluster.rows = rows()
        owner.host.gate.clear()
        waiting = asyncio.ensure_future(asked.raw(post(KNOWN.to_json(), JSON)))
        await until(lambda: owner.host.transactions == 1)
        monkeypatch.setattr(signatures, "MAX_SKEW_S", -1.0)
        owner.host.gate.set()  # the order exists: aiohttp's part answers
        assert (await waiting)[0] == 200
        monkeypatch.undo()
        assert owner.by_aiohttp == 1


async def test_a_worker_that_stops_answers_what_it_has_forwarded(pair):
    owner, other = pair
    waiting = asyncio.ensure_future(other.raw(get("/v1/orders/o-1/validated?timeout=60000")))
    await until(lambda: len(owner.host.watches) == 1)
    other.host.stop()
    assert (await waiting)[0] == 503


async def test_a_preference_to_wait_does_not_begin_anew_when_the_owner_is_lost(pair):
    owner, other = pair
    started = time.monotonic()
    waiting = asyncio.ensure_future(other.raw(post(BODY, JSON, "Prefer: wait=4", target="/v1/orders?timeout=0")))
    await until(lambda: len(owner.host.watches) == 1)
    await asyncio.sleep(started + 3 - time.monotonic())  # the time that is measured
    owner.host.cluster.move(other.host.url)
    for connection in owner.connections:
        connection.force_close()
    status, headers, _ = await waiting
    assert (status, headers["preference-applied"]) == (202, "wait=4")
    assert time.monotonic() - started < 6.5


async def _silent(reader, writer):
    await reader.read()
    writer.close()


@pytest.mark.parametrize(
    ("broken", "status"), [(False, 503), (True, 500)], ids=["silent", "silent, and a replica is unreadable"]
)
async def test_an_owner_that_says_nothing_is_waited_for_until_the_deadline(monkeypatch, broken, status):
    monkeypatch.setattr("runtime.http.forwarding.GRACE_S", 0.2)
    cluster = Cluster()
    async with await asyncio.start_server(_silent, "127.0.0.1", 0) as listening, running(cluster) as worker:
        cluster.move(URL.build(scheme="http", host="127.0.0.1", port=listening.sockets[0].getsockname()[1]))
        if broken:
            monkeypatch.setattr(worker.host, "read_stale", lambda table, key: 1 / 0)
        for request in (get("/v1/orders/o-1?timeout=300"), post(BODY, JSON, target="/v1/orders?timeout=300")):
            expected = 503 if request[:1] == b"P" else status
            async with asyncio.timeout(60):
                assert (await worker.raw(request))[0] == expected
        assert worker.by_aiohttp == 0


@pytest.mark.parametrize("url", ["http://a..b:80", f"http://{'a' * 64}.example:80"])
async def test_a_name_that_is_none_is_told(url):
    assert await _ask(OwnerConnections(), URL(url)) == [None]


async def test_a_response_with_a_header_that_is_no_text_is_an_error():
    cluster = Cluster()
    async with server([OK.replace(b"Age: 3", b"Location: \xff")]) as (url, _), running(cluster) as worker:
        cluster.move(url)
        async with asyncio.timeout(60):
            assert (await worker.raw(get("/v1/orders/o-1")))[0] == 500


def test_a_status_without_a_name_is_written():
    assert encoded(FastResponse(599, b"{}"), close=False).startswith(b"HTTP/1.1 599 \r\n")
