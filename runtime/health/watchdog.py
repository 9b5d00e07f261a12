"""Reports stalls of a worker to `/readyz`, log and metrics, and ends the worker if they last."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Protocol

from runtime.common.clock import utc_now
from runtime.errors import WorkerStalled
from runtime.health.backlog_age import BacklogAges
from runtime.health.stalls import Sample, Stall, StallDetector
from runtime.loop.engine import Engine
from runtime.loop.ownership import Ownership
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Offsets, TopicPartition

log = logging.getLogger(__name__)


class BrokerProbe(Protocol):
    """Requests to the broker over a connection of its own (`runtime.kafka.log_reader.KafkaLogReader`)."""

    async def last_stable_offsets(self, partitions: Collection[TopicPartition], timeout_s: float) -> Offsets:
        """The last stable offset of each partition whose leader answers within `timeout_s`."""

    async def coordinator_answers(self, timeout_s: float) -> bool:
        """Whether the group's coordinator answers within `timeout_s`."""


class Watchdog:
    """Samples a worker twelve times within its limit, at least every five seconds.

    Arguments:
        engine: of the worker.
        ownership: of the worker.
        queued: returns the partitions with fetched records that were not polled yet.
        probe: asks the broker.
        metrics: gets lag and number of stalls.
        limit_s: seconds without progress after which the worker ends; after half of them it is not ready.
        failed: called with `WorkerStalled`, once.
    """

    def __init__(
        self,
        engine: Engine,
        ownership: Ownership,
        queued: Callable[[], Collection[TopicPartition]],
        probe: BrokerProbe,
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
        self._detector = StallDetector(limit_s, 2 * self._tick_s)
        self._ages = BacklogAges()
        self.reachable: bool | None = None
        """Whether the coordinator of the group answered the last sample."""
        self.stalls: list[Stall] = []
        """The current stalls."""

    async def run(self) -> None:
        """Samples until a stall expires; then reports it as a failure and returns."""
        now = asyncio.get_running_loop().time
        before = now()
        while True:
            await asyncio.sleep(self._tick_s)
            elapsed, before = now() - before, now()
            try:
                self._publish(self._detector.observe(await self._sample(elapsed)))
            except Exception:  # an error of the watchdog must not end a healthy worker
                log.exception("watchdog failed, continues")
                continue
            if self.stalls and self.stalls[0].expired:
                self._failed(WorkerStalled(f"no progress within WATCHDOG_S {self.stalls[0]}"))
                return

    def report(self) -> list[dict[str, Any]]:
        """The current stalls, for `/readyz`."""
        return [
            {
                "what": stall.component,
                "seconds": round(stall.seconds),
                **(
                    {}
                    if stall.partition is None
                    else {**stall.partition._asdict(), "position": stall.position, "end": stall.end}
                ),
            }
            for stall in self.stalls
        ]

    async def _sample(self, elapsed: float) -> Sample:
        engine, ownership = self._engine, self._ownership
        owned = ownership.partitions
        reachable, ends = await asyncio.gather(
            self._probe.coordinator_answers(self._tick_s), self._probe.last_stable_offsets(owned, self._tick_s)
        )
        # Positions are read after the ends, so that records processed meanwhile do not count as lag.
        positions = {tp: at for tp, at in ownership.positions.items() if tp in ownership.partitions}
        self.reachable = reachable
        self._metrics.lag(
            positions, ends, self._ages.observe(utc_now().timestamp(), positions, ends, engine.poller.read)
        )
        return Sample(
            elapsed,
            reachable,
            engine.poller.polls,
            ownership.running,
            (ownership.epoch, tuple(engine.rebalance.progress.items())),
            engine.loop.failures + engine.rebalance.failures,
            positions,
            ends,
            self._queued(),
        )

    def _publish(self, stalls: list[Stall]) -> None:
        known = {(stall.component, stall.partition) for stall in self.stalls}
        for stall in stalls:
            if stall.expired or (stall.component, stall.partition) not in known:
                log.error("worker stalled %s", stall)
        if self.stalls and not stalls:
            log.warning("worker makes progress again")
        self.stalls = stalls
        self._metrics.stalled(len(stalls))
