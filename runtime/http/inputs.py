"""Inputs of a request: path parameters, timeout and body, as documented and as read."""

import re
import time
import uuid
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from runtime.hosting import Parameter
from runtime.http.answers import HttpProblem
from runtime.http.decoding import BodyTooLong, decode_body
from runtime.http.validation import invalid_input, invalid_request
from schemas.identifiers import Code, OrderId, is_composed
from schemas.times import INSTANT
from schemas.validation import field_errors
from schemas.wire import Message

M = TypeVar("M", bound=Message)

_EXAMPLE_KEY = "7b7f2a3c-0f0e-4b8e-9d6c-0a1b2c3d4e5f"

DEFAULT_TIMEOUT_MS = 10_000
MAX_TIMEOUT_MS = 60_000

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathParameter(Parameter):
    """A parameter of the path that names something.

    Arguments:
        valid: what its value must be.
        title: begins the answer to an invalid one.
    """

    valid: TypeAdapter[str]
    title: str

    def of(self, request: web.Request) -> str:
        """The value in a request. Raises `HttpProblem` (400) if it is invalid."""
        try:
            return self.valid.validate_python(request.match_info[self.name])
        except ValidationError as error:
            reason = field_errors(error)[0].reason
            raise invalid_input(self.name, reason, f"{self.title}: it {reason}.") from None


ORDER_ID = PathParameter(
    name="id",
    place="path",
    schema={"$ref": "#/components/schemas/OrderId"},
    description="Percent-encoded: a slash in the id is %2F",
    valid=TypeAdapter(OrderId),
    title="No order can have this id",
)
CODE = PathParameter(
    name="code",
    place="path",
    schema={"$ref": "#/components/schemas/Code"},
    description="Percent-encoded: a slash in the code is %2F",
    valid=TypeAdapter(Code),
    title="Nothing can have this code",
)
TIMEOUT = Parameter(
    "timeout",
    "query",
    {"type": "integer", "minimum": 0, "default": DEFAULT_TIMEOUT_MS},
    f"Milliseconds to wait; 0 does not wait, more than {MAX_TIMEOUT_MS:,} counts as {MAX_TIMEOUT_MS:,}",
)

AT = Parameter(
    "at",
    "query",
    INSTANT,
    "The order as it was then, from the history, without waiting. A worker that does not run the history service "
    "answers 421",
)


class IdempotencyKey(Parameter):
    """The header `Idempotency-Key`: requests with the same key have one effect.

    Arguments:
        description: for clients.
    """

    def __init__(self, description: str) -> None:
        schema = {"type": "string", "pattern": "^[ -~]*[!-~][ -~]*$", "examples": [_EXAMPLE_KEY]}
        super().__init__("Idempotency-Key", "header", schema, description)

    def of(self, request: web.Request) -> str | None:
        """The key of a request, if it has one. Raises `HttpProblem` (400) if it is invalid."""
        key = request.headers.get(self.name)
        if key is not None and (not key or not key.isprintable() or not is_composed(key)):
            reason = "must be printable UTF-8 text in Unicode form NFC, a UUID for example"
            raise invalid_input(self.name, reason, f"The header {self.name} {reason}.")
        return key


class Deadline:
    """The time until which a request may wait."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; not below 0."""
        return max(0.0, self._at - time.monotonic())


def deadline_of(request: web.Request) -> Deadline:
    """The deadline, by the query parameter `timeout`: milliseconds, default 10,000, at most 60,000, 0 does not wait."""
    text = request.query.get("timeout") if request.query_string else None
    if text is None:
        return Deadline(DEFAULT_TIMEOUT_MS / 1000)
    if not (text.isascii() and text.isdigit()):
        reason = f"must be a whole number of milliseconds, 0 to {MAX_TIMEOUT_MS}, such as timeout=5000"
        raise invalid_input(TIMEOUT.name, reason, f"The query parameter {TIMEOUT.name!r} {reason}.")
    # Checks the length first: Python rejects numbers of thousands of digits.
    milliseconds = MAX_TIMEOUT_MS if len(text) > 9 else min(int(text), MAX_TIMEOUT_MS)
    return Deadline(milliseconds / 1000)


def uuid_of(request: web.Request, parameter: Parameter, reason: str) -> uuid.UUID:
    """The UUID in a path parameter. Raises `HttpProblem` (400) that says what it must be."""
    text = request.match_info[parameter.name]
    if not _UUID.fullmatch(text):  # Python also accepts braces, urn:uuid: and missing hyphens
        raise invalid_input(parameter.name, reason)
    return uuid.UUID(text)


async def body_of(request: web.Request) -> bytes:
    """The whole body, decompressed. Raises `HttpProblem` (413) as soon as it is known to exceed the limit."""
    limit = request.client_max_size
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    try:
        body = await request.read()
        encoding = request.headers.get("Content-Encoding")
        return body if encoding is None else decode_body(body, encoding, limit)
    except (web.HTTPRequestEntityTooLarge, BodyTooLong):
        raise too_large(limit) from None


async def message_of(request: web.Request, model: type[M]) -> M:
    """The body as a message.

    Raises `HttpProblem`: 415 for another media type than JSON, 413 for a body that is too large, 400 with each invalid
    field.
    """
    content_type = request.headers.get("Content-Type")
    if not is_json(content_type):
        detail = f"The body must be application/json, not {content_type}."
        raise HttpProblem(415, detail, headers={"Accept-Post": "application/json"})
    body = await body_of(request)
    try:
        return model.from_json(body)
    except ValidationError as error:
        raise invalid_request(error) from None


def too_large(limit: int) -> HttpProblem:
    """A 413: the body exceeds `limit` bytes."""
    return HttpProblem(413, f"The request body is larger than {limit} bytes, the most this server accepts.")


def is_json(content_type: str | None) -> bool:
    """Whether a Content-Type is JSON: `application/json`, `*+json`, or missing."""
    if content_type is None or content_type == "application/json":
        return True
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")
