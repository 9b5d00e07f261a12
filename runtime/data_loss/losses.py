"""Reports records that the broker removed before a worker read them: in the log and metrics, as dead letters, or fatal.

Causes are retention, DeleteRecords, recreated topics, and truncated logs (unclean leader election). A reader whose
position the broker does not have any more reports the range here before it continues elsewhere.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from runtime.errors import WorkerError
from runtime.metrics.loop import METRICS, LoopMetrics
from runtime.model.dead_letters import LOST_UNTIL
from runtime.model.records import Offsets, Record, TopicPartition

log = logging.getLogger(__name__)


class LossPath(StrEnum):
    """Which reader of a worker finds records lost: of inputs, of changelogs in a restore, of a standby replica."""

    INPUT = "input"
    CHANGELOG = "changelog"
    STANDBY = "standby"


class LossCause(StrEnum):
    """Why records are lost, as far as the broker's responses show."""

    REMOVED = "removed"
    """The log begins after the position: retention or DeleteRecords."""
    CUT_OFF = "cut-off"
    """The log ends before the position: the topic was deleted and recreated, or truncated."""
    RECREATED = "recreated"
    """The topic is another one under the same name: it was deleted and recreated."""
    OFFSETS_GONE = "offsets-gone"
    """The committed offsets of the group are gone, and the log start offset is above 0: what was read is unknown."""
    UNREADABLE = "unreadable"
    """The records exist, but cannot be decoded."""


REMEDIES = {
    LossCause.REMOVED: "raise retention.ms of the topic above the longest time that a worker may be stopped or behind",
    LossCause.CUT_OFF: "disable unclean.leader.election.enable, and delete no topic that services still read",
    LossCause.RECREATED: "delete no topic that services still read",
    LossCause.OFFSETS_GONE: "raise offsets.retention.minutes above the longest time that a group may be stopped",
    LossCause.UNREADABLE: "check the disks of the brokers, and producers that are not Kafka's",
}
"""What to do, by cause."""

_RESTARTED = "and later records of the old log were never read; the new log is read from its start"
DESCRIPTIONS = {
    LossCause.REMOVED: "records {first} to {last} were removed (retention or DeleteRecords) before they were read",
    LossCause.CUT_OFF: "offsets {first} to {last} are gone: the topic was deleted and recreated, or truncated, "
    + _RESTARTED,
    LossCause.RECREATED: "offsets {first} to {last} are gone: the topic was deleted and recreated, " + _RESTARTED,
    LossCause.OFFSETS_GONE: "records {first} to {last} were removed, and the committed offsets have expired: how many "
    "of the records had been read is unknown",
    LossCause.UNREADABLE: "records {first} to {last} cannot be decoded",
}


@dataclass(frozen=True, slots=True)
class Loss:
    """A range of offsets, `end` not included, whose records are gone; some may have been transaction markers.

    `end` equal to `first` means that the end of the range is unknown.
    """

    topic: str
    partition: int
    first: int
    end: int
    path: LossPath
    cause: LossCause

    @property
    def count(self) -> int:
        """Number of offsets: the range had as many records at most."""
        return max(1, self.end - self.first)

    @property
    def last(self) -> str:
        """The last offset of the range, or `unknown`."""
        return str(self.end - 1) if self.end > self.first else "unknown"

    def record(self) -> Record:
        """A record that represents the range in a batch, where it becomes a dead letter."""
        bounds = ((LOST_UNTIL, str(self.end).encode()),)
        return Record(self.topic, self.partition, self.first, 0, None, None, bounds, unreadable=self.description)

    @property
    def description(self) -> str:
        """Cause and offsets, for the dead letter."""
        return DESCRIPTIONS[self.cause].format(first=self.first, last=self.last)

    def __str__(self) -> str:
        return (
            f"records lost: topic {self.topic} partition {self.partition} offsets {self.first} to {self.last} "
            f"({self.path}, {self.cause})"
        )


class RecordsLost(WorkerError):
    """Records are lost, and `ON_LOST_RECORDS=stop` ends the worker before it reads on."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(
            f"{loss}. Nothing was skipped. Remedy: {REMEDIES[loss.cause]}. "
            "To continue without these records set ON_LOST_RECORDS=continue"
        )
        self.loss = loss


class LossReporter:
    """Reports lost records: an ERROR in the log and a metric, once per range.

    Arguments:
        metrics: counts offsets lost, by topic.
        stop: whether a loss ends the worker.
        failed: called with `RecordsLost` then, before it is raised.
        persist: makes the loss of a changelog or a standby replica durable, for the audit. The loss of an input is a
            dead letter in the transaction that commits the offsets behind it.
    """

    def __init__(
        self,
        metrics: LoopMetrics = METRICS,
        *,
        stop: bool = False,
        failed: Callable[[BaseException], None] = lambda error: None,
        persist: Callable[[Loss], Awaitable[None]] | None = None,
    ) -> None:
        self._metrics = metrics
        self._stop = stop
        self._failed = failed
        self._persist = persist
        self._reported: dict[tuple[str, int, LossPath], tuple[int, int]] = {}
        """The range reported last: a repeated restore reports it again, perhaps longer."""
        self.uncommitted: set[TopicPartition] = set()
        """Inputs without a committed offset. The next batch commits one: without it, a removal before the first record
        is read would go unnoticed."""
        self._unprocessed: dict[TopicPartition, Loss] = {}
        self._unpersisted: list[Loss] = []

    def report(self, topic: str, partition: int, first: int, end: int, path: LossPath, cause: LossCause) -> Loss:
        """Reports that offsets from `first` up to, not including, `end` are lost. Raises `RecordsLost` if configured.

        The reader of a changelog awaits `flush` before it reads on.
        """
        loss = Loss(topic, partition, first, end, path, cause)
        key = topic, partition, path
        before = self._reported.get(key)
        if before != (first, end):
            self._reported[key] = first, end
            log.error(
                "records lost topic=%s partition=%d first=%d last=%s count=%d path=%s cause=%s remedy=%r",
                topic,
                partition,
                first,
                loss.last,
                loss.count,
                path,
                cause,
                REMEDIES[cause],
            )
            grown = before is not None and before[0] == first and before[1] < end
            self._metrics.lost(topic, end - before[1] if before is not None and grown else loss.count)
        if self._stop:
            error = RecordsLost(loss)
            self._failed(error)
            raise error
        if path is LossPath.INPUT:
            self._unprocessed[TopicPartition(topic, partition)] = loss
        elif before != (first, end):
            self._unpersisted.append(loss)
        return loss

    async def flush(self) -> None:
        """Waits until reported losses of changelogs and standby replicas are durable. Raises what `persist` raises."""
        while self._unpersisted and self._persist is not None:
            loss = self._unpersisted[0]
            await self._persist(loss)
            if loss in self._unpersisted:
                self._unpersisted.remove(loss)

    def reset(self) -> None:
        """Forgets losses that are in no batch yet: a restore checks all positions again."""
        self._unprocessed.clear()
        self.uncommitted.clear()

    def without_loss(self, positions: Offsets) -> Offsets:
        """The positions that may be committed before a batch dead-letters the losses of their inputs."""
        return {tp: offset for tp, offset in positions.items() if tp not in self._unprocessed}

    def pop(self, owned: Collection[TopicPartition]) -> list[Loss]:
        """The losses of owned inputs that are in no batch yet, each once. If a batch fails, the restore reports them
        again."""
        found, self._unprocessed = self._unprocessed, {}
        return [loss for tp, loss in found.items() if tp in owned]
