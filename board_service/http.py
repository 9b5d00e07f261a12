"""HTTP endpoints of the board: the page, its feed, search, the timeline of an order, and the form's orders."""

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from yarl import URL

from board_service import pages
from board_service.relay import Relay
from board_service.streams import BoardStreams
from board_service.traces import milliseconds, texts
from runtime.hosting import Answer, Endpoint, Host, Parameter
from runtime.http.answers import HttpProblem
from runtime.http.event_stream import EVENT_STREAM, send_events
from runtime.http.inputs import ORDER_ID, IdempotencyKey, body_of, is_json
from runtime.http.validation import invalid_input
from schemas.api import NewOrder
from schemas.messages import Order

_MOST_FOUND = 50
_LONGEST_SEARCH = 100
_FEWEST_IN_HISTORY = 3
"""Characters from which the history searches for a part."""
_MOST_UPDATES = 1000

_UPDATES = Parameter(
    "updates",
    "query",
    {"type": "integer", "minimum": 1, "maximum": _MOST_UPDATES},
    "Ends the stream after so many updates, of which there are two a second; without it, it goes on",
)
_SEARCH = Parameter(
    "q",
    "query",
    {"type": "string", "minLength": 1, "maxLength": _LONGEST_SEARCH},
    "A part of the order's id, product, customer or reasons, in any case; without it, the newest orders",
)
_FILE = Parameter("file", "path", {"type": "string", "enum": pages.NAMES}, "Name of a file of the page")
_KEY = IdempotencyKey("Requests with the same key create one order")


class BoardApi:
    """Handlers of the board.

    Arguments:
        streams: of events.
        relay: calls other services.
    """

    def __init__(self, streams: BoardStreams, relay: Relay) -> None:
        self._streams = streams
        self._relay = relay

    async def follow(self, host: Host, request: web.Request) -> web.StreamResponse:
        """Sends the board, and what changes."""
        updates = _updates_of(request)
        with self._streams.viewing():
            return await send_events(request, self._streams.board(host, updates))

    async def follow_order(self, host: Host, request: web.Request) -> web.StreamResponse:
        """Sends the timeline of an order, until its final state."""
        order_id = ORDER_ID.of(request)
        updates = _updates_of(request)
        with self._streams.viewing():
            return await send_events(request, self._streams.timeline(host, order_id, updates))

    async def search(self, host: Host, request: web.Request) -> web.Response:
        """Answers orders with a text: those that the board follows, and those of the history."""
        text = _search_of(request)
        rows = {trace.id: trace.row() for trace in self._streams.traces.search(text, _MOST_FOUND)}
        page = await self._relay.search(host, text, _MOST_FOUND) if len(text) >= _FEWEST_IN_HISTORY else None
        for order in page["orders"] if page is not None else ():
            rows.setdefault(order["id"], _row(order))
        found = sorted(rows.values(), key=lambda row: -row["created"])[:_MOST_FOUND]
        return web.json_response({"orders": found, "history": page is not None})

    async def place(self, host: Host, request: web.Request) -> web.Response:
        """Places an order of the form."""
        _check_origin(request)
        content_type = request.headers.get("Content-Type")
        if content_type is None or not is_json(content_type):
            detail = f"The body must be application/json, not {content_type}."
            raise HttpProblem(415, detail, headers={"Accept-Post": "application/json"})
        headers = {"Content-Type": content_type}
        if (key := _KEY.of(request)) is not None:
            headers[_KEY.name] = key
        return await self._relay.place(host, await body_of(request), headers)


def _check_origin(request: web.Request) -> None:
    """Raises `HttpProblem` (403) for a request of another origin's page. Only browsers send these headers."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if site not in {None, "same-origin", "none"} or (site is None and origin and URL(origin).authority != request.host):
        raise HttpProblem(403, "Orders are placed from the board's own page only.")


def _updates_of(request: web.Request) -> int | None:
    text = request.query.get(_UPDATES.name)
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text) or int(text) > _MOST_UPDATES:
        reason = f"must be a whole number from 1 to {_MOST_UPDATES}"
        raise invalid_input(_UPDATES.name, reason, f"The query parameter {_UPDATES.name!r} {reason}.")
    return int(text)


def _search_of(request: web.Request) -> str:
    text = request.query.get(_SEARCH.name)
    if text is None:
        return ""
    if not 1 <= len(text) <= _LONGEST_SEARCH:
        reason = f"must have 1 to {_LONGEST_SEARCH} characters"
        raise invalid_input(_SEARCH.name, reason, f"The query parameter {_SEARCH.name!r} {reason}.")
    return text


def _row(order: Mapping[str, Any]) -> dict[str, Any]:
    """An order of the history, as the board shows it."""
    return {
        "id": order["id"],
        "customer": order["customerId"],
        "product": order["product"],
        "quantity": order["quantity"],
        "value": order["value"],
        "state": order["state"],
        "created": milliseconds(order["createdAt"], 0),
        "changed": milliseconds(order["updatedAt"], 0),
        "reasons": texts(list(order.get("reasons") or ())),
        "stages": {stage: milliseconds(at, 0) for stage, at in order["stages"].items()},
    }


def endpoints(api: BoardApi) -> tuple[Endpoint, ...]:
    """Declares the endpoints of the service."""
    return (
        Endpoint(
            "GET",
            "/",
            pages.page,
            name="getBoard",
            summary="The board, a page for browsers",
            tag="board",
            answers={200: Answer("The page", media_type="text/html"), 304: Answer("Unchanged", media_type="text/html")},
        ),
        Endpoint(
            "GET",
            "/board/static/{file}",
            pages.static_file,
            name="getBoardFile",
            summary="A file of the page",
            tag="board",
            parameters=(_FILE,),
            answers={200: Answer("The file", media_type="*/*"), 304: Answer("Unchanged", media_type="*/*")},
        ),
        Endpoint(
            "GET",
            "/board/events",
            api.follow,
            name="streamBoard",
            summary="Follow the board: its parts as server-sent events, whenever they have changed",
            description="Events `about`, `flow`, `orders`, `stock`, `sessions`, `deadletters`, `workers`, `backlog`. "
            "Their content is made for the page, and may change with it.",
            tag="board",
            parameters=(_UPDATES,),
            answers={200: Answer("The events", media_type=EVENT_STREAM)},
        ),
        Endpoint(
            "GET",
            "/board/orders/{id}/events",
            api.follow_order,
            name="streamTimeline",
            summary="Follow the timeline of an order, until its final state",
            tag="board",
            parameters=(ORDER_ID, _UPDATES),
            answers={200: Answer("Events `timeline`, and `end`", media_type=EVENT_STREAM)},
        ),
        Endpoint(
            "GET",
            "/board/orders",
            api.search,
            name="searchBoard",
            summary="Search orders: those that the board follows, and those of the history",
            tag="board",
            parameters=(_SEARCH,),
            answers={200: Answer("Orders, newest first")},
        ),
        Endpoint(
            "POST",
            "/board/orders",
            api.place,
            name="placeFromBoard",
            summary="Place an order of the board's form",
            description="Passed on to a worker that runs the orders service. Refused for pages of other origins.",
            tag="board",
            parameters=(_KEY,),
            body=NewOrder,
            answers={201: Answer("The order is written to Kafka", Order), 200: Answer("The order existed", Order)},
            problems=(403, 409, 502),
        ),
    )
