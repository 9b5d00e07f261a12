"""What happens to one row as server-sent events, from its key owner, until the row is final."""

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import TypeVar

from aiohttp import web

from runtime.errors import KeyNotOwned
from runtime.hosting import Answer, Endpoint, Host
from runtime.http.answers import HttpProblem
from runtime.http.event_stream import EVENT_STREAM, HEARTBEAT_S, LAST_EVENT_ID, ServerSentEvent, send_events
from runtime.http.inputs import PathParameter, deadline_of
from runtime.http.queries import wait_for_row
from runtime.http.routing import route_to_owner
from runtime.model.service import Table
from schemas.wire import Message

R = TypeVar("R", bound=Message)

_ID = re.compile(r"([0-9]{1,7})-([0-9]{1,7})")


def row_events(
    path: str,
    table: Table[R],
    key: PathParameter,
    events: Callable[[R], Iterable[ServerSentEvent]],
    unknown: Callable[[str], HttpProblem],
    *,
    ready: Callable[[R], bool],
    final: Callable[[R], bool],
    name: str,
    summary: str,
    description: str,
    tag: str,
) -> Endpoint:
    """Declares the endpoint of a stream that begins once the row is ready, and that any worker continues.

    Arguments:
        path: of the endpoint.
        table: the table.
        key: the parameter of the path that is the key of the row.
        events: the events so far. They follow from the row alone, in ascending order of their ids, each two numbers
            joined by a hyphen.
        unknown: the problem, given the key, if the row is not ready until the deadline of the request.
        ready: whether the stream can begin.
        final: whether the row has had its last event.
        name: see `Endpoint`.
        summary: see `Endpoint`.
        description: see `Endpoint`.
        tag: see `Endpoint`.
    """

    async def handle(host: Host, request: web.Request) -> web.StreamResponse:
        row_key, deadline = key.of(request), deadline_of(request)
        after = _position(request.headers.get(LAST_EVENT_ID.name))

        async def stream() -> web.StreamResponse:
            row = await wait_for_row(host, table, row_key, deadline, ready)
            if row is None or not ready(row):
                raise unknown(row_key)
            return await send_events(request, follow(host, row_key, after))

        return await route_to_owner(request, host, table, row_key, deadline, stream, stream=True)

    async def follow(
        host: Host, row_key: str, after: tuple[int, int]
    ) -> AsyncGenerator[Sequence[ServerSentEvent], None]:
        """Yields events behind a position, nothing at a heartbeat, until the partition moves or the worker stops."""
        with host.watch(table, row_key) as watch:
            while not host.stopping:
                try:
                    row = host.read(table, row_key)
                except KeyNotOwned:
                    return  # the client connects again, to the new owner
                if row is not None and (new := [event for event in events(row) if _position(event.id) > after]):
                    after = _position(new[-1].id)
                    yield new
                if row is not None and final(row):
                    return
                if not await watch.wait(HEARTBEAT_S):
                    yield ()

    answers = {200: Answer("The events", media_type=EVENT_STREAM)}
    return Endpoint(
        "GET",
        path,
        handle,
        name,
        summary,
        tag,
        answers,
        parameters=(key, LAST_EVENT_ID),
        routed=True,
        description=description,
    )


def _position(id_: str | None) -> tuple[int, int]:
    """The two numbers in the id of an event; a text that is none stands before all events."""
    found = _ID.fullmatch(id_ or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)
