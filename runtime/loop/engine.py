"""The engine of a worker: connects poller, loop and rebalances, and handles their failures.

It depends on ports alone (consumer, checkpoint, logs, stores, clock), so that the simulation runs the same code.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from runtime.common.partitioning import partition_of
from runtime.data_loss.losses import LossReporter
from runtime.errors import CommitFenced, CommitInDoubt, KeyNotOwned
from runtime.loop.checkpoint import Checkpoint, lasting
from runtime.loop.loop import Loop
from runtime.loop.ownership import Ownership
from runtime.loop.partitions import Partitions
from runtime.loop.poller import GroupConsumer, Poller
from runtime.loop.rebalance import Rebalance, Standbys
from runtime.loop.redo import RedoLog
from runtime.loop.timers import Timers
from runtime.metrics.loop import LoopMetrics
from runtime.model.commands import CommandQueue, PendingCommand
from runtime.model.limits import SizeLimits
from runtime.model.records import Membership, PolledBatch, TopicPartition
from runtime.model.service import Context, Service, Table
from runtime.model.topology import Topology
from runtime.model.traces import CURRENT
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects
from runtime.side_effects.scheduler import LONGEST_PAUSE_S, TIMEOUT_S
from runtime.state.restore import Restorer
from runtime.state.stores import Stores
from runtime.tracing.batch import BatchTracer
from runtime.tracing.tracer import Tracer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of an engine: consumer, logs, disk, clock.

    Arguments:
        consumer: polls records as a member of the group.
        checkpoint: makes batches durable.
        restorer: reads committed offsets and changelogs.
        stores: opens the state stores.
        clock: the time, UTC.
        standbys: keeps standby replicas of partitions that other workers own.
        losses: reports the lost records that `restorer` finds.
    """

    consumer: GroupConsumer
    checkpoint: Checkpoint
    restorer: Restorer
    stores: Stores
    clock: Callable[[], datetime]
    standbys: Standbys | None = None
    losses: LossReporter | None = None


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings of an engine.

    Arguments:
        partitions: partitions of every topic.
        session_timeout_s: seconds of silence after which the group drops a worker.
        side_effect_timeout_s: seconds after which a failing side effect is dead-lettered.
        side_effect_longest_pause_s: seconds, the longest pause between two attempts of a side effect.
    """

    partitions: int
    session_timeout_s: float
    side_effect_timeout_s: float = TIMEOUT_S
    side_effect_longest_pause_s: float = LONGEST_PAUSE_S


class Engine:
    """Polls, processes, commits and applies, while the group moves partitions.

    Arguments:
        topology: the services of the worker.
        settings: partitions and time limits.
        ports: consumer, logs, disk.
        ownership: the owned partitions.
        watches: requests that wait for rows to change.
        metrics: counts batches and restored records.
        failed: called with an error that ends the worker.
        limits: how large a message each topic accepts, as the producers of the checkpoint discover it.
        tracer: of the worker, if it traces.
    """

    MOST_FAILURES = 5
    """Commits in a row that the broker rejects for good. Then the worker ends: a single such error proves nothing."""

    def __init__(
        self,
        topology: Topology,
        settings: EngineSettings,
        ports: Ports,
        *,
        ownership: Ownership,
        watches: Watches,
        metrics: LoopMetrics,
        failed: Callable[[BaseException], None],
        limits: SizeLimits | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._topology = topology
        self._settings = settings
        self._ownership = ownership
        self._consumer = ports.consumer
        self._failed = failed
        self._limits = SizeLimits() if limits is None else limits
        self._traced = tracer is not None
        self._revision = 0
        self.commands = CommandQueue()
        self.side_effects = SideEffects(
            topology,
            self._command,
            clock=ports.clock,
            timeout_s=settings.side_effect_timeout_s,
            longest_s=settings.side_effect_longest_pause_s,
            tracer=tracer,
        )
        partitions = Partitions(
            topology, settings.partitions, ownership, ports.stores, Timers(topology), self.side_effects, watches
        )
        self.poller = Poller(
            ports.consumer,
            self.commands,
            partitions,
            session_timeout_s=settings.session_timeout_s,
            clock=ports.clock,
            restore=self._restore,
            losses=ports.losses,
        )
        losses = LossReporter() if ports.losses is None else ports.losses
        redo = RedoLog(partitions, ports.checkpoint, limits=self._limits, losses=losses, clock=ports.clock)
        self.loop = Loop(
            partitions,
            ports.checkpoint,
            clock=ports.clock,
            abandoned=self._abandoned,
            metrics=metrics,
            limits=self._limits,
            redo=redo,
            tracer=None if tracer is None else BatchTracer(tracer),
        )
        self.rebalance = Rebalance(
            partitions,
            ports.restorer,
            self.poller,
            metrics=metrics,
            failed=failed,
            standbys=ports.standbys,
            redo=redo,
            fenced=ports.consumer.rejoin,
        )

    async def revoked(self, side_effects_s: float = float("inf")) -> None:
        """Called when the group revokes all partitions: finishes the current batch, then loses them.

        Arguments:
            side_effects_s: seconds, the most to wait for running side effects; never more than three quarters of the
                time limit.
        """
        # The group waits for a member for one session. Half of it is for the work in progress.
        limit_s = self._settings.session_timeout_s / 2
        await self.rebalance.revoke(self.loop, limit_s, min(side_effects_s, 0.75 * limit_s))

    async def assigned(
        self, partitions: Collection[TopicPartition], membership: Membership, standby: Collection[int] = ()
    ) -> None:
        """Called when the group assigned partitions: restores and resumes them in the background.

        Arguments:
            partitions: all topic-partitions that this worker owns from now on.
            membership: the membership that they were assigned to.
            standby: partition numbers to keep standby replicas of.
        """
        await self.rebalance.restore_and_resume(partitions, membership, standby)

    async def step(self, batch: PolledBatch) -> None:
        """Processes one batch and answers its commands.

        Raises unexpected errors. Then nothing of the batch was acknowledged.
        """
        commands = cast("Sequence[PendingCommand[Any]]", batch.commands)
        try:
            if await self.loop.step(batch):
                for command in commands:
                    command.settle()
        finally:
            for command in commands:
                command.abandon()  # no effect on a settled command
            batch.done.set()

    def submit(self, table: Table[Any], key: str, decide: Callable[[Context], T]) -> asyncio.Future[T]:
        """Runs `decide` in the loop; its result, once it is committed. See `runtime.hosting.Host`."""
        partition = partition_of(key.encode(), self._settings.partitions)
        return self._command(self._topology.holders[table.name], partition, decide).answer

    def _command(self, service: Service, partition: int, decide: Callable[[Context], T]) -> PendingCommand[T]:
        if not self._ownership.settled(partition):
            raise KeyNotOwned(f"partition {partition} of {service.name}")
        command = PendingCommand(service, partition, decide)
        if self._traced:
            command.trace = CURRENT.get()
        self.commands.put(command)
        return command

    async def stop(self) -> None:
        """Cancels a running restore and all side effects."""
        self.commands.abandon()
        await self.side_effects.stop()
        await self.rebalance.stop()

    def _abandoned(self, error: CommitFenced | CommitInDoubt) -> None:
        failures = self.loop.failures
        if isinstance(error, CommitFenced):
            self.poller.hold()
            self.side_effects.unload()
            self.side_effects.retain(())  # the next owner may have started the same ones by now
            self._consumer.rejoin()
        elif self._limits.revision != self._revision:
            self._revision = self._limits.revision
            self.rebalance.retry()  # processes the batch again: the input of the message that was too large now fails
        elif failures >= self.MOST_FAILURES and lasting(error.__cause__):
            self._failed(error)  # too large, not authorized, or another worker with the same transactional id
        else:
            self.rebalance.retry(after=min(5.0, 0.1 * 2 ** (failures - 1)))

    def _restore(self) -> None:
        self.rebalance.retry()
