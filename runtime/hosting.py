"""What a worker offers to the HTTP side of its services, and how a service brings its routes along."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiohttp import web
from yarl import URL

from runtime.service import Service, Table
from runtime.settings import Settings
from runtime.watch import Watch
from schemas.topics import Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)


class NotHere(Exception):
    """This worker does not hold the key's partition now: another does, or it is on its way between two."""


class Unavailable(Exception):
    """The broker did not take the message in time. Nothing was acknowledged: the client may try again."""


class Host(Protocol):
    """A running worker as its services' HTTP handlers see it."""

    settings: Settings

    def read(self, table: Table[M], key: str) -> M | None:
        """The committed row of `key`, from this worker's own state. Raises `NotHere`."""

    def caught_up(self, topic: Topic[M], key: str) -> bool:
        """Whether all that had been written to the key's partition when it was taken over is in the state."""

    def watch(self, table: Table[Any], key: str) -> AbstractContextManager[Watch]:
        """Registers interest in a row. Register first, then read: what changes in between is not missed.

        The watch is also touched when partitions come, go or the worker stops, so that whoever waits looks again.
        """

    def owner(self, key: str) -> URL | None:
        """Base URL of the worker that owns the key's partition; `None` while that is not known. May be this one."""

    @property
    def url(self) -> URL:
        """Base URL under which the other workers reach this one."""

    @property
    def stopping(self) -> bool:
        """Whether the worker is on its way out: whoever waits is to be answered now."""

    async def produce(self, topic: Topic[M], value: M) -> None:
        """Returns when every in-sync replica has the message (acks=all, idempotent). Raises `Unavailable`."""

    def readiness(self) -> Mapping[str, Any]:
        """`ready` (bool) and what it stands on, for `/readyz`."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """A service as it is deployed: its processors, and the routes it answers."""

    service: Service
    routes: Callable[[Host], Iterable[web.RouteDef]] | None = None
    openapi: Callable[[], Mapping[str, Any]] | None = None
    """The service's part of the OpenAPI document: `paths` and `components`."""
