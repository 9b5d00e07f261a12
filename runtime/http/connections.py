"""Connections of the HTTP server: problem responses to malformed requests.

Relies on private parts of aiohttp, as do `runner.py`, `fast_path/` and `_expect` in `server.py`; each use says on what.
The tested version is in `TESTED` (`runtime/kafka/aiokafka_internals.py`).
"""

import logging
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import _ErrInfo

from runtime.http.answers import problem
from runtime.http.problems import unexpected

log = logging.getLogger(__name__)


class HandedOver(NamedTuple):
    """What the fast path knows of a request that it has begun, and leaves to the application.

    Arguments:
        began: by `time.perf_counter`.
        signed: whether it was forwarded by another worker, and its signature is valid if workers have keys. It covers
            the target as it was, and is valid for a short time.
    """

    began: float
    signed: bool


HANDED_OVER = web.RequestKey("handed over by the fast path", HandedOver)

_CLIENT_ERRORS = (web.RequestPayloadError, HttpProcessingError, ConnectionError)


class HttpConnection(web.RequestHandler):
    """Answers a malformed request with a problem response, where aiohttp would answer with text or HTML."""

    __slots__ = ()

    def take_handed_over(self) -> HandedOver | None:
        """What the fast path knows of the request, if it has begun it. Called once for each request, at its start."""
        return None

    def data_received(self, data: bytes) -> None:
        """Ends a body with malformed framing: aiohttp would let the handler wait for its remainder for ever.

        Relies on the base class: `_current_request` is the one being handled, `_messages` are the parsed ones that wait
        after it, and a parse error among them is an `_ErrInfo`.
        """
        open_body = None if self._current_request is None else self._current_request.content
        super().data_received(data)
        for message, body in self._messages:
            if isinstance(message, _ErrInfo) and open_body is not None and not open_body.is_eof():
                open_body.set_exception(web.RequestPayloadError(message.message))
            open_body = body

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp for a malformed request, and for an exception that no middleware has handled."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response is already being sent")
        if status < 500:
            log.debug("request malformed remote=%s", request.remote, exc_info=exc)
            # The first line is the reason; the next ones show the offending bytes.
            reason = (message or "").partition("\n")[0]
            response = problem(status, f"This is not a well-formed HTTP request: {reason}")
        else:
            response = unexpected(request.method, request.path, exc)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Called by aiohttp for an unhandled exception; an unread remainder of a body may be malformed, too."""
        if isinstance(kw.get("exc_info"), _CLIENT_ERRORS):
            log.debug("remainder of request malformed", exc_info=kw["exc_info"])
        else:
            super().log_exception(*args, **kw)
