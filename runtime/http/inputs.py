"""What a request brings along: its body, and the time it may take."""

import time
from typing import TypeVar

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from runtime.http.answers import HttpProblem
from runtime.http.decoding import BodyTooLong, decoded
from runtime.http.faults import refuse
from schemas.api import InvalidParam
from schemas.identifiers import Code, OrderId
from schemas.wire import Message

M = TypeVar("M", bound=Message)

_ORDER_ID: TypeAdapter[str] = TypeAdapter(OrderId)
_CODE: TypeAdapter[str] = TypeAdapter(Code)

DEFAULT_TIMEOUT_MS = 10_000
MAX_TIMEOUT_MS = 60_000


class Deadline:
    """The moment until which a request may wait."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; not below 0."""
        return max(0.0, self._at - time.monotonic())


def deadline_of(request: web.Request) -> Deadline:
    """From the query parameter `timeout`, in milliseconds: default 10,000, at most 60,000, 0 = don't wait."""
    text = request.query.get("timeout") if request.query_string else None
    if text is None:
        return Deadline(DEFAULT_TIMEOUT_MS / 1000)
    if not (text.isascii() and text.isdigit()):
        reason = f"must be a whole number of milliseconds, 0 to {MAX_TIMEOUT_MS}, such as timeout=5000"
        raise HttpProblem(
            400, "The query parameter 'timeout' is not a time.", errors=[InvalidParam(name="timeout", reason=reason)]
        )
    # The length first: Python refuses to read a number of thousands of digits.
    milliseconds = MAX_TIMEOUT_MS if len(text) > 9 else min(int(text), MAX_TIMEOUT_MS)
    return Deadline(milliseconds / 1000)


def order_id_of(request: web.Request, name: str = "id") -> str:
    """The order id in the path, as `name`. Raises `HttpProblem` (400) if no order can have it."""
    return _named(request, name, _ORDER_ID, "No order can have this id")


def _named(request: web.Request, name: str, allowed: TypeAdapter[str], complaint: str) -> str:
    try:
        return allowed.validate_python(request.match_info[name])
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        fault = InvalidParam(name=name, reason=reason)
        raise HttpProblem(400, f"{complaint}: {reason}.", errors=[fault]) from None


def code_of(request: web.Request, name: str = "code") -> str:
    """The code in the path, as `name`. Raises `HttpProblem` (400) if nothing can have it."""
    return _named(request, name, _CODE, "Nothing can have this code")


async def body_of(request: web.Request) -> bytes:
    """The whole body, unpacked. Raises `HttpProblem`: 413 as soon as it is known to be larger than the worker takes."""
    limit = request.client_max_size
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    try:
        body = await request.read()
        encoding = request.headers.get("Content-Encoding")
        return body if encoding is None else decoded(body, encoding, limit)
    except (web.HTTPRequestEntityTooLarge, BodyTooLong):
        raise too_large(limit) from None


async def message_of(request: web.Request, model: type[M]) -> M:
    """The body as a message. Raises `HttpProblem`: 415 for what is no JSON, 413, 400 for what is wrong, field by
    field."""
    content_type = request.headers.get("Content-Type")
    if not is_json(content_type):
        detail = f"The body must be application/json, not {content_type}."
        raise HttpProblem(415, detail, headers={"Accept-Post": "application/json"})
    body = await body_of(request)
    try:
        return model.from_json(body)
    except ValidationError as error:
        raise refuse(error) from None


def too_large(limit: int) -> HttpProblem:
    """Refuses a body of more than `limit` bytes."""
    return HttpProblem(413, f"The request body is larger than {limit} bytes, the most this server takes.")


def is_json(content_type: str | None) -> bool:
    """Whether a Content-Type says JSON: `application/json`, `*+json`, or nothing at all."""
    if content_type is None or content_type == "application/json":
        return True
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")
