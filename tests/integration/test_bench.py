"""The quick form of `make bench`: for breakage, not for numbers."""

import asyncio
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench.comparison import generator
from bench.comparison.rows import SMOKE
from tests.bench_run import compared

pytestmark = pytest.mark.skipif(generator.go() is None, reason="there is no Go (apt install golang-go)")


@dataclass
class Stub:
    """A server that answers as the orders service does."""

    url: str = ""
    status: int = 201
    orders: list = field(default_factory=list)
    """What was posted."""

    async def delay(self):
        """Called before each POST is answered."""

    async def place(self, request):
        self.orders.append(await request.json())
        await self.delay()
        return web.json_response({}, status=self.status)

    async def show(self, request):
        return web.json_response({"id": request.match_info["id"], "state": "VALIDATED"})


@pytest.fixture
async def server():
    stub, app = Stub(), web.Application()
    app.router.add_post("/v1/orders", stub.place)
    app.router.add_get("/v1/orders/{id}/validated", stub.show)
    async with TestServer(app) as running:
        stub.url = f"http://127.0.0.1:{running.port}"
        yield stub


async def load(server, seconds, *arguments):
    program = generator.Generator()
    return await asyncio.to_thread(program.run, "orders", [server.url], arguments, seconds)


async def test_a_closed_loop_places_each_order_once(server):
    found = await load(server, 0.5, "-clients", "4", "-products", "3")
    ids = [order["id"] for order in server.orders]
    assert found["ok"] == len(ids) == len({*ids})
    assert found["errors"] == {}
    assert {order["product"] for order in server.orders} == {"product-0", "product-1", "product-2"}


async def test_latency_counts_from_the_time_at_which_an_order_was_due(server):
    """A server that stands still delays the orders that come meanwhile, too: none may be left out, or sent later."""
    stalled = asyncio.Lock()

    async def stall_once():
        async with stalled:
            if len(server.orders) == 20:
                await asyncio.sleep(0.5)

    server.delay = stall_once
    found = await load(server, 1, "-rate", "100")
    assert found["ok"] == 100
    assert found["validated_max"] >= 500
    assert found["validated_p90"] >= 100, "about fifty orders waited, for half of the stall on average"


async def test_connections_are_limited_and_latency_counts_the_wait_for_one(server):
    at_once, most = 0, 0

    async def work():
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.1)
        at_once -= 1

    server.delay = work
    found = await load(server, 0.4, "-rate", "50", "-connections", "2")
    assert (found["ok"], found["errors"], most) == (20, {}, 2)
    assert found["validated_max"] >= 500, "twenty orders, two at a time"


async def test_errors_are_counted_by_kind(server):
    server.status = 503
    found = await load(server, 0.2, "-rate", "50")
    assert found["errors"] == {"POST 503": 10}
    assert found["ok"] == 0


async def test_a_flood_ends_at_the_rate_that_is_sustained(server):
    one_at_a_time = asyncio.Lock()

    async def work():
        async with one_at_a_time:
            await asyncio.sleep(0.02)

    server.delay = work
    found = await load(server, 0.5, "-flood", "-rate", "40")
    assert not all(step["sustained"] for step in found["steps"])
    assert found["per_second"] <= 80, (
        "50 a second, and what a quarter of a second of delay allows in steps of half a second: 75"
    )


async def test_one_request_an_order_asks_to_wait(server):
    """The stub answers without an outcome, which is an error: that POST had to have it."""
    found = await load(server, 0.2, "-rate", "50", "-once")
    assert found["errors"] == {"POST and wait 201": 10}


async def test_each_kind_of_load_is_measured(tmp_path):
    """On a real broker and worker, with CPU and memory of both."""
    out = tmp_path / "run.json"
    options = ["--layout", "core", "--rows", ",".join(SMOKE), "--seconds", "0.3", "--pairs", "1", "--warm-up", "0"]
    report, text = await compared(out, *options)
    assert {*report["rows"]} == {*SMOKE}
    [name] = report["systems"]
    for row, systems in report["rows"].items():
        [measured] = systems[name]
        assert measured["errors"] == {}, (row, measured)
        assert {*measured["cpu_s"]} == {*measured["rss_mib"]} == {"worker", "broker"}
        assert measured["ok"] > 0 or row == "idle", (row, measured)
    assert "| 64 clients |" in text
