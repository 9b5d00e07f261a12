"""A worker also listens on the well-known port of a service, if it can."""

import logging
import socket
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from ecosystem.embedded.ports import free_ports
from runtime.common.settings import Settings
from runtime.worker.worker import Worker
from tests.unit.http.fakes import HOSTED


@asynccontextmanager
async def serving(tmp_path, also, **settings):
    """A worker with a service that is expected on the port `also`, as far as it serves before Kafka is up."""
    worker = Worker([replace(HOSTED, port=also)], Settings(**{"http_port": free_ports(1)[0], **settings}))
    try:
        await worker._serve()
        yield worker
    finally:
        await worker.stop()


async def answers(url):
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"{url}/healthz") as answer:
                return answer.status
        except aiohttp.ClientError:
            return None


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
async def test_a_worker_listens_on_both_ports_and_on_ipv6(tmp_path, host):
    [port] = free_ports(1)
    async with serving(tmp_path, port, http_host=host) as worker:
        assert worker.url.port == worker.settings.http_port
        urls = [f"http://{name}:{port}" for name in ("127.0.0.1", "[::1]", "localhost")]
        assert [await answers(url) for url in (*urls, f"http://127.0.0.1:{worker.url.port}")] == [200] * 4
        await worker._http.runner.drain(0)
        assert [await answers(url) for url in urls] == [None] * 3
    assert await answers(urls[0]) is None


async def test_a_port_in_use_is_logged_and_the_worker_runs(tmp_path, caplog):
    [port] = free_ports(1)
    async with serving(tmp_path, port) as first, serving(tmp_path, port) as second:
        assert [await answers(worker.url) for worker in (first, second)] == [200] * 2
        [said] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert f"port not available port={port}" in said
        assert str(second.url) in said
        await first.stop()
        assert await answers(f"http://127.0.0.1:{port}") is None, "it is no matter if it is freed later"
        assert await answers(second.url) == 200


async def test_an_ipv6_port_in_use_is_ignored(tmp_path):
    [port] = free_ports(1)
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", port))
        other.listen()
        async with serving(tmp_path, port):
            assert await answers(f"http://127.0.0.1:{port}") == 200


@pytest.mark.parametrize("settings", [{"http_port": 0}, {}])
async def test_a_worker_does_not_listen_there_unless_configured(tmp_path, settings):
    also = free_ports(1)[0] if settings else 0
    async with serving(tmp_path, also, **settings) as worker:
        assert len(worker._http.runner.addresses) == 1


async def test_the_port_of_the_worker_itself_is_opened_once(tmp_path):
    [port] = free_ports(1)
    async with serving(tmp_path, port, http_port=port) as worker:
        assert len(worker._http.runner.addresses) == 1
        assert await answers(worker.url) == 200
