"""Middleware that turns every exception of a handler into a problem response (RFC 9457)."""

import logging
import uuid

from aiohttp import web
from aiohttp.typedefs import Handler

from runtime.errors import BrokerUnavailable, DatabaseUnavailable, KeyNotOwned
from runtime.http.answers import RETRY, HttpProblem, problem

log = logging.getLogger(__name__)

# Headers of aiohttp's own error responses are kept (`Allow` of a 405, for example), except those of the body.
_BODY_HEADERS = {"content-type", "content-length"}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers exceptions with `application/problem+json`; an unexpected one with a 500 and an id for the log."""
    try:
        return await handler(request)
    except HttpProblem as problem_raised:
        return problem_raised.response()
    except web.HTTPException as error:
        return from_aiohttp(request, error)
    except BrokerUnavailable:
        return broker_unavailable()
    except KeyNotOwned:
        return problem(503, "This key is moving to another worker. Repeat the request.", headers=RETRY)
    except DatabaseUnavailable as error:
        log.warning("database unavailable for request path=%s error=%s", request.path, error)
        return problem(503, "The database did not answer in time. Repeat the request.", headers=RETRY)
    except web.RequestPayloadError as error:
        return problem(400, f"The request body could not be read: {error}")
    except Exception:
        # The client gets an id instead of a traceback; the log has the traceback under that id.
        return unexpected(request.method, request.path)


def broker_unavailable() -> web.Response:
    """A 503: Kafka did not acknowledge what the request writes."""
    return problem(503, "Kafka did not acknowledge the message in time. Repeat the request.", headers=RETRY)


def from_aiohttp(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """The problem for an exception of aiohttp's own: unknown route, unsupported method, and others."""
    if error.status < 400:
        raise error
    headers = {k: v for k, v in error.headers.items() if k.lower() not in _BODY_HEADERS}
    match error:
        case web.HTTPNotFound():
            detail = f"There is no route {request.path}. /docs lists all routes."
        case web.HTTPMethodNotAllowed():
            detail = f"{request.path} does not support {request.method}, only {headers.get('Allow')}."
        case _:
            detail = error.text or ""
    return problem(error.status, detail, headers=headers)


def unexpected(method: str, path: str, error: BaseException | None = None) -> web.Response:
    """A 500 with an id, under which the exception being handled (or `error`) is logged."""
    error_id = uuid.uuid4()
    log.error("request failed error_id=%s method=%s path=%s", error_id, method, path, exc_info=error or True)
    return problem(500, f"Internal error. The server's log has it under error_id={error_id}.", instance=error_id.urn)
