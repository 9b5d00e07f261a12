"""Responses of handlers: a message as JSON, or a problem (RFC 9457)."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

from aiohttp import web

from schemas.api import InvalidParam, Problem
from schemas.wire import Message

M = TypeVar("M", bound=Message)

RETRY = {"Retry-After": "1"}
_JSON = {"Content-Type": "application/json"}
PROBLEM_JSON = "application/problem+json"
_PROBLEM = {"Content-Type": PROBLEM_JSON}


def answer(message: Message, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A response with a message as its JSON body."""
    return web.Response(body=message.to_json(), status=status, headers={**_JSON, **headers} if headers else _JSON)


def location(path: str, name: str) -> dict[str, str]:
    """The header `Location` of a named resource under a path."""
    return {"Location": f"{path}/{quote(name, safe='')}"}


def problem_as(body: Problem, headers: Mapping[str, str] | None = None) -> web.Response:
    """A problem response with a given body, for example one with extension members."""
    return web.Response(
        body=body.to_json(), status=body.status, headers={**_PROBLEM, **headers} if headers else _PROBLEM
    )


def problem(
    status: int,
    detail: str | None = None,
    *,
    errors: Iterable[InvalidParam] | None = None,
    instance: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A problem response of the type `about:blank`: its title is the phrase of its status.

    `detail` may quote a request. There, aiohttp decodes invalid UTF-8 into surrogates, which JSON cannot contain; they
    are escaped.
    """
    body = Problem(
        title=title_of(status),
        status=status,
        detail=None if detail is None else detail.encode(errors="backslashreplace").decode(),
        instance=instance,
        errors=tuple(errors) if errors is not None else None,
    )
    return problem_as(body, headers)


def title_of(status: int) -> str:
    """The phrase of a status code; `Error` if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


class HttpProblem(Exception):
    """Ends the handling of a request with a problem response."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[InvalidParam] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, headers

    def response(self) -> web.Response:
        return problem(self.status, self.detail, errors=self.errors, headers=self.headers)


def existing(found: M | None, detail: str) -> M:
    """What was found. Raises `HttpProblem` (404) if nothing was."""
    if found is None:
        raise HttpProblem(404, detail)
    return found
