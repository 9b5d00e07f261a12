"""Watches whether the worker gets on, tells `/readyz`, log and metrics what does not, and then ends the worker."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Protocol

from runtime.errors import WorkerStalled
from runtime.health.stalls import Sample, Stall, Stalls
from runtime.loop.engine import Engine
from runtime.loop.ownership import Ownership
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Offsets, TopicPartition

log = logging.getLogger(__name__)


class Probe(Protocol):
    """What is asked of the broker, beside everything else that is."""

    async def last_stable_offsets(self, partitions: Collection[TopicPartition], timeout_s: float) -> Offsets:
        """The last stable offset of each partition whose leader answers in time."""

    async def coordinator_answers(self, timeout_s: float) -> bool:
        """Whether the group's coordinator answers in time."""


class Watchdog:
    """Looks at a worker twelve times within its limit, at least every five seconds.

    Arguments:
        queued: the partitions of which the consumer holds something that was not taken yet.
        limit_s: how long anything may stand still. Half of it makes the worker unready, all of it ends it.
        failed: called with `WorkerStalled`, once.
    """

    def __init__(
        self,
        engine: Engine,
        ownership: Ownership,
        queued: Callable[[], Collection[TopicPartition]],
        probe: Probe,
        metrics: LoopMetrics,
        limit_s: float,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._ownership = ownership
        self._queued = queued
        self._probe = probe
        self._metrics = metrics
        self._failed = failed
        self._tick_s = min(5.0, limit_s / 12)
        self._stalls = Stalls(limit_s, 2 * self._tick_s)
        self.stalls: list[Stall] = []
        """What stands still now."""

    async def run(self) -> None:
        """Returns when the worker is to end."""
        now = asyncio.get_running_loop().time
        before = now()
        while True:
            await asyncio.sleep(self._tick_s)
            elapsed, before = now() - before, now()
            try:
                self._tell(self._stalls.look(await self._glance(elapsed)))
            except Exception:  # whoever watches must not be the first to fall over
                log.exception("watchdog failed")
                continue
            if self.stalls and self.stalls[0].over:
                self._failed(WorkerStalled(str(self.stalls[0])))
                return

    def report(self) -> list[dict[str, Any]]:
        """What stands still now, for `/readyz`."""
        return [
            {
                "what": stall.what,
                "seconds": round(stall.seconds),
                **(
                    {}
                    if stall.partition is None
                    else {**stall.partition._asdict(), "position": stall.position, "end": stall.end}
                ),
            }
            for stall in self.stalls
        ]

    async def _glance(self, elapsed: float) -> Sample:
        engine, ownership = self._engine, self._ownership
        owned = ownership.partitions
        reachable, ends = await asyncio.gather(
            self._probe.coordinator_answers(self._tick_s), self._probe.last_stable_offsets(owned, self._tick_s)
        )
        # Positions after the ends: what was decided meanwhile is not behind.
        positions = {tp: at for tp, at in ownership.positions.items() if tp in ownership.partitions}
        self._metrics.lag(positions, ends)
        return Sample(
            elapsed,
            reachable,
            engine.taking.turns,
            ownership.running,
            (ownership.epoch, tuple(engine.handover.progress.items())),
            engine.loop.failures + engine.handover.failures,
            positions,
            ends,
            self._queued(),
        )

    def _tell(self, stalls: list[Stall]) -> None:
        known = {(stall.what, stall.partition) for stall in self.stalls}
        for stall in stalls:
            if stall.over or (stall.what, stall.partition) not in known:
                log.error("worker does not get on %s", stall)
        if self.stalls and not stalls:
            log.warning("worker gets on again")
        self.stalls = stalls
        self._metrics.stalled(len(stalls))
