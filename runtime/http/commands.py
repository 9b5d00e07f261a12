"""Commands on one row: resources are created and changed on the key owner of their rows, which any worker finds."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from aiohttp import web

from runtime.errors import KeyNotOwned
from runtime.hosting import Answer, Endpoint, FastCommand, FastResponse, Host, PreparedCommand
from runtime.http.answers import HttpProblem, answer, location
from runtime.http.inputs import IdempotencyKey, PathParameter, deadline_of, message_of
from runtime.http.preferences import Wait, WaitPreference
from runtime.http.queries import wait_for_row
from runtime.http.routing import route_to_owner
from runtime.model.service import Context, Table
from schemas.topics import Topic
from schemas.wire import Message

B = TypeVar("B", bound=Message)
M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
T = TypeVar("T")

FRESH_IDS = 64
"""Ids generated at most to find one whose partition this worker owns.

With one of 16 partitions owned, 98 of 100 requests find one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation(Generic[B, M, R]):
    """The POST that creates the resources of a collection: each is a message, and has a row under its key.

    A resource has the id that its client has chosen, or one that follows from an `Idempotency-Key`: then a repeated
    request finds what exists. Else it has a generated id. A client that prefers to wait (`Prefer`) gets the outcome.

    Arguments:
        path: of the collection.
        table: of the rows.
        topic: of the messages.
        body: model of a request's body.
        key: the header `Idempotency-Key`.
        prefer: the header `Prefer`.
        id_of: the id in a body, if the client has chosen one.
        id_for: the id for a value of `Idempotency-Key`.
        new_id: generates an id.
        make: the message of a body, under an id.
        place: the command: sends the message and returns `None`, or returns the message that exists under its key.
        check_same: raises `HttpProblem` (409) if the message of the request differs from the one that exists.
        decided: whether a row has the outcome.
        outcome: the body for a client that prefers to wait, of a message and its row; `None` for an unknown row.
    """

    path: str
    table: Table[R]
    topic: Topic[M]
    body: type[B]
    key: IdempotencyKey
    prefer: WaitPreference
    id_of: Callable[[B], str | None]
    id_for: Callable[[str], str]
    new_id: Callable[[], str]
    make: Callable[[B, str], M]
    place: Callable[[M, Context], M | None]
    check_same: Callable[[M, M], None]
    decided: Callable[[R], bool]
    outcome: Callable[[M, R | None], Message]

    def endpoint(
        self, *, name: str, summary: str, description: str, tag: str, answers: Mapping[int, Answer]
    ) -> Endpoint:
        """Declares the endpoint. See `Endpoint` for the arguments."""
        return Endpoint(
            "POST",
            self.path,
            self.handle,
            name,
            summary,
            tag,
            answers,
            problems=(409,),
            parameters=(self.key, self.prefer),
            body=self.body,
            routed=True,
            description=description,
            fast=FastCommand(self.prepare, ready=self.decided),
        )

    async def handle(self, host: Host, request: web.Request) -> web.StreamResponse:
        """Answers 201 once Kafka has the message, 200 if it existed, 409 if the id has another one.

        A client that prefers to wait gets the outcome, or a 202 if there is none in time.
        """
        new = await message_of(request, self.body)
        key, wait = self.key.of(request), self.prefer.of(request)
        id_ = self.id_of(new) or (self.id_for(key) if key is not None else None)
        if id_ is None:
            return await self._place_new(host, request, self.make(new, self._fresh_id(host)), wait)
        message = self.make(new, id_)
        deadline = deadline_of(request)
        if wait is not None and wait.deadline.remaining() > deadline.remaining():
            deadline = wait.deadline
        place_here = partial(self._place, host, request, message, wait)
        return await route_to_owner(request, host, self.table, self.topic.key(message), deadline, place_here)

    def prepare(self, host: Host, body: bytes) -> PreparedCommand[M | None]:
        """The command of a body, for the fast path. A message that exists is for `handle`."""
        new = self.body.from_json(body)
        chosen = self.id_of(new)
        message = self.make(new, chosen or self._fresh_id(host))
        key = self.topic.key(message)

        def respond(existing: M | None) -> FastResponse | None:
            return FastResponse(201, message.to_json(), location(self.path, key)) if existing is None else None

        def outcome(row: R | None) -> FastResponse:
            """As `_outcome` answers for a message that is new."""
            status = 201 if row is not None and self.decided(row) else 202
            return FastResponse(status, self.outcome(message, row).to_json(), location(self.path, key))

        async def produce() -> None:
            """As `_place_new` does without the partition."""
            await host.produce(self.topic, message)

        recover = produce if chosen is None else None
        return PreparedCommand(self.table, key, partial(self.place, message), respond, outcome, recover)

    async def _place(self, host: Host, request: web.Request, message: M, wait: Wait | None) -> web.Response:
        existing = await host.submit(self.table, self.topic.key(message), partial(self.place, message))
        if existing is not None:
            self.check_same(message, existing)
        placed, status = existing or message, 201 if existing is None else 200
        if wait is None:
            return self._answer(placed, placed, status)
        return await self._outcome(host, request, placed, wait, status)

    async def _place_new(self, host: Host, request: web.Request, message: M, wait: Wait | None) -> web.Response:
        """Places a message under a generated id; without the partition, produces it directly.

        No other message can have the id, so the owner need not compare. During a rebalance no worker need own the key.
        """
        try:
            return await self._place(host, request, message, wait)
        except KeyNotOwned:
            await host.produce(self.topic, message)  # may repeat a write that took effect: equal messages are one
            return self._answer(message, message, 201) if wait is None else self._undecided(message, None, wait)

    async def _outcome(self, host: Host, request: web.Request, message: M, wait: Wait, status: int) -> web.Response:
        """The outcome of a placed message, with a status; a 202 if it is not decided in time.

        A 202 as well if the partition is revoked or the worker stops: the message is placed, and a client that repeated
        the request without an id would place another.
        """
        row: R | None = None
        with suppress(KeyNotOwned, HttpProblem), wait.admitted(request) as deadline:
            row = await wait_for_row(host, self.table, self.topic.key(message), deadline, self.decided)
        if row is None or not self.decided(row):
            return self._undecided(message, row, wait)
        return self._answer(message, self.outcome(message, row), status, wait.applied)

    def _undecided(self, message: M, row: R | None, wait: Wait) -> web.Response:
        return self._answer(message, self.outcome(message, row), 202, wait.applied)

    def _answer(self, message: M, body: Message, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
        return answer(body, status, {**location(self.path, self.topic.key(message)), **(headers or {})})

    def _fresh_id(self, host: Host) -> str:
        fresh = (self.new_id() for _ in range(FRESH_IDS))
        return next((id_ for id_ in fresh if host.owns(id_)), self.new_id())


def row_command(
    method: str,
    path: str,
    table: Table[R],
    key: PathParameter,
    command: Callable[[str, Context], T],
    answer: Callable[[str, T | None], web.Response],
    *,
    ready: Callable[[R], bool],
    name: str,
    summary: str,
    description: str,
    tag: str,
    answers: Mapping[int, Answer],
    problems: tuple[int, ...] = (),
) -> Endpoint:
    """Declares the endpoint of a command on one row, which runs on the key owner once the row is as it must be.

    Arguments:
        method: see `Endpoint`.
        path: see `Endpoint`.
        table: the table.
        key: the parameter of the path that is the key of the row.
        command: called with the key in the loop, as a processor; idempotent (see `Host.submit`).
        answer: the response, given the key and the result; `None`: the row was not `ready` until the deadline.
        ready: the command waits until the row satisfies this, or for the timeout of the request.
        name: see `Endpoint`.
        summary: see `Endpoint`.
        description: see `Endpoint`.
        tag: see `Endpoint`.
        answers: see `Endpoint`.
        problems: see `Endpoint`.
    """

    async def handle(host: Host, request: web.Request) -> web.StreamResponse:
        row_key, deadline = key.of(request), deadline_of(request)

        async def run() -> web.Response:
            row = await wait_for_row(host, table, row_key, deadline, ready)
            if row is None or not ready(row):
                return answer(row_key, None)
            return answer(row_key, await host.submit(table, row_key, partial(command, row_key)))

        return await route_to_owner(request, host, table, row_key, deadline, run)

    return Endpoint(
        method,
        path,
        handle,
        name,
        summary,
        tag,
        answers,
        problems=problems,
        parameters=(key,),
        routed=True,
        description=description,
    )
