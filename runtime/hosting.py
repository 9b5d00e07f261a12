"""Interfaces between worker and services: `Host` for handlers, `ServiceDefinition` for deployment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from aiohttp import web
from yarl import URL

from runtime.common.settings import Settings
from runtime.model.service import Context, Service, Table
from runtime.model.watch import Watch
from schemas.topics import Topic
from schemas.wire import Message

if TYPE_CHECKING:
    from runtime.database.outbox import Outbox
    from runtime.database.pool import Database  # imports SQLAlchemy, which is slow: not without a database

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StaleRow(Generic[M]):
    """A committed row from the store of this worker, which may be behind that of the owner.

    Arguments:
        row: the row.
        age_s: seconds for which the store may have missed writes of the owner; `None` while it is being rebuilt.
    """

    row: M
    age_s: float | None


class Host(Protocol):
    """A running worker, as HTTP handlers of its services use it."""

    settings: Settings

    def read(self, table: Table[M], key: str) -> M | None:
        """The committed row of `key`, from the store of this worker. Raises `KeyNotOwned`."""

    def owns(self, key: str) -> bool:
        """Whether this worker owns the partition of `key` and has processed its backlog."""

    async def submit(self, table: Table[Any], key: str, decide: Callable[[Context], T]) -> T:
        """Runs a command in the loop, as a processor of the service. Returns its result once committed.

        Arguments:
            table: a table of the service.
            key: decides the partition.
            decide: the command. It must be idempotent: it may be committed although an error is raised here.

        Raises the error of `decide`; `KeyNotOwned` if the partition is not owned, has a backlog, or was revoked
        meanwhile; `BrokerUnavailable` if the broker did not acknowledge the batch in time.
        """

    def read_stale(self, table: Table[M], key: str) -> StaleRow[M] | None:
        """The row of `key` in the store of this worker, as owner or standby; `None` if there is none.

        The owner may have a row all the same, as a standby may be behind.
        """

    def watch(self, table: Table[Any], key: str) -> AbstractContextManager[Watch]:
        """Watches a row. Watch first, then read, so that no change in between is missed.

        The watch is also touched when partitions are assigned or revoked and when the worker stops.
        """

    def owner(self, key: str) -> URL | None:
        """Base URL of the owner of the key's partition, which may be this worker; `None` while unknown."""

    def standbys(self, key: str) -> Sequence[URL]:
        """Base URLs of the workers with standby replicas of the key's partition, as of the last rebalance."""

    @property
    def url(self) -> URL:
        """Base URL at which the other workers reach this one."""

    @property
    def stopping(self) -> bool:
        """Whether the worker stops: requests that wait are to be answered now."""

    async def produce(self, topic: Topic[M], value: M) -> None:
        """Returns once every in-sync replica has the message (acks=all). Raises `BrokerUnavailable`."""

    def readiness(self) -> Mapping[str, Any]:
        """`ready` (bool) and the details behind it, for `/readyz`."""


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """A service as it is deployed: processors, HTTP routes, database and outbox."""

    service: Service
    routes: Callable[[Host], Iterable[web.RouteDef]] | None = None
    openapi: Callable[[], Mapping[str, Any]] | None = None
    """The service's part of the OpenAPI document: `paths` and `components`."""
    lifespan: "Callable[[Host], AbstractAsyncContextManager[None]] | None" = None
    """Resources of side effects and handlers. Entered before the worker joins its group, left after it has stopped."""
    database: "Database | None" = None
    """The database of the service, opened and migrated by the worker."""
    outbox: "Outbox | None" = None
    """Outbox in this database, relayed to Kafka by the worker."""
    port: int = 0
    """A port on which the worker listens besides its own, if it is free; 0 for none."""
