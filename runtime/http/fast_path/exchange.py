"""Exchanges of the fast path: one request and its response, without a task of its own."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Protocol

from aiohttp import web

from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.hosting import FastQuery, FastResponse, Host, PreparedCommand
from runtime.http.answers import HttpProblem
from runtime.http.problems import broker_unavailable
from runtime.model.watch import Watch


class Connection(Protocol):
    """The connection of an exchange (`runtime.http.fast_path.connection`)."""

    def respond(self, response: FastResponse | web.Response) -> None:
        """Sends the response, and ends the exchange."""

    def hand_over(self, timeout_ms: int | None = None) -> None:
        """Ends the exchange, and lets aiohttp answer the request from its first byte, with this timeout if given."""

    def fail(self, error: BaseException) -> None:
        """Answers an unexpected error with a 500, and ends the exchange."""


class QueryExchange:
    """GET of a row of this worker, which may wait until the row is ready.

    Arguments:
        connection: of the client.
        host: this worker.
        query: what is asked for.
        key: of the row.
        timeout_ms: milliseconds to wait.
    """

    __slots__ = ("_connection", "_host", "_key", "_query", "_scheduled", "_timer", "_until", "_watch")

    is_read = True

    def __init__(self, connection: Connection, host: Host, query: FastQuery[Any], key: str, timeout_ms: int) -> None:
        self._connection = connection
        self._host = host
        self._query = query
        self._key = key
        self._until = time.monotonic() + timeout_ms / 1000
        self._watch: Watch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False

    def begin(self) -> None:
        """Answers, or waits for the row."""
        try:
            self._answer()
        except Exception as error:
            self._connection.fail(error)

    def close(self) -> None:
        """Stops waiting."""
        if self._watch is not None and self._timer is not None:
            self._watch.close()
            self._timer.cancel()
            self._watch = self._timer = None

    def _answer(self) -> None:
        query, remaining = self._query, max(0.0, self._until - time.monotonic())
        try:
            row = self._host.read(query.table, self._key)
        except KeyNotOwned:
            self._connection.hand_over(round(1000 * remaining))
            return
        if row is not None and query.ready(row):
            self._connection.respond(FastResponse(200, query.body(row).to_json()))
        elif not remaining:
            self._connection.respond(_late(query, self._key, row))
        elif self._host.stopping:
            self._connection.hand_over(round(1000 * remaining))
        elif self._watch is None:
            # Nothing can change between the read and the watch: both are in one step of the event loop.
            self._watch = self._host.watch(query.table, self._key, self._touched).__enter__()
            self._timer = asyncio.get_running_loop().call_later(remaining, self._wake)

    def _touched(self) -> None:
        # Later: the row is not in the store before its batch is applied as a whole.
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._scheduled = False
        if self._watch is not None:
            self.begin()


def _late(query: FastQuery[Any], key: str, row: Any) -> web.Response:
    """The response at the timeout."""
    try:
        return query.answer(key, row)
    except HttpProblem as problem:
        return problem.response()


class CommandExchange:
    """POST that is one command of the loop.

    Arguments:
        connection: of the client.
        host: this worker.
        command: what is to be done.
    """

    __slots__ = ("_command", "_connection", "_host", "_result")

    is_read = False

    def __init__(self, connection: Connection, host: Host, command: PreparedCommand[Any]) -> None:
        self._connection = connection
        self._host = host
        self._command = command
        self._result: asyncio.Future[Any] | None = None

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
        if (error := result.exception()) is not None:
            self._fail(error)
        elif (response := self._command.respond(result.result())) is None:
            self._connection.hand_over()
        else:
            self._connection.respond(response)

    def _fail(self, error: BaseException) -> None:
        recover = self._command.recover
        match error:
            case KeyNotOwned() if recover is None:
                self._connection.hand_over()
            case KeyNotOwned() if recover is not None:
                self._command = self._command._replace(recover=None)
                self._wait(recover())
            case BrokerUnavailable():
                self._connection.respond(broker_unavailable())
            case _:
                self._connection.fail(error)
