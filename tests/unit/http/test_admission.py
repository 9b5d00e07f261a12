import asyncio

import aiohttp
import pytest

from tests.unit.http.fakes import ORDER, Cluster, running, until


@pytest.fixture
async def small():
    """A worker that accepts three reads and three writes at a time."""
    async with running(Cluster(), max_requests=3) as worker:
        yield worker


async def _status(call):
    async with call as answer:
        await answer.read()
        return answer.status, answer.headers.get("Retry-After")


async def test_reads_beyond_the_limit_are_answered_503_and_writes_are_accepted(small):
    waiting = [asyncio.create_task(_status(small.get(f"/v1/orders/o{n}?timeout=60000"))) for n in range(3)]
    await until(lambda: len(small.host.watches) == 3)
    assert await _status(small.get("/v1/orders/o4?timeout=60000")) == (503, "1")
    assert len(small.host.watches) == 3
    assert [(await _status(small.get(path)))[0] for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
    for n in range(3):
        assert (await _status(small.post({**ORDER, "id": f"o{n}"})))[0] == 201
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200] * 3
    assert (await _status(small.get("/v1/orders/o1")))[0] == 200


async def test_writes_beyond_the_limit_are_answered_503(small):
    small.host.gate.clear()
    posts = [asyncio.create_task(_status(small.post({**ORDER, "id": f"o{n}"}))) for n in range(3)]
    await until(lambda: small.host.transactions == 3)
    assert await _status(small.post(ORDER)) == (503, "1")
    assert (await _status(small.get("/v1/orders/o9?timeout=0")))[0] == 404
    small.host.gate.set()
    assert [status for status, _ in await asyncio.gather(*posts)] == [201] * 3
    assert (await _status(small.post(ORDER)))[0] == 201


async def test_clients_that_disconnect_free_capacity(small):
    waiting = [asyncio.create_task(_status(small.get(f"/v1/orders/o{n}?timeout=60000"))) for n in range(3)]
    await until(lambda: len(small.host.watches) == 3)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await until(lambda: len(small.host.watches) == 0)
    assert (await _status(small.get("/v1/orders/o1?timeout=0")))[0] == 404


async def test_a_stopping_worker_answers_the_next_request_of_a_connection_with_connection_close(small):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:
        url = small.host.url.origin()
        async with client.get(url / "healthz") as answer:
            assert "Connection" not in answer.headers
        small.host.stopping = True
        draining = asyncio.create_task(small.drain(20))
        await until(lambda: not small.sites)
        async with client.post(url / "v1" / "orders", json=ORDER) as answer:
            assert (answer.status, answer.headers["Connection"]) == (201, "close")
        async with asyncio.timeout(60):
            await draining
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.post(url / "v1" / "orders", json=ORDER)


async def test_an_idle_connection_does_not_delay_a_stop(small):
    async with small.get("/healthz") as answer:
        await answer.read()
    async with asyncio.timeout(60):
        await small.drain(0.1)
