"""What viewers get as server-sent events: the parts of the board that have changed, and the timeline of an order."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from board_service.deployment import Deployment
from board_service.explanations import Explanations
from board_service.observer import DEAD_LETTER_STREAM, BoardObserver
from board_service.timeline import Timelines
from board_service.traces import Traces
from runtime.hosting import Host
from runtime.http.answers import HttpProblem
from runtime.http.event_stream import ServerSentEvent
from runtime.observation.feed import Feed

MOST_VIEWERS = 64
"""Streams that are open at the same time, of the board and of timelines."""
_SLOW = 4
"""Ticks between two updates of what changes with every order, and is read at leisure: stock and sessions."""
_ASK_AGAIN = 4
"""Ticks after which other services are asked again for an order that the board does not follow."""
_HEARTBEAT = 30
"""Ticks of silence after which a comment is sent."""


class BoardStreams:
    """Makes the events. Each part is made once for all viewers, when it has changed.

    Arguments:
        feed: reads while there are viewers.
        observer: takes what it reads.
        deployment: workers and backlog.
        timelines: of single orders.
        about: settings that the page shows; they do not change.
        now_ms: the time, milliseconds since 1970.
    """

    def __init__(
        self,
        feed: Feed,
        observer: BoardObserver,
        deployment: Deployment,
        timelines: Timelines,
        about: dict[str, Any],
        now_ms: Callable[[], int],
    ) -> None:
        self._feed = feed
        self._observer = observer
        self._deployment = deployment
        self._timelines = timelines
        self._about = about
        self._now_ms = now_ms
        self._viewers = 0
        self._made: dict[str, tuple[Any, bytes]] = {}

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """Counts a viewer. Raises `HttpProblem` (503) if there are too many."""
        if self._viewers >= MOST_VIEWERS:
            raise HttpProblem(
                503, f"{MOST_VIEWERS} views of the board are open. Close some.", headers={"Retry-After": "5"}
            )
        self._viewers += 1
        try:
            with self._feed.viewing():
                yield
        finally:
            self._viewers -= 1

    async def board(self, host: Host, updates: int | None) -> AsyncGenerator[Sequence[ServerSentEvent], None]:
        """Yields the parts of the board that have changed, twice a second.

        Arguments:
            host: this worker.
            updates: after which the stream ends; `None`: never.
        """
        sent: dict[str, bytes] = {}
        number = 0
        while not host.stopping and (updates is None or number < updates):
            parts = self._parts(host)
            changed = [(name, data) for name, data in parts.items() if sent.get(name) is not data]
            sent.update(changed)
            yield [ServerSentEvent(str(number), name, data) for name, data in changed]
            number += 1
            if updates is None or number < updates:
                await self._feed.tick()

    @property
    def traces(self) -> Traces:
        """The newest orders, as they are now."""
        return self._observer.traces

    async def timeline(
        self, host: Host, order_id: str, updates: int | None
    ) -> AsyncGenerator[Sequence[ServerSentEvent], None]:
        """Yields the timeline of an order whenever it has changed, until its final state, or for so many ticks."""
        explanations = self._timelines.explanations(host, order_id)
        try:
            async for events in self._timeline(host, order_id, updates, explanations):
                yield events
        finally:
            explanations.close()

    async def _timeline(
        self, host: Host, order_id: str, updates: int | None, explanations: Explanations
    ) -> AsyncGenerator[Sequence[ServerSentEvent], None]:
        sent, number, waited, asked = b"", 0, 0, -_ASK_AGAIN
        while not host.stopping and (updates is None or number < updates):
            trace = self._observer.traces.get(order_id)
            followed = trace is not None and trace.whole
            if followed or number - asked >= _ASK_AGAIN:
                asked = number
                found = await self._timelines.find(self._observer.traces, host, order_id)
                if found is not None:
                    found = explanations.add_to(found)
                data = _json(found or {"id": order_id, "events": [], "state": None, "final": False})
                if data != sent:
                    sent, waited = data, 0
                    yield [ServerSentEvent(str(number), "timeline", data)]
                ended = found is not None and found["final"] and self._settled(found)
                if ended and not explanations.awaited:
                    yield [ServerSentEvent(str(number), "end", b"{}")]
                    return
            number, waited = number + 1, waited + 1
            if waited % _HEARTBEAT == 0:
                yield ()
            await self._feed.tick()

    def _settled(self, found: dict[str, Any]) -> bool:
        """Whether nothing has come for some seconds: e-mails follow the final state, and the feed may lag behind."""
        return self._now_ms() - int(found["changed"]) > 5000

    def _parts(self, host: Host) -> dict[str, bytes]:
        now, observer = self._now_ms(), self._observer
        tick = now // int(self._feed.TICK_S * 1000)
        if self._feed.sampling.share < 1:
            tick //= 2  # at high load, half as often
        slow = tick // _SLOW
        make = self._make
        read = self._feed.has_past(DEAD_LETTER_STREAM)

        def letters() -> dict[str, Any]:
            return {**observer.dead_letters.snapshot(), "read": read}

        return {
            "about": make("about", host.url, lambda: {**self._about, "url": str(host.url)}),
            "flow": make("flow", tick, lambda: {**observer.flow_snapshot(now), **self._sampled()}),
            "orders": make("orders", self._orders_version(tick), observer.orders_snapshot),
            "stock": make("stock", self._every(slow, observer.stock.changes), observer.stock.snapshot),
            "sessions": make("sessions", slow, lambda: observer.sessions.snapshot(now)),
            "deadletters": make("deadletters", (observer.dead_letters.changes, read), letters),
            "workers": make("workers", self._deployment.changes, self._deployment.workers),
            "backlog": make("backlog", self._deployment.changes, self._deployment.backlog),
        }

    def _orders_version(self, tick: int) -> Any:
        """Changes with each change of an order; while only a sample is read, with each tick."""
        changes = self._observer.traces.changes if self._feed.sampling.share == 1 else tick
        return self._observer.started_ms, changes

    def _every(self, slow: int, changes: int) -> Any:
        """A version that changes with each fourth tick at most, if there are changes."""
        return slow, changes

    def _sampled(self) -> dict[str, Any]:
        """What the page says about itself."""
        sampling = self._feed.sampling
        return {
            "since": self._observer.started_ms,
            "share": sampling.share,
            "followed": sampling.followed,
            "partitions": sampling.partitions,
            "unreadable": self._observer.unreadable,
            "unavailable": self._feed.unavailable,
        }

    def _make(self, name: str, version: Any, snapshot: Callable[[], dict[str, Any]]) -> bytes:
        """The JSON of a part, made again if its version has changed. Equal JSON is the same object."""
        before = self._made.get(name)
        if before is not None and before[0] == version:
            return before[1]
        data = _json(snapshot())
        if before is not None and before[1] == data:
            data = before[1]
        self._made[name] = (version, data)
        return data


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
