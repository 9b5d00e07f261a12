"""Makes every Kafka client, and the physical names of topics and groups. No other module constructs a client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as Physical
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, create_conn

from runtime.common.settings import Settings
from runtime.kafka import unpacker
from runtime.kafka.record_batches import BATCH_BYTES
from runtime.kafka.security import connection_options
from runtime.model.records import TopicPartition

unpacker.install()

REQUEST_TIMEOUT_MS = 15_000
"""Milliseconds, time limit of one request to a broker."""

_GATHERED = 256 * 1024
"""Bytes for which a broker that gathers records does not wait any longer."""


@dataclass(frozen=True, slots=True)
class KafkaNames:
    """Converts between logical and physical names of topics and groups: physical ones have the deployment's prefix."""

    prefix: str

    def topic(self, name: str) -> str:
        return self.prefix + name

    def logical(self, topic: str) -> str:
        return topic[len(self.prefix) :]

    def physical(self, tp: TopicPartition) -> Physical:
        return Physical(self.prefix + tp.topic, tp.partition)

    def partition(self, tp: Physical) -> TopicPartition:
        return TopicPartition(tp.topic[len(self.prefix) :], tp.partition)

    def group(self, name: str) -> str:
        return self.prefix + name


def producer(settings: Settings) -> AIOKafkaProducer:
    """An idempotent producer with acks=all."""
    return AIOKafkaProducer(**_producer_options(settings))


def transactional_producer(settings: Settings, transactional_id: str) -> AIOKafkaProducer:
    """A transactional producer. Its start ends the open transaction of an earlier producer of the same id.

    For commands, whose transactions have no offsets of a group. Workers have a `TransactionalSender`.
    """
    return AIOKafkaProducer(
        transactional_id=transactional_id,
        transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
        **_producer_options(settings),
    )


def group_consumer(
    settings: Settings, group: str, assignor: Any, partition_bytes: int = 1024 * 1024
) -> AIOKafkaConsumer:
    """The consumer of a worker, as a member of its group. It prefetches up to `partition_bytes` of each partition."""
    return AIOKafkaConsumer(
        group_id=group,
        partition_assignment_strategy=[assignor],
        # The rebalance seeks. A position that the broker no longer has must be an error, not a silent reset.
        auto_offset_reset="none",
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        heartbeat_interval_ms=int(settings.heartbeat_interval_s * 1000),
        # A restore may take long, and nothing is polled meanwhile: heartbeats and the watchdog judge liveness.
        max_poll_interval_ms=3_600_000,
        rebalance_timeout_ms=int(settings.session_timeout_s * 1000),
        max_poll_records=settings.batch_limit,
        max_partition_fetch_bytes=partition_bytes,
        **_consumer_options(settings),
    )


def standalone_consumer(
    settings: Settings,
    partition_bytes: int = 4 * 1024 * 1024,
    *,
    skip_removed: bool = False,
    gather_s: float | None = None,
) -> AIOKafkaConsumer:
    """A consumer without a group.

    Arguments:
        settings: broker.
        partition_bytes: bounds what is prefetched of each partition.
        skip_removed: whether to go on with the oldest record where the broker no longer has a position, instead of
            raising.
        gather_s: seconds for which a broker may gather records before it answers: fewer fetches, and later records.
    """
    gathering = {} if gather_s is None else {"fetch_max_wait_ms": int(gather_s * 1000), "fetch_min_bytes": _GATHERED}
    return AIOKafkaConsumer(
        group_id=None,
        auto_offset_reset="earliest" if skip_removed else "none",
        max_partition_fetch_bytes=partition_bytes,
        **{**_consumer_options(settings), **gathering},
    )


def non_member_consumer(settings: Settings, group: str) -> AIOKafkaConsumer:
    """A consumer that commits for a group without joining it, which the broker allows while the group is empty."""
    return AIOKafkaConsumer(group_id=group, **_consumer_options(settings))


def new_admin(settings: Settings, request_timeout_ms: int = REQUEST_TIMEOUT_MS) -> AIOKafkaAdminClient:
    """An admin client, to be started and closed by the caller."""
    return AIOKafkaAdminClient(**connection_options(settings), request_timeout_ms=request_timeout_ms)


@asynccontextmanager
async def admin(settings: Settings, request_timeout_ms: int = REQUEST_TIMEOUT_MS) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client, closed at the end of the block."""
    client = new_admin(settings, request_timeout_ms)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def metadata_client(servers: str) -> AIOKafkaClient:
    """A client that knows the brokers of an embedded cluster, on its listener without TLS, once it is bootstrapped."""
    return AIOKafkaClient(bootstrap_servers=servers)


def bare_client(settings: Settings) -> AIOKafkaClient:
    """A client for single requests of the protocol. It reaches the brokers once it is bootstrapped."""
    return AIOKafkaClient(**connection_options(settings), request_timeout_ms=REQUEST_TIMEOUT_MS)


def sender_client(settings: Settings) -> AIOKafkaClient:
    """The client of a `TransactionalSender` or `IdempotentSender`."""
    return AIOKafkaClient(
        **connection_options(settings),
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        retry_backoff_ms=10,
        metadata_max_age_ms=30_000,
    )


async def connection(settings: Settings, host: str, port: int, timeout_s: float) -> AIOKafkaConnection:
    """Connects and logs in to one broker, without a retry. Raises whatever went wrong."""
    options = connection_options(settings)
    del options["bootstrap_servers"]
    return await create_conn(host, port, **options, request_timeout_ms=int(timeout_s * 1000))


def _producer_options(settings: Settings) -> dict[str, Any]:
    return {
        **connection_options(settings),
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 0,
        "max_batch_size": BATCH_BYTES,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        # A transaction retries at this interval while the control records of its predecessor are being written, so it
        # adds to the latency of each commit.
        "retry_backoff_ms": 10,
        "metadata_max_age_ms": 30_000,
    }


def _consumer_options(settings: Settings) -> dict[str, Any]:
    return {
        **connection_options(settings),
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "fetch_max_wait_ms": 250,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 50,
        "metadata_max_age_ms": 30_000,
    }
