"""What a worker offers to the HTTP side of its services, and how a service brings its routes along."""

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
    from runtime.database.pool import Database  # SQLAlchemy takes its time: not for workers without a database

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StaleRow(Generic[M]):
    """A row as this worker's copy of it has it: committed, though there may be a later one by now.

    `age_s`: for how many seconds the copy may have missed what the owner wrote; `None` while it is being rebuilt.
    """

    row: M
    age_s: float | None


class Host(Protocol):
    """A running worker as its services' HTTP handlers see it."""

    settings: Settings

    def read(self, table: Table[M], key: str) -> M | None:
        """The committed row of `key`, from this worker's own state. Raises `KeyNotOwned`."""

    def holds(self, key: str) -> bool:
        """Whether the key's partition is held here, with all that had been written to it before."""

    async def submit(self, table: Table[Any], key: str, decide: Callable[[Context], T]) -> T:
        """Has `decide` run in the loop, on the state of the key's partition, as a processor of the table's service.

        Returns what it returned once all that it decided is durable, in one batch. Raises what it raised;
        `KeyNotOwned` if the partition is not held here, not settled yet, or has moved meanwhile: it was perhaps
        decided all the same, so `decide` must bear being run again; `BrokerUnavailable` if the broker did not take
        the batch in time.
        """

    def copy(self, table: Table[M], key: str) -> StaleRow[M] | None:
        """The row of `key` as this worker has it, though it does not own the partition, or not yet; `None` without it.

        That there is none here says nothing: the copy may be behind.
        """

    def watch(self, table: Table[Any], key: str) -> AbstractContextManager[Watch]:
        """Registers interest in a row. Register first, then read: what changes in between is not missed.

        The watch is also touched when partitions come, go or the worker stops, so that whoever waits looks again.
        """

    def owner(self, key: str) -> URL | None:
        """Base URL of the worker that owns the key's partition; `None` while that is not known. May be this one."""

    def standbys(self, key: str) -> Sequence[URL]:
        """Base URLs of the workers that keep copies of the key's partition, as the group last agreed."""

    @property
    def url(self) -> URL:
        """Base URL under which the other workers reach this one."""

    @property
    def stopping(self) -> bool:
        """Whether the worker is on its way out: whoever waits is to be answered now."""

    async def produce(self, topic: Topic[M], value: M) -> None:
        """Returns when every in-sync replica has the message (acks=all, idempotent). Raises `BrokerUnavailable`."""

    def readiness(self) -> Mapping[str, Any]:
        """`ready` (bool) and what it stands on, for `/readyz`."""


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """A service as it is deployed: its processors, and the routes it answers."""

    service: Service
    routes: Callable[[Host], Iterable[web.RouteDef]] | None = None
    openapi: Callable[[], Mapping[str, Any]] | None = None
    """The service's part of the OpenAPI document: `paths` and `components`."""
    lifespan: "Callable[[Host], AbstractAsyncContextManager[None]] | None" = None
    """Entered before the worker takes anything, left when it has stopped: what the service's effects and handlers hold
    open, a database say."""
    database: "Database | None" = None
    """Its own, if it has one: opened, migrated and waited for by the worker."""
    outbox: "Outbox | None" = None
    """In that database, relayed to Kafka by the worker."""
    port: int = 0
    """Where its clients expect it: the worker listens there as well, if it can; 0 for no such port."""
