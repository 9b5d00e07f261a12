"""The routes of a worker's fast path, and what its connections share."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiohttp import web
from pydantic import ValidationError

from runtime.hosting import Endpoint, FastCommand, FastQuery, Host
from runtime.http.fast_path.exchange import CommandExchange, Connection, QueryExchange, WaitingCommandExchange
from runtime.http.fast_path.requests import RequestReader
from runtime.http.host_names import host_names
from runtime.http.inputs import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS

_KEY = rb"([A-Za-z0-9][A-Za-z0-9._~-]{0,127})"
"""Keys that are the same with and without percent-encoding."""
_TIMEOUT = rb"(?:\?timeout=([0-9]{1,9}))?"


class Route(NamedTuple):
    """A route that a request has matched.

    Arguments:
        method: of the request.
        path: of the endpoint.
        fast: how it is answered.
        key: of the row; empty for a command.
        timeout_ms: of a query.
    """

    method: str
    path: str
    fast: FastQuery[Any] | FastCommand
    key: str = ""
    timeout_ms: int = 0


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
            return self._commands.get(target)
        if method == b"GET":
            for pattern, path, query in self._queries:
                if (found := pattern.fullmatch(target)) is not None:
                    timeout_ms = DEFAULT_TIMEOUT_MS if found[2] is None else min(int(found[2]), MAX_TIMEOUT_MS)
                    return Route("GET", path, query, found[1].decode(), timeout_ms)
        return None

    def exchange(
        self, route: Route, body: bytes, wait_s: int | None, connection: Connection
    ) -> QueryExchange | CommandExchange | None:
        """The exchange for a request; `None` if aiohttp is to answer it. `wait_s`: of a command, by `Prefer`."""
        host, fast = self.host, route.fast
        is_read = isinstance(fast, FastQuery)
        if host.stopping or self.in_flight[is_read] >= self._limit:
            return None
        if isinstance(fast, FastQuery):
            if body or host.owner(route.key) != host.url:
                return None
            return QueryExchange(connection, host, fast, route.key, route.timeout_ms)
        try:
            prepared = fast.prepare(host, body)
        except ValidationError:
            return None
        if prepared.recover is None and host.owner(prepared.key) != host.url:
            return None
        if wait_s is not None:
            return WaitingCommandExchange(connection, host, prepared, fast, wait_s, self.in_flight)
        return CommandExchange(connection, host, prepared)


FAST_PATH = web.AppKey("the fast path, if the worker has one", FastPath)


def _pattern(endpoint: Endpoint, endpoints: Sequence[Endpoint]) -> re.Pattern[bytes]:
    """The pattern of the targets of a query. Raises `ValueError` if it has the path of another endpoint."""
    before, after = re.split(r"{\w+}", endpoint.path)
    pattern = re.compile(re.escape(before.encode()) + _KEY + re.escape(after.encode()) + _TIMEOUT)
    for other in endpoints:
        if pattern.fullmatch(other.path.encode()):
            raise ValueError(f"the fast path of {endpoint.path} would answer for {other.path} as well")
    return pattern
