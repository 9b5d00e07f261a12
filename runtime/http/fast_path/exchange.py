"""Exchanges of the fast path: one request and its response, without a task of its own."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Protocol

from aiohttp import web

from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.hosting import FastCommand, FastQuery, FastResponse, Host, PreparedCommand
from runtime.http.admission import count_as_read
from runtime.http.answers import HttpProblem
from runtime.http.fast_path.row_wait import RowWait
from runtime.http.preferences import APPLIED, MAX_WAIT_S
from runtime.http.problems import broker_unavailable


class Connection(Protocol):
    """The connection of an exchange (`runtime.http.fast_path.connection`)."""

    def respond(self, response: FastResponse | web.Response) -> None:
        """Sends the response, and ends the exchange."""

    def hand_over(self, timeout_ms: int | None = None) -> None:
        """Ends the exchange, and lets aiohttp answer the request from its first byte, with this timeout if given."""

    def fail(self, error: BaseException) -> None:
        """Answers an unexpected error with a 500, and ends the exchange."""


class Exchange(Protocol):
    """A request and its response."""

    @property
    def is_read(self) -> bool:
        """Whether it counts as a read: reads and writes have separate limits."""

    def begin(self) -> None:
        """Starts the exchange. It may call the connection before it returns."""

    def close(self) -> None:
        """Takes no more interest in it: the connection is not called any more."""


class QueryExchange:
    """GET of a row of this worker, which may wait until the row is ready.

    Arguments:
        connection: of the client.
        host: this worker.
        query: what is asked for.
        key: of the row.
        timeout_ms: milliseconds to wait.
    """

    __slots__ = ("_connection", "_key", "_query", "_until", "_wait")

    is_read = True

    def __init__(self, connection: Connection, host: Host, query: FastQuery[Any], key: str, timeout_ms: int) -> None:
        self._connection = connection
        self._query = query
        self._key = key
        self._until = time.monotonic() + timeout_ms / 1000
        self._wait: RowWait | None = RowWait(
            host,
            query.table,
            key,
            ready=query.ready,
            until=self._until,
            ended=self._answer,
            lost=self._leave,
            failed=connection.fail,
        )

    def begin(self) -> None:
        """Answers, or waits for the row."""
        assert self._wait is not None, "closed"
        self._wait.begin()

    def close(self) -> None:
        """Stops waiting."""
        if self._wait is not None:
            wait, self._wait = self._wait, None  # each has the other: a cycle would wait for the garbage collector
            wait.close()

    def _answer(self, row: Any) -> None:
        query = self._query
        if row is not None and query.ready(row):
            self._connection.respond(FastResponse(200, query.body(row).to_json()))
            return
        try:
            response = query.answer(self._key, row)
        except HttpProblem as problem:
            response = problem.response()
        self._connection.respond(response)

    def _leave(self) -> None:
        self._connection.hand_over(round(1000 * max(0.0, self._until - time.monotonic())))


class CommandExchange:
    """POST that is one command of the loop, whose client may wait for the outcome.

    Arguments:
        connection: of the client.
        host: this worker.
        command: what is to be done.
    """

    __slots__ = ("_command", "_connection", "_host", "_recovered", "_result", "is_read")

    def __init__(self, connection: Connection, host: Host, command: PreparedCommand[Any]) -> None:
        self._connection = connection
        self._host = host
        self._command = command
        self._result: asyncio.Future[Any] | None = None
        self._recovered = False
        self.is_read = False

    def begin(self) -> None:
        """Submits the command."""
        command = self._command
        try:
            self._wait(self._host.submit(command.table, command.key, command.decide))
        except Exception as error:
            self._fail(error)

    def close(self) -> None:
        """Takes no more interest in the result: a command that is not begun is dropped."""
        if self._result is not None:
            result, self._result = self._result, None
            result.cancel()

    def _wait(self, result: Awaitable[Any]) -> None:
        self._result = asyncio.ensure_future(result)
        self._result.add_done_callback(self._settled)

    def _settled(self, result: asyncio.Future[Any]) -> None:
        if self._result is None or result.cancelled():
            return
        self._result = None
        try:
            if (error := result.exception()) is not None:
                self._fail(error)
            elif (response := self._command.respond(result.result())) is None:
                self._connection.hand_over()
            else:
                self._succeed(response)
        except Exception as error:
            self._connection.fail(error)

    def _succeed(self, response: FastResponse) -> None:
        self._connection.respond(response)

    def _fail(self, error: BaseException) -> None:
        recover = self._command.recover
        match error:
            case KeyNotOwned() if recover is None or self._recovered:
                self._connection.hand_over()
            case KeyNotOwned() if recover is not None:
                self._recovered = True
                self._wait(recover())
            case BrokerUnavailable():
                self._connection.respond(broker_unavailable())
            case _:
                self._connection.fail(error)


class WaitingCommandExchange(CommandExchange):
    """A POST whose client prefers to wait for the outcome (`Prefer: wait=SECONDS`).

    Arguments:
        connection: of the client.
        host: this worker.
        command: what is to be done.
        fast: its route.
        wait_s: seconds for which the client prefers to wait.
        in_flight: requests in flight, of True reads, of False writes.
    """

    __slots__ = ("_in_flight", "_ready", "_row_wait", "_until", "_wait_s")

    def __init__(
        self,
        connection: Connection,
        host: Host,
        command: PreparedCommand[Any],
        fast: FastCommand,
        wait_s: int,
        in_flight: Counter[bool],
    ) -> None:
        super().__init__(connection, host, command)
        self._ready = fast.ready
        self._wait_s = min(wait_s, MAX_WAIT_S)
        self._until = time.monotonic() + self._wait_s
        self._in_flight = in_flight
        self._row_wait: RowWait | None = None

    def close(self) -> None:
        super().close()
        if self._row_wait is not None:
            wait, self._row_wait = self._row_wait, None  # as for a query
            wait.close()

    def _succeed(self, response: FastResponse) -> None:
        if self._recovered:
            self._answer(None)  # produced without the partition: the row is elsewhere
            return
        self._row_wait = RowWait(
            self._host,
            self._command.table,
            self._command.key,
            ready=self._ready,
            until=self._until if self._count_as_read() else 0.0,
            ended=self._answer,
            lost=self._undecided,
            failed=self._connection.fail,
        )
        self._row_wait.begin()

    def _count_as_read(self) -> bool:
        """From here on it only waits: such requests must not keep others from writing."""
        self.is_read = count_as_read(self._in_flight, self._host.settings.max_requests)
        return self.is_read

    def _undecided(self) -> None:
        self._answer(None)

    def _answer(self, row: Any) -> None:
        response = self._command.outcome(row)
        applied = {APPLIED.name: f"wait={self._wait_s}"}
        self._connection.respond(response._replace(headers={**response.headers, **applied}))
