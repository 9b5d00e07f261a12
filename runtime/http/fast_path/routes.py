"""The routes of a worker's fast path, and what its connections share."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeGuard

from aiohttp import web
from pydantic import ValidationError
from yarl import URL

from runtime.hosting import Endpoint, FastCommand, FastQuery, Host
from runtime.http.fast_path.exchange import (
    CommandExchange,
    Connection,
    Exchange,
    QueryExchange,
    WaitingCommandExchange,
)
from runtime.http.fast_path.forwarding import ForwardedExchange, OwnerRequest, rest_of_command
from runtime.http.fast_path.owners import OwnerConnections
from runtime.http.fast_path.requests import RequestReader
from runtime.http.host_names import host_names
from runtime.http.inputs import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS
from runtime.http.preferences import MAX_WAIT_S
from runtime.http.signatures import is_valid

_KEY = rb"([A-Za-z0-9][A-Za-z0-9._~-]{0,127})"
"""Keys that are the same with and without percent-encoding."""
_TIMEOUT = rb"(?:\?timeout=([0-9]{1,9}))?"
_COMMAND = re.compile(rb"([^?]*)" + _TIMEOUT)


class Route(NamedTuple):
    """A route that a request has matched.

    Arguments:
        method: of the request.
        path: of the endpoint.
        fast: how it is answered.
        key: of the row; empty for a command.
        timeout_ms: milliseconds to wait.
    """

    method: str
    path: str
    fast: FastQuery[Any] | FastCommand
    key: str = ""
    timeout_ms: int = DEFAULT_TIMEOUT_MS


class FastPath:
    """The routes of the fast path of a worker.

    Arguments:
        host: the worker.
        endpoints: of its services, and its own.
        in_flight: requests in flight, of True reads, of False writes; shared with aiohttp's application.
    """

    def __init__(self, host: Host, endpoints: Iterable[Endpoint], in_flight: Counter[bool]) -> None:
        self.host = host
        self.in_flight = in_flight
        self._limit = host.settings.max_requests
        self._names = host_names(host.settings)
        self._owners = OwnerConnections()
        all_ = tuple(endpoints)
        self._commands = {
            e.path.encode(): Route(e.method, e.path, e.fast) for e in all_ if isinstance(e.fast, FastCommand)
        }
        self._queries = tuple((_pattern(e, all_), e.path, e.fast) for e in all_ if isinstance(e.fast, FastQuery))

    def new_reader(self) -> RequestReader[Route]:
        """Reads the requests of a connection."""
        return RequestReader(self._match, self.host.settings.max_body_bytes, self._permits)

    def _permits(self, host: bytes) -> bool:
        """Whether a request with this `Host` is for this worker; aiohttp refuses the others."""
        return self._names is None or self._names.permits(host.decode("latin-1"))

    def _match(self, method: bytes, target: bytes) -> Route | None:
        if method == b"POST":
            if (found := _COMMAND.fullmatch(target)) is None or (route := self._commands.get(found[1])) is None:
                return None
            return route if found[2] is None else route._replace(timeout_ms=_timeout_ms(found[2]))
        if method == b"GET":
            for pattern, path, query in self._queries:
                if (found := pattern.fullmatch(target)) is not None:
                    return Route("GET", path, query, found[1].decode(), _timeout_ms(found[2]))
        return None

    async def close(self, _: web.Application) -> None:
        """Closes the connections to other workers, as a cleanup of the application."""
        self._owners.close()

    def exchange(self, route: Route, request: RequestReader[Route], connection: Connection) -> Exchange | None:
        """The exchange for a request; `None` if aiohttp is to answer it."""
        host, fast = self.host, route.fast
        if host.stopping or self.in_flight[isinstance(fast, FastQuery)] >= self._limit:
            return None
        if request.forwarded and not self._is_from_worker(route, request):
            return None
        if isinstance(fast, FastQuery):
            return None if request.body else self._query(route, fast, request, connection)
        return self._command(route, fast, request, connection)

    def _query(
        self, route: Route, fast: FastQuery[Any], request: RequestReader[Route], connection: Connection
    ) -> Exchange | None:
        if (owner := self.host.owner(route.key)) == self.host.url:
            return QueryExchange(connection, self.host, fast, route.key, route.timeout_ms)
        if not _may_forward(owner, request):
            return None
        to = OwnerRequest(owner, route.key, "GET", _path(request), route.timeout_ms, table=fast.table)
        return ForwardedExchange(connection, self.host, self._owners, to)

    def _command(
        self, route: Route, fast: FastCommand, request: RequestReader[Route], connection: Connection
    ) -> Exchange | None:
        host, wait_s = self.host, request.wait_s
        try:
            prepared = fast.prepare(host, request.body)
        except ValidationError:
            return None
        if prepared.recover is None and (owner := host.owner(prepared.key)) != host.url:
            if not _may_forward(owner, request):
                return None
            timeout_ms = max(route.timeout_ms, 1000 * min(wait_s or 0, MAX_WAIT_S))
            rest = rest_of_command(request.body, wait_s)
            to = OwnerRequest(owner, prepared.key, "POST", _path(request), timeout_ms, rest)
            return ForwardedExchange(connection, host, self._owners, to)
        if wait_s is not None:
            return WaitingCommandExchange(connection, host, prepared, fast, wait_s, self.in_flight)
        return CommandExchange(connection, host, prepared)

    def _is_from_worker(self, route: Route, request: RequestReader[Route]) -> bool:
        """Whether a request is signed by a worker, as far as workers have keys."""
        keys = self.host.settings.worker_keys
        at, target = request.signed_at.decode("latin-1"), request.target.decode("latin-1")
        return not keys or is_valid(keys, route.method, target, at, request.signature)


FAST_PATH = web.AppKey("the fast path, if the worker has one", FastPath)


def _may_forward(owner: URL | None, request: RequestReader[Route]) -> TypeGuard[URL]:
    """Whether the fast path forwards a request to its key owner; else aiohttp looks for the owner, or refuses."""
    # What another worker has forwarded is not forwarded again.
    return owner is not None and owner.scheme == "http" and not request.forwarded


def _path(request: RequestReader[Route]) -> str:
    return request.target.partition(b"?")[0].decode()


def _timeout_ms(text: bytes | None) -> int:
    return DEFAULT_TIMEOUT_MS if text is None else min(int(text), MAX_TIMEOUT_MS)


def _pattern(endpoint: Endpoint, endpoints: Sequence[Endpoint]) -> re.Pattern[bytes]:
    """The pattern of the targets of a query. Raises `ValueError` if it has the path of another endpoint."""
    before, after = re.split(r"{\w+}", endpoint.path)
    pattern = re.compile(re.escape(before.encode()) + _KEY + re.escape(after.encode()) + _TIMEOUT)
    for other in endpoints:
        if pattern.fullmatch(other.path.encode()):
            raise ValueError(f"the fast path of {endpoint.path} would answer for {other.path} as well")
    return pattern
