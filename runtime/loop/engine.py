"""A worker without its surroundings: the loop, the handover, and what follows when one of them fails.

It stands on ports alone (checkpoint, client, logs, stores, clock), so a simulation runs the same code as a worker does.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, TypeVar

from runtime.common.partitioning import partition_of
from runtime.data_loss.losses import LossReporter
from runtime.errors import CommitFenced, CommitInDoubt, KeyNotOwned
from runtime.loop.checkpoint import Checkpoint, lasting
from runtime.loop.loop import Loop
from runtime.loop.ownership import Ownership
from runtime.loop.poller import GroupConsumer, PolledBatch, Poller
from runtime.loop.rebalance import Rebalance, Standbys
from runtime.loop.timers import Timers
from runtime.metrics.loop import LoopMetrics
from runtime.model.commands import CommandQueue, PendingCommand
from runtime.model.limits import SizeLimits
from runtime.model.records import Membership, TopicPartition
from runtime.model.service import Context, Service, Table
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects
from runtime.side_effects.scheduler import LONGEST_PAUSE_S, TIMEOUT_S
from runtime.state.restore import Restorer
from runtime.state.stores import Stores

T = TypeVar("T")


class Engine:
    """Takes, decides, commits and applies, while the group moves partitions about.

    Arguments:
        plan: the worker's services.
        partitions: how many partitions every topic has.
        session_timeout_s: silence after which the group drops a worker.
        ownership: what it owns.
        watches: who waits for rows to change.
        stores: its state.
        logs: offsets and changelogs.
        checkpoint: makes batches durable.
        client: its consumer.
        clock: the time, UTC.
        failed: called with what the worker cannot go on after.
        limits: how large a message each topic takes, as the checkpoint's producers learn it.
        copies: keeps copies of what other workers own.
        lost: what `logs` find to be gone.
        effect_timeout_s: seconds after which a side effect that fails is a dead letter.
        effect_pause_s: seconds, the longest pause between two attempts of one.
    """

    MOST_FAILURES = 5
    """After which a batch that the broker will not take for good ends the worker."""

    def __init__(
        self,
        topology: Topology,
        *,
        partitions: int,
        session_timeout_s: float,
        ownership: Ownership,
        watches: Watches,
        stores: Stores,
        logs: Restorer,
        checkpoint: Checkpoint,
        client: GroupConsumer,
        clock: Callable[[], datetime],
        metrics: LoopMetrics,
        failed: Callable[[BaseException], None],
        copies: Standbys | None = None,
        limits: SizeLimits | None = None,
        lost: LossReporter | None = None,
        effect_timeout_s: float = TIMEOUT_S,
        effect_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._topology = topology
        self._partitions = partitions
        self._ownership = ownership
        self._client = client
        self._session_timeout_s = session_timeout_s
        self._failed = failed
        self._limits = SizeLimits() if limits is None else limits
        self._lessons = 0
        timers = Timers(topology)
        self.calls = CommandQueue()
        self.side_effects = SideEffects(
            topology, self._call, clock=clock, timeout_s=effect_timeout_s, longest_s=effect_pause_s
        )
        self.taking = Poller(
            client, self.calls, topology.group, ownership, timers, session_timeout_s, clock, self._lost, lost
        )
        self.loop = Loop(
            topology,
            partitions,
            ownership,
            checkpoint,
            timers,
            self.side_effects,
            watches,
            clock,
            self._given_up,
            metrics,
            self._limits,
        )
        self.handover = Rebalance(
            topology,
            ownership,
            stores,
            timers,
            self.side_effects,
            watches,
            logs,
            self.taking,
            metrics,
            failed,
            copies,
            partitions,
        )

    async def revoked(self, for_effects_s: float = float("inf")) -> None:
        """The group takes partitions away. Returns once nothing is in hand any more.

        Effects are waited for so long, or for three quarters of the time there is.
        """
        # The group waits for members as long as a session may be silent: half of that is for what is in hand.
        patience_s = self._session_timeout_s / 2
        await self.handover.give_up(self.loop, patience_s, min(for_effects_s, 0.75 * patience_s))

    async def assigned(
        self, partitions: Collection[TopicPartition], membership: Membership, standby: Collection[int] = ()
    ) -> None:
        """The group has given partitions: all that this worker is to own from now on, and to be standby of."""
        await self.handover.take_over(partitions, membership, standby)

    async def step(self, take: PolledBatch) -> None:
        """One go of the loop. Raises what is a fault of ours: nothing of the batch was acknowledged."""
        try:
            if await self.loop.step(take.taken, take.epoch):
                for call in take.calls:
                    call.settle()
        finally:
            for call in take.calls:
                call.refuse()  # which was not settled
            if not take.done.done():
                take.done.set_result(None)

    async def submit(self, table: Table[Any], key: str, decide: Callable[[Context], T]) -> T:
        """Has `decide` run in the loop, and returns what it returned. See `runtime.hosting.Host`."""
        partition = partition_of(key.encode(), self._partitions)
        return await self._call(self._topology.holders[table.name], partition, decide).answer

    def _call(self, service: Service, partition: int, decide: Callable[[Context], T]) -> PendingCommand[T]:
        if not self._ownership.settled(partition):
            raise KeyNotOwned(f"partition {partition} of {service.name}")
        call = PendingCommand(service, partition, decide)
        self.calls.put(call)
        return call

    async def stop(self) -> None:
        """Ends a takeover that is under way, and effects."""
        self.calls.refuse()
        await self.side_effects.stop()
        await self.handover.stop()

    def _given_up(self, error: CommitFenced | CommitInDoubt) -> None:
        failures = self.loop.failures
        if isinstance(error, CommitFenced):
            self.taking.hold()
            self.side_effects.suspend()
            self.side_effects.keep(())  # others have had a session's time to begin the same
            self._client.rejoin()
        elif self._limits.lessons != self._lessons:
            self._lessons = self._limits.lessons
            self.handover.again()  # the same batch again, without what was too large
        elif failures >= self.MOST_FAILURES and lasting(error.__cause__):
            self._failed(error)  # tried often enough: too large, not allowed, or another worker under the same name
        else:
            self.handover.again(after=min(5.0, 0.1 * 2 ** (failures - 1)))

    def _lost(self) -> None:
        self.handover.again()
