"""Errors that cross packages of the runtime, as one tree.

WorkerError
├── KeyNotOwned              the partition of a key is not owned here, or is moving: another worker answers, or a retry
├── PartitionNotOwned        a partition is not owned here, or not yet restored
├── BrokerUnavailable        the broker did not acknowledge in time: the client may retry
├── PositionOutOfRange       the next offset of a partition is before the log start or after the log end
├── MessageTooLarge          an output record exceeds what its topic accepts
├── BatchTooLarge            the broker rejected a batch of records as too large
├── MemberFenced             the group coordinator no longer knows this member as owner of its partitions
├── CommitFenced             a batch was not committed: its partitions are owned by another worker
├── CommitInDoubt            whether a batch was committed is unknown until its partitions are restored
├── WorkerStalled            a partition or a component made no progress for WATCHDOG_S
├── StoreError               a state store cannot be opened
├── StateDirInUse            another worker holds the lock of STATE_DIR
├── NoCommonOffset           no single offset is right for all services of a worker
├── CompositionInUse         services of this worker run, or stopped, in another composition
├── PartitionCountMismatch   a topic exists with another number of partitions than PARTITIONS
├── RecordsLost              records are gone and ON_LOST_RECORDS=stop (`runtime.data_loss.losses`)
├── DatabaseNotConfigured    a service needs a database and its URL is not set
└── SideEffectError          the other side of a side effect did not accept it
    ├── SideEffectRejected   permanently: the side effect becomes a dead letter
    ├── SideEffectDeferred   for now; its destination may be affected as a whole
    └── Outage               the other side accepts nothing now
        └── DatabaseUnavailable  the database did not answer, or rolled back for no fault of the statement

Invalid bytes and arguments raise a `ValueError` where they are read (`runtime.kafka.record_batch`,
`runtime.kafka.decompression`, `runtime.common.partitioning`). An HTTP handler ends a request with
`runtime.http.answers.HttpProblem`, which is an answer and not a fault of the worker.
"""

from collections.abc import Collection


class WorkerError(Exception):
    """Base of the errors of a worker."""


class KeyNotOwned(WorkerError):
    """This worker does not own the partition of the key: another one does, or it moves between two.

    A command that was under way may have been committed all the same: its caller retries, or asks for the outcome.
    """


class PartitionNotOwned(WorkerError):
    """This worker does not own the partition, or has not restored it yet."""


class BrokerUnavailable(WorkerError):
    """The broker did not acknowledge the message in time. The client may retry."""


class PositionOutOfRange(WorkerError):
    """The next offset of a partition is before the log start or after the log end (OFFSET_OUT_OF_RANGE)."""


class MessageTooLarge(WorkerError, ValueError):
    """An output record exceeds what its topic accepts."""


class BatchTooLarge(WorkerError):
    """The broker rejected a batch of records as too large, and wrote none of it.

    Arguments:
        topic: physical name of the topic.
        partition: number of the partition.
    """

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic}[{partition}]")
        self.topic = topic
        self.partition = partition


class MemberFenced(WorkerError):
    """The group coordinator no longer knows this member as the owner of its partitions."""


class CommitFenced(WorkerError):
    """The batch belongs to partitions that this worker no longer owns.

    Exactly once: nothing of it becomes visible. At least once: part of it may be written.
    """


class CommitInDoubt(WorkerError):
    """Whether the batch was committed is unknown here. The broker knows: restore the partitions and read its
    offsets."""


class WorkerStalled(WorkerError):
    """A partition or a component made no progress for too long although there is work. A restart may help."""


class StoreError(WorkerError):
    """A state store cannot be opened: the disk is full, access is denied, or another process has it open."""


class StateDirInUse(WorkerError):
    """Another worker runs on this state directory."""


class NoCommonOffset(WorkerError):
    """No single offset of a partition is right for all services of a group.

    Arguments:
        offset: the offset in question.
        behind: names of the services that still have to process it.
        first: the composition that has to run alone until it has caught up.
    """

    def __init__(self, offset: int, behind: Collection[str], first: str) -> None:
        super().__init__(f"offset {offset} is still to be processed by {', '.join(sorted(behind))}")
        self.first = first


class CompositionInUse(WorkerError):
    """Services of this worker run in another composition, or stopped there where this one cannot continue."""


class PartitionCountMismatch(WorkerError):
    """A topic exists with another number of partitions, so keys would be elsewhere than the workers look."""


class DatabaseNotConfigured(WorkerError):
    """A service needs a database, and its URL is not set."""


class SideEffectError(WorkerError):
    """The other side did not accept a side effect.

    Arguments:
        reason: what went wrong, for the dead letter; may hold personal data.
        summary: the same for logs and `/readyz`, without personal data: step and code. Default: the error's name.
    """

    def __init__(self, reason: str, summary: str | None = None) -> None:
        super().__init__(reason)
        self.summary = summary or type(self).__name__


class SideEffectRejected(SideEffectError):
    """No retry will succeed: the address does not exist, say. The side effect becomes a dead letter."""


class SideEffectDeferred(SideEffectError):
    """Not accepted now. Others to the same destination may fare the same; those to other destinations do not."""


class Outage(SideEffectError):
    """The other side accepts nothing now: it is unavailable, or rejects our login. All side effects of the kind
    wait."""

    longest_pause_s = 5.0
    """Seconds, the longest pause between two probes of whether it is back: a refused connection costs nobody
    anything."""


class DatabaseUnavailable(Outage):
    """The database did not answer, or rolled back for no fault of the statement. The request may be repeated."""
