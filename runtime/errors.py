"""Errors that cross packages of the runtime, as one tree. Messages of errors that end a worker name the remedy.

WorkerError
├── KeyNotOwned              the partition of a key is not owned here, or is moving: ask its owner, or retry
├── PartitionNotOwned        a partition is not owned here, or not yet restored
├── BrokerUnavailable        the broker did not acknowledge in time: the client may retry
├── PositionOutOfRange       the next offset of a partition is before the log start or after the log end
├── MessageTooLarge          an output record exceeds what its topic accepts: its input is dead-lettered
├── BatchTooLarge            the broker rejected a batch of records as too large
├── MemberFenced             the group coordinator no longer knows this member as owner of its partitions
├── CommitFenced             a batch was not committed: its partitions are owned by another worker
├── CommitInDoubt            whether a batch was committed is unknown until its partitions are restored
├── WorkerStalled            a partition or a component made no progress for WATCHDOG_S
├── StoreError               a state store cannot be opened: disk full, access denied, or in use
├── StateDirInUse            another worker holds the lock of STATE_DIR: give each worker its own
├── NoCommonOffset           no single offset is right for all services of a worker: one has to catch up alone
├── KafkaRejected            the brokers reject TLS or login, or we do not trust them: mend the settings
├── CompositionInUse         services of this worker run, or stopped, in another composition
├── PartitionCountMismatch   a topic exists with another number of partitions than PARTITIONS
├── RecordsLost              records are lost and ON_LOST_RECORDS=stop (`runtime.data_loss.losses`)
├── OffsetsMoved             another worker has stored the records that a sink was about to store
├── RowsRejected             the database does not accept rows of a sink, whenever they are written
├── DatabaseNotConfigured    a service needs a database and its URL is not set
├── TracingNotInstalled      tracing is on, and OpenTelemetry is not installed
└── SideEffectError          the other side of a side effect did not accept it
    ├── SideEffectRejected   permanently: the side effect becomes a dead letter
    ├── SideEffectDeferred   for now; its destination may be affected as a whole
    └── Outage               the other side accepts nothing now
        └── DatabaseUnavailable  the database did not answer, or rolled back for another reason than the statement

Invalid bytes and arguments raise a `ValueError` where they are read (`runtime.kafka.record_batch`,
`runtime.kafka.decompression`, `runtime.common.partitioning`). An HTTP handler ends a request with
`runtime.http.answers.HttpProblem`, which is a response, not an error of the worker.
"""


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
    """An output record exceeds what its topic accepts. The message that led to it is dead-lettered."""


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
    """Whether the batch was committed is unknown in this worker. A restore reads the committed offsets, which tell."""


class RedoRejected(WorkerError):
    """The broker rejects for good what a redo record says. The cause and its remedy are in the text of the broker."""


class WorkerStalled(WorkerError):
    """A partition or a component made no progress for `WATCHDOG_S` although there is work. Restart the worker."""


class StoreError(WorkerError):
    """A state store cannot be opened: the disk is full, access is denied, or another process has it open.

    Remedy: free the disk, or delete the folder of the store, which is then restored from its changelog.
    """


class StateDirInUse(WorkerError):
    """Another worker runs on this state directory. Each worker needs a `STATE_DIR` of its own."""


class KafkaRejected(WorkerError):
    """A broker answers, and the connection fails for good: certificate, protocol, login, or a missing permission."""


class CompositionInUse(WorkerError):
    """Services of this worker run in a group that it cannot join."""


class PartitionCountMismatch(WorkerError):
    """A topic has another number of partitions than `PARTITIONS`: keys would belong in other ones."""


class DatabaseNotConfigured(WorkerError):
    """A service needs a database, and its URL is not set: set `<SERVICE>_DATABASE_URL`."""


class TracingNotInstalled(WorkerError):
    """Tracing is on, and OpenTelemetry, an optional dependency, is not installed."""


class OffsetsMoved(WorkerError):
    """Another worker has stored the records that a sink was about to store. Its transaction has changed nothing."""


class RowsRejected(WorkerError):
    """The database does not accept rows of a sink, whenever they are written: the record at fault is dead-lettered."""


class SideEffectError(WorkerError):
    """The other side did not accept a side effect.

    Arguments:
        reason: the error of the other side, for the dead letter; may hold personal data.
        summary: step and code for logs and `/readyz`, without personal data. Default: the error's name.
    """

    def __init__(self, reason: str, summary: str | None = None) -> None:
        super().__init__(reason)
        self.summary = summary or type(self).__name__


class SideEffectRejected(SideEffectError):
    """No retry will succeed, for example because the address does not exist. The side effect becomes a dead letter."""


class SideEffectDeferred(SideEffectError):
    """Not accepted now. Others to the same destination may fail as well, those to other destinations do not."""


class Outage(SideEffectError):
    """The other side accepts nothing now: it is unavailable, or rejects the login. All side effects wait."""

    longest_pause_s = 5.0
    """Seconds, the longest pause between two attempts to reach it: a refused connection costs little."""


class DatabaseUnavailable(Outage):
    """The database did not answer, or rolled back for another reason than the statement. Retry the request."""
