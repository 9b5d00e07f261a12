"""Interfaces between worker and services: `Host` and `Endpoint` for HTTP, `ServiceDefinition` for deployment."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from aiohttp import web
from yarl import URL

from runtime.common.settings import Settings
from runtime.model.service import Context, Service, Table
from runtime.model.sink import Sink
from runtime.model.watch import Watch
from schemas.topics import Topic
from schemas.wire import Message

if TYPE_CHECKING:
    from runtime.database.outbox import Outbox
    from runtime.database.pool import Database  # imports SQLAlchemy, which is slow: not without a database

M = TypeVar("M", bound=Message)
T = TypeVar("T")

_TEXT: Mapping[str, Any] = {"type": "string"}


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

    def submit(self, table: Table[Any], key: str, decide: Callable[[Context], T]) -> Awaitable[T]:
        """Runs a command in the loop, as a processor of the service. Its result comes once it is committed.

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

    def watch(self, table: Table[Any], key: str, touched: Callable[[], object] | None = None) -> Watch:
        """Watches a row in a `with` block. Watch first, then read, so that no change in between is missed.

        The watch is also touched when partitions are assigned or revoked and when the worker stops. `touched` is called
        at once then, in place of `Watch.wait`.
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
class Parameter:
    """An input of a request besides its body.

    Arguments:
        name: as clients write it.
        place: `path`, `query` or `header`. Those in a path are required, the others optional.
        schema: JSON Schema of the value.
        description: for clients.
    """

    name: str
    place: str
    schema: Mapping[str, Any]
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """A header of an answer, with the JSON Schema of its value."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: _TEXT)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of an endpoint other than a problem: what it says, its body and its headers.

    `preferred` is the body for a client that prefers to wait (`Prefer`). Without a `media_type` there is no body (204).
    """

    description: str
    body: type[Message] | None = None
    headers: tuple[ResponseHeader, ...] = ()
    media_type: str | None = "application/json"
    preferred: type[Message] | None = None


class FastResponse(NamedTuple):
    """A response of the fast path: a status, a JSON body, and headers besides those of every response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FastQuery(Generic[M]):
    """A GET of one row, whose key is the parameter of the path, as the fast path answers it.

    Arguments:
        table: of the row.
        ready: the request waits until the row satisfies this, or for its timeout.
        body: of the response 200 with such a row.
        answer: the response at the timeout, given the key and the row; raises `HttpProblem`.
    """

    table: Table[M]
    ready: Callable[[M], bool]
    body: Callable[[M], Message]
    answer: Callable[[str, M | None], web.Response]


class PreparedCommand(NamedTuple, Generic[T]):
    """A command for `Host.submit`, as the fast path submits it.

    Arguments:
        table: see `Host.submit`.
        key: see `Host.submit`.
        decide: see `Host.submit`.
        respond: the response for the result; `None` lets the handler of the endpoint answer instead.
        outcome: the response for a client that prefers to wait, given the row once it is `FastCommand.ready` or the
            wait has ended; `None` for the row if it is not known.
        recover: makes the result if this worker does not own the key. Without it, the handler of the endpoint answers,
            and a worker that is not the key owner does not try.
    """

    table: Table[Any]
    key: str
    decide: Callable[[Context], T]
    respond: Callable[[T], FastResponse | None]
    outcome: Callable[[Any], FastResponse]
    recover: Callable[[], Awaitable[T]] | None = None


@dataclass(frozen=True, slots=True)
class FastCommand:
    """A POST that is one command, as the fast path answers it.

    Arguments:
        prepare: the command for a body; raises `pydantic.ValidationError` if it is invalid.
        ready: a client that prefers to wait waits until the row of the command satisfies this.
    """

    prepare: Callable[[Host, bytes], PreparedCommand[Any]]
    ready: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation of the HTTP API: its route on a worker, and its description in the OpenAPI document.

    The document adds the problems that follow from the other arguments: 400 for parameters or a body, 404 for a
    parameter in the path, 415 for a body, 502 for a routed request, and those that any request may get.

    Arguments:
        method: GET, POST, PUT or DELETE.
        path: names of parameters are in braces, as in `/v1/orders/{id}`.
        handler: called with the worker and the request; raises `HttpProblem` for a problem.
        name: operationId, unique in the document; clients generate code from it.
        summary: one line.
        tag: group of the operation in the document.
        answers: by status.
        problems: further statuses that are answered with a problem.
        parameters: those in the path, and the others that the handler reads.
        body: model of the request's body, if it has one.
        routed: whether the handler routes to the key owner, and so takes the query parameter `timeout`.
        description: further lines.
        when: a query parameter with which this endpoint answers in place of another one of its method and path, if the
            worker has that as well.
        fast: how the fast path answers plain requests, in place of the handler and with the same responses.
    """

    method: str
    path: str
    handler: "Handler"
    name: str
    summary: str
    tag: str
    answers: Mapping[int, Answer]
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: type[Message] | None = None
    routed: bool = False
    description: str | None = None
    when: str | None = None
    fast: FastQuery[Any] | FastCommand | None = None

    def __post_init__(self) -> None:
        declared = [p.name for p in self.parameters if p.place == "path"]
        if sorted(declared) != sorted(re.findall(r"{(\w+)}", self.path)):
            raise ValueError(f"{self.method} {self.path}: declare each parameter of the path, not {declared}")


Handler = Callable[[Host, web.Request], Awaitable[web.StreamResponse]]
"""Answers a request on a worker."""


@dataclass(frozen=True, slots=True)
class OutboundEvent:
    """A request that a worker sends to those who have subscribed to it: a webhook of the OpenAPI document.

    Arguments:
        name: type of the event.
        body: model of the request's body.
        tag: group in the document.
        headers: of the request.
    """

    name: str
    body: type[Message]
    tag: str
    headers: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """Work that every worker of a service repeats: the work itself sees to it that one worker does it at a time.

    Arguments:
        name: for the log.
        every_s: seconds from the end of one run to the start of the next.
        run: the work. An error is logged, and the work repeated at the next time.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """A service as it is deployed: processors, HTTP endpoints, database, outbox and sink."""

    service: Service
    endpoints: tuple[Endpoint, ...] = ()
    """Operations of its HTTP API."""
    events: tuple[OutboundEvent, ...] = ()
    """Requests that it sends to those who have subscribed to them."""
    lifespan: "Callable[[Host], AbstractAsyncContextManager[None]] | None" = None
    """Resources of side effects and handlers. Entered before the worker joins its group, left after it has stopped."""
    database: "Database | None" = None
    """The database of the service, opened and migrated by the worker."""
    outbox: "Outbox | None" = None
    """Outbox in this database, relayed to Kafka by the worker."""
    sink: Sink[Any] | None = None
    """What is stored of records in this database, beside the processing loop."""
    jobs: tuple[Job, ...] = ()
    """Work that is repeated as long as the worker runs."""
    port: int = 0
    """A port on which the worker listens besides its own, if it is free; 0 for none."""
    check: str | None = None
    """The check of a validator."""
