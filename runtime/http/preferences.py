"""The header `Prefer: wait=SECONDS` (RFC 7240): a request that waits for what it causes."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from runtime.hosting import Parameter, ResponseHeader
from runtime.http.admission import counted_as_read
from runtime.http.connections import HANDED_OVER
from runtime.http.inputs import Deadline

MAX_WAIT_S = 60
_WAIT = re.compile(r"\s*wait\s*=\s*(?:\"([0-9]+)\"|([0-9]+))\s*(?:;.*)?", re.IGNORECASE)

APPLIED = ResponseHeader("Preference-Applied", "`wait=SECONDS`, if the request had this preference")


class Wait:
    """How long a client prefers to wait for the outcome of its request.

    Arguments:
        seconds: from the beginning of the request.
        passed_s: seconds since then.
    """

    def __init__(self, seconds: int, passed_s: float = 0.0) -> None:
        self.seconds = seconds
        self.deadline = Deadline(max(0.0, seconds - passed_s))

    @property
    def applied(self) -> dict[str, str]:
        """The header of an answer to the request."""
        return {APPLIED.name: f"wait={self.seconds}"}

    @contextmanager
    def admitted(self, request: web.Request) -> Iterator[Deadline]:
        """The deadline of a request that waits. It has passed if the worker accepts no more requests that wait.

        Meanwhile the request counts as a read: clients that wait must not keep others from writing.
        """
        with counted_as_read(request) as admitted:
            yield self.deadline if admitted else Deadline(0)


class WaitPreference(Parameter):
    """The preference `wait`. As RFC 7240 has it, other and malformed preferences are ignored.

    Arguments:
        description: for clients.
    """

    def __init__(self, description: str) -> None:
        schema = {"type": "string", "examples": ["wait=10"]}
        super().__init__("Prefer", "header", schema, description)

    def of(self, request: web.Request) -> Wait | None:
        """The preference of a request, if it has one: the first counts, with `MAX_WAIT_S` at most."""
        if self.name not in request.headers:
            return None
        handed_over = request.get(HANDED_OVER)
        passed_s = 0.0 if handed_over is None else time.perf_counter() - handed_over.began
        for value in request.headers.getall(self.name):
            for preference in value.split(","):
                if found := _WAIT.fullmatch(preference):
                    digits = found[1] or found[2]
                    return Wait(MAX_WAIT_S if len(digits) > 9 else min(int(digits), MAX_WAIT_S), passed_s)
        return None
