"""The fast path answers as aiohttp's application does, and leaves to it what it does not understand."""

import asyncio
import gc
import itertools
import json
import re
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from orders_service.state import OrderView
from runtime.hosting import Answer, Endpoint, FastQuery
from runtime.http.fast_path.connection import MAX_AHEAD
from runtime.http.fast_path.requests import RequestReader
from runtime.http.fast_path.routes import FastPath
from runtime.http.inputs import ORDER_ID
from schemas.messages import Order, OrderState
from tests.unit.http.fakes import ORDER, Cluster, decided, running, until
from tests.unit.http.test_malformed import ANSWERED

KNOWN = Order(id="o-1", customer_id=1, product="x", quantity=1, price=1, created_at=datetime(2026, 1, 31, tzinfo=UTC))
DECIDED = KNOWN.model_copy(update={"id": "o-2"})
BODY = json.dumps({**ORDER, "id": "o-3"}).encode()


def get(target, *headers, version="1.1"):
    lines = [f"GET {target} HTTP/{version}", "Host: localhost:8080", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(body=BODY, *headers, target="/v1/orders"):
    lines = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


JSON = "Content-Type: application/json"
FAST = {
    "a new order": post(BODY, JSON),
    "a new order without an id": post(json.dumps(ORDER).encode(), JSON),
    "without a type": post(BODY),
    "with a charset": post(BODY, "content-type: application/json; charset=utf-8"),
    "with usual headers": post(BODY, JSON, "User-Agent: x", "Accept: */*", "X-Request-Id: 7", "Connection: Keep-Alive"),
    "a new order, in time": post(BODY, JSON, target="/v1/orders?timeout=1"),
    "a preference": post(BODY, JSON, "Prefer: wait=0"),
    "a preference for a while": post(BODY, JSON, "prefer: wait=1"),
    "an order": get("/v1/orders/o-1"),
    "an order, in time": get("/v1/orders/o-1?timeout=5"),
    "an outcome": get("/v1/orders/o-2/validated"),
    "an outcome, late": get("/v1/orders/o-1/validated?timeout=0"),
    "an outcome, a little late": get("/v1/orders/o-1/validated?timeout=1"),
    "no order": get("/v1/orders/o-9?timeout=0"),
    "no order to wait for": get("/v1/orders/o-9/validated?timeout=2"),
    "a long wait": get("/v1/orders/o-2/validated?timeout=999999999"),
    "IPv6": get("/v1/orders/o-2").replace(b"localhost", b"[::1]"),
}
"""Requests that the fast path answers."""

SLOW = {
    "an order that exists": post(json.dumps({**KNOWN.model_dump(mode="json", by_alias=True)}).encode(), JSON),
    "an order that is another": post(json.dumps({**ORDER, "id": "o-1"}).encode(), JSON),
    "an invalid order": post(b'{"customerId": "x"}', JSON),
    "no JSON": post(b"{", JSON),
    "another type": post(BODY, "Content-Type: text/plain"),
    "two types": post(BODY, JSON, "Content-Type: text/plain"),
    "an odd preference": post(BODY, JSON, "Prefer: wait = 0"),
    "two preferences": post(BODY, JSON, "Prefer: wait=0", "Prefer: wait=0"),
    "a preference, the order exists": post(KNOWN.to_json(), JSON, "Prefer: wait=0"),
    "a key": post(json.dumps(ORDER).encode(), JSON, "Idempotency-Key: k"),
    "another parameter of a command": post(BODY, JSON, target="/v1/orders?x=1"),
    "an odd timeout of a command": post(BODY, JSON, target="/v1/orders?timeout=x"),
    "an unknown header": post(BODY, JSON, "X-Other: 1"),
    "an id that is encoded": get("/v1/orders/o%2D1"),
    "an id of other letters": get("/v1/orders/%C3%A4?timeout=0"),
    "an odd timeout": get("/v1/orders/o-1?timeout=x"),
    "a timeout with a sign": get("/v1/orders/o-1?timeout=+1"),
    "two timeouts": get("/v1/orders/o-1?timeout=1&timeout=2"),
    "no timeout": get("/v1/orders/o-1?timeout="),
    "another parameter": get("/v1/orders/o-1?x=1"),
    "another time": get("/v1/orders/o-1?at=2026-01-31T12:00:00Z"),
    "a fragment": get("/v1/orders/o-1#x"),
    "HTTP/1.0": get("/v1/orders/o-1", version="1.0"),
    "the last request": get("/v1/orders/o-1", "Connection: close"),
    "a read with a body": get("/v1/orders/o-1", "Content-Length: 1") + b"x",
    "another route": get("/healthz"),
    "no route": get("/nothing"),
    "another method": get("/v1/orders/o-1").replace(b"GET", b"PUT"),
    "HEAD": get("/v1/orders/o-1").replace(b"GET", b"HEAD"),
    "a method in small letters": get("/v1/orders/o-1").replace(b"GET", b"get"),
    "an upgrade": get("/v1/orders/o-1", "Connection: Upgrade", "Upgrade: websocket"),
    "an absolute target": get("http://localhost/v1/orders/o-1"),
    "two slashes": get("//v1/orders/o-1"),
    "dots": get("/v1/orders/../orders/o-1"),
    "an odd host": get("/v1/orders/o-1").replace(b"localhost:8080", b"a b"),
    "an expectation": post(BODY, JSON, "Expect: 100-continue"),
    "a body that is too large": post(BODY + b" " * 5000, JSON),
    "chunks": post(b"", JSON, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"") + b"0\r\n\r\n",
}
"""Requests that the fast path leaves to aiohttp."""


def rows():
    """The rows that the requests are about."""
    return {"o-1": OrderView(order=KNOWN), "o-2": decided(DECIDED)}


def _cluster():
    cluster = Cluster()
    cluster.rows = rows()
    return cluster


@asynccontextmanager
async def both():
    """A worker with the fast path, and one without, which own the same rows each."""
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(running(_cluster(), max_body_bytes=4096, http_fast_path=fast))
            for fast in (True, False)
        ]
        yield workers


async def _said(worker, pieces):
    """All that a worker answers to these pieces of a connection, without what differs between any two answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
    try:
        async with asyncio.timeout(60):
            for piece in pieces[:-1]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            # The answer to this is the last one, and closes the connection.
            writer.write(pieces[-1] + get("/v1/orders/o-1", "Connection: close"))
            said = await reader.read()
    except ConnectionError:
        said = b"reset"
    finally:
        writer.close()
    said = re.sub(rb"(\r\nDate: )[^\r]+", rb"\1-", said)
    said = re.sub(rb'"createdAt":"[^"]+"', b'"createdAt":"-"', said)
    said = re.sub(rb"error_id=[0-9a-f-]+|urn:uuid:[0-9a-f-]+", b"-", said)
    return re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"-", said)


async def _body_of_next(reader):
    """Reads the next response of a connection. Returns its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))


def _written(worker):
    return [(order.id if "-" not in order.id[8:] else "generated", order.product) for order in worker.host.produced]


async def assert_same(workers, *pieces):
    fast, slow = [await _said(worker, pieces) for worker in workers]
    assert fast == slow
    assert _written(workers[0]) == _written(workers[1])
    for worker in workers:
        await until(lambda worker=worker: len(worker.host.watches) == 0)
        worker.host.cluster.rows = rows()
        worker.host.produced.clear()


@pytest.mark.parametrize("requests", [FAST, SLOW], ids=["fast", "slow"])
async def test_a_request_is_answered_as_by_aiohttp(requests):
    async with both() as workers:
        for request in requests.values():
            await assert_same(workers, request)


INCOMPARABLE = {"a path with half an escape", "an upgrade to HTTP/2", "many headers", "an odd accept"}
"""Requests of `ANSWERED` that wait for long, end no response, reset the connection at any time, or ask for metrics."""


async def test_a_malformed_request_is_answered_as_by_aiohttp():
    async with both() as workers:
        for request in [request for name, (request, _) in ANSWERED.items() if name not in INCOMPARABLE]:
            await assert_same(workers, request)


# Well-formed ones: with a malformed one behind it in the same piece, aiohttp drops a request, else it answers it.
WELL_FORMED = [*FAST.values(), *[request for name, request in SLOW.items() if "small letters" not in name]]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(WELL_FORMED), min_size=1, max_size=3), st.lists(st.floats(0, 1), max_size=4))
def test_pieces_of_pipelined_requests_are_answered_as_by_aiohttp(requests, cuts):
    sent = b"".join(requests)
    at = sorted({round(cut * len(sent)) for cut in cuts} | {0, len(sent)})
    pieces = [sent[start:end] for start, end in itertools.pairwise(at)]

    async def compare():
        async with both() as workers:
            await assert_same(workers, *pieces)

    asyncio.run(compare())


@pytest.mark.parametrize("name", [*FAST, *SLOW])
async def test_the_fast_path_answers_what_it_understands_and_nothing_else(name):
    async with running(_cluster(), max_body_bytes=4096) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
        writer.write(FAST.get(name) or SLOW[name])
        await reader.readuntil(b"\r\n\r\n")
        assert (worker.by_aiohttp > 0) == (name in SLOW)
        writer.close()


@contextmanager
def no_collections():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def unreachable():
    """Classes of the runtime whose objects only the garbage collector frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return {kind.__qualname__ for kind in map(type, gc.garbage) if kind.__module__.startswith("runtime.")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize("name", FAST)
async def test_a_request_leaves_no_cycles(name):
    """Collections of what requests left took up to 140 ms, in which nothing else was answered."""
    async with running(_cluster()) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
        with no_collections():
            writer.write(FAST[name])
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: len(worker.host.watches) == 0)
            assert unreachable() == set()
        writer.close()


async def test_a_client_that_leaves_leaves_no_cycles():
    def readers():
        return sum(isinstance(one, RequestReader) for one in gc.get_objects())

    async with running(_cluster()) as worker:
        before = readers()
        with no_collections():
            for request in (get("/v1/orders/o-2"), get("/healthz"), get("/v1/orders/o-1/validated?timeout=9")):
                _, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
                writer.write(request)
                await until(lambda: readers() == before + 1)
                writer.close()
                await until(lambda: readers() == before)


@pytest.mark.parametrize("other", [get("/healthz"), post(b"{", JSON)], ids=["a read", "a body"])
async def test_a_connection_returns_to_the_fast_path_after_another_request(other):
    async with running(_cluster()) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
        for number in range(10):
            for request in (other, get("/v1/orders/o-1")):
                writer.write(request)
                await _body_of_next(reader)
                assert worker.by_aiohttp == number + 1
        writer.close()


async def test_a_request_that_comes_before_aiohttp_waits_for_it_is_one_of_the_fast_path(monkeypatch):
    handle = web.RequestHandler._handle_request

    async def handle_and_read_on(connection, *arguments):
        handled = await handle(connection, *arguments)
        connection.data_received(get("/v1/orders/o-1"))
        return handled

    monkeypatch.setattr(web.RequestHandler, "_handle_request", handle_and_read_on)
    async with running(_cluster()) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
        writer.write(get("/healthz"))
        async with asyncio.timeout(60):
            for _ in range(2):
                await _body_of_next(reader)
        assert worker.by_aiohttp == 1
        writer.close()


async def test_a_body_that_comes_after_the_response_is_not_read_as_a_request():
    body = get("/v1/orders/o-1")
    async with both() as workers:
        for worker in workers:
            reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
            writer.write(get("/healthz", f"Content-Length: {len(body)}"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(body + get("/readyz", "Connection: close"))
            async with asyncio.timeout(60):
                assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 1
            writer.close()


async def test_a_request_in_single_bytes_is_answered():
    async with running(_cluster()) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
        for byte in post(BODY, JSON):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n")).split()[1] == b"201"
        assert worker.by_aiohttp == 0
        writer.close()


def _count(method, route, status):
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("faust_orders_http_request_duration_seconds_count", labels) or 0


def _seconds(method, route, status):
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("faust_orders_http_request_duration_seconds_sum", labels) or 0


@pytest.mark.parametrize("fast", [True, False])
async def test_each_request_counts_once_with_the_time_it_took(fast):
    outcome, single = ("GET", "/v1/orders/{id}/validated"), ("GET", "/v1/orders/{id}")
    series = [("POST", "/v1/orders", 201), (*outcome, 504), (*single, 200), (*single, 503)]
    async with running(_cluster(), http_fast_path=fast) as worker:
        before, seconds = [_count(*one) for one in series], _seconds(*single, 503)
        await worker.post(ORDER)
        await worker.get("/v1/orders/o-1/validated?timeout=1")
        await worker.get("/v1/orders/o-1")
        waiting = asyncio.ensure_future(worker.get("/v1/orders/o-9"))
        await until(lambda: len(worker.host.watches) == 1)
        await asyncio.sleep(0.05)  # what is measured
        worker.host.stop()
        assert (await waiting).status == 503
        assert [_count(*one) for one in series] == [number + 1 for number in before]
        assert _seconds(*single, 503) - seconds >= 0.05
        assert REGISTRY.get_sample_value("faust_orders_http_requests_in_flight") == 0


async def test_a_request_whose_key_moves_while_it_waits_is_answered_by_the_new_owner(cluster):
    async with running(cluster) as first, running(cluster) as second:
        waiting = asyncio.ensure_future(first.get("/v1/orders/o-1/validated?timeout=60000"))
        await until(lambda: len(first.host.watches) == 1)
        cluster.move(second.host.url)
        await until(lambda: len(second.host.watches) == 1)
        cluster.put(decided(KNOWN))
        async with await waiting as answer:
            assert (answer.status, (await answer.json())["state"]) == (200, "VALIDATED")
        assert first.by_aiohttp == 1


async def test_a_wait_that_is_handed_over_ends_in_time(cluster):
    async with running(cluster) as worker:
        waiting = asyncio.ensure_future(worker.get("/v1/orders/o-1/validated?timeout=300"))
        await until(lambda: len(worker.host.watches) == 1)
        started = asyncio.get_running_loop().time()
        worker.host.here = False
        cluster.move(cluster.owner)
        async with await waiting as answer:
            assert answer.status == 503
        assert asyncio.get_running_loop().time() - started < 30, "not once more from the beginning"


async def test_requests_behind_one_that_waits_are_answered_in_order_and_reading_stops_at_a_limit():
    async with running(_cluster()) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.host.url.port)
        writer.write(get("/v1/orders/o-9/validated"))
        await until(lambda: len(worker.host.watches) == 1)
        behind = get("/v1/orders/o-1", "User-Agent: " + "x" * 900)
        count = 20 * MAX_AHEAD // len(behind)
        writer.write(behind * count)
        [connection] = worker._runner.server.connections
        await until(lambda: len(connection._ahead) > MAX_AHEAD)
        assert len(connection._ahead) < 6 * MAX_AHEAD
        worker.host.cluster.put(decided(KNOWN.model_copy(update={"id": "o-9"})))
        states = []
        async with asyncio.timeout(60):
            for _ in range(count + 1):
                body = await _body_of_next(reader)
                states.append((json.loads(body)["id"], json.loads(body)["state"]))
        assert states == [("o-9", OrderState.VALIDATED)] + [("o-1", OrderState.CREATED)] * count
        writer.close()


async def test_an_unexpected_error_is_a_500_and_the_connection_lives_on(monkeypatch, caplog):
    async with running(_cluster()) as worker, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:
        url = worker.host.url.origin()
        with monkeypatch.context() as broken:
            broken.setattr(worker.host, "read", lambda table, key: 1 / 0)
            async with client.get(url / "v1/orders/o-1") as answer:
                assert answer.status == 500
                detail = (await answer.json())["detail"]
        assert detail.rpartition("=")[2].rstrip(".") in caplog.text
        async with client.get(url / "v1/orders/o-1") as answer:
            assert answer.status == 200
        assert worker.by_aiohttp == 0


async def test_a_fast_query_must_not_hide_another_endpoint(worker):
    query = FastQuery(None, None, None, None)
    fast = Endpoint("GET", "/v1/orders/{id}", None, "a", "", "", {}, parameters=(ORDER_ID,), fast=query)
    other = Endpoint("GET", "/v1/orders/newest", None, "b", "", "", {200: Answer("")})
    with pytest.raises(ValueError, match="/v1/orders/newest"):
        FastPath(worker.host, (fast, other), Counter())
