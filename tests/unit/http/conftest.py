"""One worker, or two that share the keys, for every test."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.http.fakes import Cluster, Running, running


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share the event loop of their test: one that does not answer does so on purpose."""
    for limit in ("_CONNECT_S", "_GRACE_S", "_STANDBY_S"):
        monkeypatch.setattr(f"runtime.http.forwarding.{limit}", 60.0)


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
