"""The workers of the deployment with their partitions and standby replicas, and the backlog of every consumer group."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from runtime.common.settings import Settings
from runtime.hosting import Host
from runtime.observation.groups import GroupReader, ObservedGroup

_READY_S = 1.5
"""Seconds for a worker to say how it is."""
_MOST_WORKERS = 64
_MOST_LAGS = 60
_BEHIND_S = 5.0
"""Seconds below which a group keeps up: workers commit once a second, and are asked every two."""


class Deployment:
    """Asks the broker and all workers, each time it is refreshed.

    Arguments:
        settings: broker and topic prefix.
        urls: base URLs by service, for those that are in no consumer group.
    """

    EVERY_S = 2.0

    def __init__(self, settings: Settings, urls: Mapping[str, str | None]) -> None:
        self.changes = 0
        self.unavailable: str | None = None
        """Why the consumer groups are not known."""
        self._groups = GroupReader(settings)
        self._urls = urls
        self._http: aiohttp.ClientSession | None = None
        self._host: Host | None = None
        self._workers: list[dict[str, Any]] = []
        self._backlog: dict[str, Any] = {"rows": [], "behind": 0, "topics": 0}

    @asynccontextmanager
    async def open(self, host: Host) -> AsyncIterator[None]:
        """Opens connections; closes them at the end of the block. `host` is this worker."""
        self._host = host
        timeout = aiohttp.ClientTimeout(total=_READY_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._http:
            try:
                yield
            finally:
                await self._groups.close()

    async def rest(self) -> None:
        """Closes the connections to the broker while nobody watches."""
        await self._groups.close()

    async def refresh(self) -> None:
        """Asks anew. Never raises for a broker or a worker that does not answer."""
        host = self._host
        assert host is not None, "not open"
        groups: Sequence[ObservedGroup] = ()
        try:
            async with asyncio.timeout(10):
                groups = await self._groups.read()
            self.unavailable = None
        except Exception as error:  # whatever it is: the other parts of the board go on
            self.unavailable = str(error) or type(error).__name__
        if self.unavailable is None:
            self._backlog = self._backlog_of(groups)
        members = {m.url: m.services for group in groups for m in group.members if m.url}
        urls = {str(host.url.origin()): (), **{_origin(url): services for url, services in members.items()}}
        for url in filter(None, self._urls.values()):
            urls.setdefault(_origin(url), ())
        asked = sorted(urls)[:_MOST_WORKERS]
        own = str(host.url.origin())
        found = await asyncio.gather(*(self._worker(url, urls[url], host if url == own else None) for url in asked))
        self._workers = list(found)
        self.changes += 1

    def url_of(self, service: str, host: Host) -> URL | None:
        """Base URL of a worker that runs a service: this one, if it does."""
        if service in host.readiness()["services"]:
            return host.url
        if configured := self._urls.get(service):
            return URL(configured)
        ready = [w for w in self._workers if service in w["services"]]
        best = next((w for w in ready if w["ready"]), ready[0] if ready else None)
        return None if best is None else URL(best["url"])

    def workers(self) -> dict[str, Any]:
        """The workers, as they are shown."""
        return {"rows": self._workers, "unavailable": self.unavailable}

    def backlog(self) -> dict[str, Any]:
        """The backlog by group and topic, as it is shown."""
        return {**self._backlog, "unavailable": self.unavailable}

    def _backlog_of(self, groups: Iterable[ObservedGroup]) -> dict[str, Any]:
        found = self._groups.backlog(list(groups))
        rows: list[dict[str, Any]] = [
            {
                "group": b.group,
                "topic": b.topic,
                "records": b.records,
                "seconds": round(b.seconds, 1),
                "longer": b.longer,
            }
            for b in found
        ]
        behind = [row for row in rows if row["seconds"] >= _BEHIND_S]
        return {"rows": behind[:_MOST_LAGS], "behind": len(behind), "topics": len(rows)}

    async def _worker(self, url: str, services: Sequence[str], own: Host | None) -> dict[str, Any]:
        told: Mapping[str, Any] | None = own.readiness() if own is not None else await self._asked(url)
        if told is None:
            return {"url": url, "services": list(services), "ready": False, "answers": False}
        return {
            "url": url,
            "answers": True,
            "own": own is not None,
            "ready": bool(told.get("ready")),
            "services": list(told.get("services") or services),
            "partitions": list(told.get("partitions") or ()),
            "backlog": len(told.get("backlog") or ()),
            "standby": {str(p): lag for p, lag in dict(told.get("standby") or {}).items()},
            "problems": _problems(told),
        }

    async def _asked(self, url: str) -> Mapping[str, Any] | None:
        assert self._http is not None, "not open"
        try:
            async with self._http.get(f"{url}/readyz") as response:
                told = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return told if isinstance(told, dict) else None


def _problems(told: Mapping[str, Any]) -> list[str]:
    """What a worker says is wrong with it."""
    result = [f"stalled: {what}" for what in told.get("stalled") or ()]
    if told.get("refused"):
        result.append(f"refused: {told['refused']}")
    for kind in ("databases", "sinks"):
        result += [f"{kind[:-1]} of {s}: {how}" for s, how in (told.get(kind) or {}).items() if how not in _WELL]
    if takeover := told.get("takeover"):
        result.append(f"restores its partitions: {takeover.get('left', 'some')} records left")
    return result[:8]


_WELL = frozenset({"open", "storing"})


def _origin(url: str) -> str:
    return str(URL(url).origin())
