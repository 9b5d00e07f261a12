"""One worker, or two that share the keys, for every test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.unit.http.fakes import Cluster, Running, running


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of workers."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share the event loop of their test: one that does not answer does so on purpose."""
    for limit in ("CONNECT_S", "GRACE_S", "_STANDBY_S"):
        monkeypatch.setattr(f"runtime.http.forwarding.{limit}", 60.0)


BOTH_WAYS = {
    "test_admission",
    "test_following",
    "test_malformed",
    "test_post",
    "test_queries",
    "test_routing",
    "test_standby",
}
"""Modules whose tests run with and without the fast path. The others run with it, as workers do by default."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS:
        metafunc.parametrize("_fast_path", ["fast path", "aiohttp"], indirect=True)


@pytest.fixture(autouse=True)  # so that it comes before the worker, which reads the setting
def _fast_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_FAST_PATH", str(getattr(request, "param", "fast path") == "fast path"))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def worker(cluster: Cluster) -> AsyncIterator[Running]:
    """A worker that owns all keys."""
    async with running(cluster, max_body_bytes=4096) as worker:
        yield worker


@pytest.fixture
async def pair(cluster: Cluster) -> AsyncIterator[tuple[Running, Running]]:
    """The worker that owns all keys, and one that owns none."""
    async with running(cluster) as owner, running(cluster) as other:
        yield owner, other
