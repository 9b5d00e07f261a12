"""Reports records that the broker no longer has when a worker wants to read them: logged, counted, or fatal.

Retention, DeleteRecords, a topic that was deleted and made anew, and a log that was truncated (unclean leader election)
all leave a position that the broker does not know any more. A reader reports the range here before it continues
elsewhere.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from runtime.errors import WorkerError
from runtime.metrics.loop import METRICS, LoopMetrics
from runtime.model.dead_letters import LOST_UNTIL
from runtime.model.records import Record, TopicPartition

log = logging.getLogger(__name__)


class LossPath(StrEnum):
    """What wanted to read the lost records."""

    INPUT = "input"
    CHANGELOG = "changelog"
    STANDBY = "standby"


class LossCause(StrEnum):
    """Why the records are gone, as far as the broker's answers tell."""

    REMOVED = "removed"
    """The log begins after the position: retention or DeleteRecords."""
    CUT_OFF = "cut-off"
    """The log ends before the position: the topic was deleted and recreated, or truncated."""
    RECREATED = "recreated"
    """The topic is another one under the same name: it was deleted and recreated."""
    OFFSETS_GONE = "offsets-gone"
    """The committed offsets of the group are gone, and the log begins after offset 0: what was read is unknown."""
    UNREADABLE = "unreadable"
    """The records are there, but unreadable."""


REMEDIES = {
    LossCause.REMOVED: "keep the topic for longer (retention.ms) than a worker may be away or behind",
    LossCause.CUT_OFF: "was the topic deleted, or unclean.leader.election.enable set?",
    LossCause.RECREATED: "delete no topic that services still read",
    LossCause.OFFSETS_GONE: "keep offsets for longer (offsets.retention.minutes) than a group may be away",
    LossCause.UNREADABLE: "look for damaged disks, and for producers that are not Kafka's",
}
"""What to check, by cause."""

_ANEW = "and what followed in the old log was never read; reading began again at the start"
DESCRIPTIONS = {
    LossCause.REMOVED: "records {first} to {last} were removed (retention or DeleteRecords) before they were read",
    LossCause.CUT_OFF: "offsets {first} to {last} are gone: the topic was deleted and made anew, or truncated, "
    + _ANEW,
    LossCause.RECREATED: "offsets {first} to {last} are gone: the topic was deleted and made anew, " + _ANEW,
    LossCause.OFFSETS_GONE: "records {first} to {last} were removed, and the committed offsets that would tell how "
    "many of them had been read have expired",
    LossCause.UNREADABLE: "records {first} to {last} cannot be made out",
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
        """A record that stands for the range in a batch, where it is dead-lettered."""
        bounds = ((LOST_UNTIL, str(self.end).encode()),)
        return Record(self.topic, self.partition, self.first, 0, None, None, bounds, unreadable=self.says)

    @property
    def says(self) -> str:
        """Description for the dead letter."""
        return DESCRIPTIONS[self.cause].format(first=self.first, last=self.last)

    def __str__(self) -> str:
        return (
            f"records lost: topic {self.topic} partition {self.partition} offsets {self.first} to {self.last} "
            f"({self.path}, {self.cause})"
        )


class RecordsLost(WorkerError):
    """Records are lost, and `ON_LOST_RECORDS=stop` ends the worker."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(
            f"{loss}. Nothing was passed over. Check: {REMEDIES[loss.cause]}. "
            "To go on without these records set ON_LOST_RECORDS=continue"
        )
        self.loss = loss


class LossReporter:
    """Reports lost records: an ERROR in the log and a metric, once per range.

    Arguments:
        metrics: counts offsets lost, by topic.
        stop: whether a loss ends the worker.
        failed: called with `RecordsLost` then, before it is raised.
        keep: makes the loss of a changelog or a copy durable, for the audit. That of an input is a dead letter, written
            in one transaction with the positions that pass over it.
    """

    def __init__(
        self,
        metrics: LoopMetrics = METRICS,
        *,
        stop: bool = False,
        failed: Callable[[BaseException], None] = lambda error: None,
        keep: Callable[[Loss], Awaitable[None]] | None = None,
    ) -> None:
        self._metrics = metrics
        self._stop = stop
        self._failed = failed
        self._keep = keep
        self._known: dict[tuple[str, int, LossPath], tuple[int, int]] = {}
        """The range reported last: a repeated restore finds it again, perhaps longer."""
        self.begun: set[TopicPartition] = set()
        """Inputs without a committed offset. Their position is committed with the next batch, or else it would be
        unknown what is removed before the first record is read."""
        self._open: dict[TopicPartition, Loss] = {}
        self._to_keep: list[Loss] = []

    def report(self, topic: str, partition: int, first: int, end: int, where: LossPath, cause: LossCause) -> Loss:
        """Reports that offsets from `first` up to, not including, `end` are gone. Raises `RecordsLost` if that ends
        the worker.

        Before anything is read behind the loss of a changelog or a copy, `kept` is to be awaited.
        """
        loss = Loss(topic, partition, first, end, where, cause)
        place = topic, partition, where
        before = self._known.get(place)
        if before != (first, end):
            self._known[place] = first, end
            log.error(
                "records lost topic=%s partition=%d first=%d last=%s count=%d path=%s cause=%s remedy=%r",
                topic,
                partition,
                first,
                loss.last,
                loss.count,
                where,
                cause,
                REMEDIES[cause],
            )
            grown = before is not None and before[0] == first and before[1] < end
            self._metrics.lost(topic, end - before[1] if before is not None and grown else loss.count)
        if self._stop:
            error = RecordsLost(loss)
            self._failed(error)
            raise error
        if where is LossPath.INPUT:
            self._open[TopicPartition(topic, partition)] = loss
        elif before != (first, end):
            self._to_keep.append(loss)
        return loss

    async def kept(self) -> None:
        """Waits until reported losses of changelogs and standby replicas are durable. Raises the error that prevents
        it."""
        while self._to_keep and self._keep is not None:
            loss = self._to_keep[0]
            await self._keep(loss)
            if loss in self._to_keep:
                self._to_keep.remove(loss)

    def forget(self) -> None:
        """Forgets losses that no batch has passed: all positions are checked again."""
        self._open.clear()
        self.begun.clear()

    def take(self, owned: Collection[TopicPartition]) -> list[Loss]:
        """The losses of inputs that no batch has passed yet, each once. If the batch fails, the restore finds them
        again."""
        found, self._open = self._open, {}
        return [loss for tp, loss in found.items() if tp in owned]
