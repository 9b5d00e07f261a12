"""Interactive queries of one row: answered from the key owner, perhaps once the row is as the client waits for it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from aiohttp import web

from runtime.hosting import Answer, Endpoint, FastQuery, Host, Parameter
from runtime.http.answers import HttpProblem
from runtime.http.inputs import Deadline, PathParameter, deadline_of
from runtime.http.routing import check_running, route_to_owner, served_by_standby
from runtime.model.service import Table
from schemas.wire import Message

M = TypeVar("M", bound=Message)


def row_query(
    path: str,
    table: Table[M],
    key: PathParameter | str,
    answer: Callable[[str, M | None], web.Response],
    *,
    ready: Callable[[M], bool] | None = None,
    body: Callable[[M], Message] | None = None,
    name: str,
    summary: str,
    tag: str,
    answers: Mapping[int, Answer],
) -> Endpoint:
    """Declares the endpoint of a query of one row, which any worker answers from the committed row of the key owner.

    Arguments:
        path: of the endpoint.
        table: the table.
        key: the parameter of the path that is the key of the row; or the key, the same for every request.
        answer: the response, given the key and its row; raises `HttpProblem`.
        ready: the query waits until the row satisfies this, or for its timeout. Such a row may also come from a standby
            while the owner is unavailable. Default: the query neither waits nor asks a standby.
        body: the body of the response for a row that is `ready`; lets the fast path answer.
        name: see `Endpoint`.
        summary: see `Endpoint`.
        tag: see `Endpoint`.
        answers: see `Endpoint`.
    """

    async def handle(host: Host, request: web.Request) -> web.StreamResponse:
        row_key = key if isinstance(key, str) else key.of(request)
        deadline = deadline_of(request)

        async def read() -> web.Response:
            if ready is None:
                return answer(row_key, host.read(table, row_key))
            return answer(row_key, await wait_for_row(host, table, row_key, deadline, ready))

        def stale_read() -> web.Response | None:
            stale = host.read_stale(table, row_key)
            if stale is None or ready is None or not ready(stale.row):
                return None
            response = answer(row_key, stale.row)
            response.headers.update(served_by_standby(stale))
            return response

        return await route_to_owner(request, host, table, row_key, deadline, read, stale_read if ready else None)

    parameters = () if isinstance(key, str) else (key,)
    fast = None if ready is None or body is None else FastQuery(table, ready, body, answer)
    return Endpoint("GET", path, handle, name, summary, tag, answers, parameters=parameters, routed=True, fast=fast)


def misdirected(endpoint: Endpoint, parameter: Parameter, detail: str) -> Endpoint:
    """The endpoint, answering 421 with `detail` to requests with a parameter that only another endpoint takes.

    A worker that has the other endpoint (see `Endpoint.when`) lets that one answer.
    """

    async def handle(host: Host, request: web.Request) -> web.StreamResponse:
        if parameter.name in request.query:
            raise HttpProblem(421, detail)
        return await endpoint.handler(host, request)

    parameters = (*endpoint.parameters, parameter)
    return replace(endpoint, handler=handle, parameters=parameters, problems=(*endpoint.problems, 421))


async def wait_for_row(
    host: Host, table: Table[M], key: str, deadline: Deadline, ready: Callable[[M], bool]
) -> M | None:
    """Waits until the row is `ready` or the deadline passes; returns the row (read-your-writes).

    Raises `KeyNotOwned`, also when the partition is revoked meanwhile.
    """
    with host.watch(table, key) as watch:
        while True:
            row = host.read(table, key)
            if row is not None and ready(row):
                return row
            remaining = deadline.remaining()
            if not remaining:
                return row
            check_running(host)
            await watch.wait(remaining)
