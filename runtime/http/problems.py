"""Every error a client sees is a problem (RFC 9457): this middleware sees to it, whatever a handler raises."""

import logging
import uuid

from aiohttp import web
from aiohttp.typedefs import Handler

from runtime.errors import BrokerUnavailable, DatabaseUnavailable, KeyNotOwned
from runtime.http.answers import RETRY, HttpProblem, problem

log = logging.getLogger(__name__)

# What aiohttp says in its own words goes through, these headers with it (`Allow` of a 405, for one); not its body.
_OWN_HEADERS = {"content-type", "content-length"}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns what is raised into `application/problem+json`; what nobody expected becomes a 500 with an id."""
    try:
        return await handler(request)
    except HttpProblem as refused:
        return refused.response()
    except web.HTTPException as error:
        return from_aiohttp(request, error)
    except BrokerUnavailable:
        return problem(503, "Kafka did not take the message in time. Repeat the request.", headers=RETRY)
    except KeyNotOwned:
        return problem(503, "The worker that holds this key is changing. Repeat the request.", headers=RETRY)
    except DatabaseUnavailable as error:
        log.warning("request refused path=%s error=%s", request.path, error)
        return problem(503, "The database did not answer in time. Repeat the request.", headers=RETRY)
    except web.RequestPayloadError as error:
        return problem(400, f"The request body could not be read: {error}")
    except Exception:
        # All is caught: a client gets no traceback, and the log gets one that can be found by what the client reports.
        return unexpected(request)


def from_aiohttp(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """The problem that says what aiohttp's own exception says: no such route, a method that the route has not."""
    if error.status < 400:
        raise error
    headers = {k: v for k, v in error.headers.items() if k.lower() not in _OWN_HEADERS}
    match error:
        case web.HTTPNotFound():
            detail = f"There is nothing at {request.path}. /docs lists what there is."
        case web.HTTPMethodNotAllowed():
            detail = f"{request.path} does not answer {request.method}, only {headers.get('Allow')}."
        case _:
            detail = error.text or ""
    return problem(error.status, detail, headers=headers)


def unexpected(request: web.BaseRequest, error: BaseException | None = None) -> web.Response:
    """A 500 with an id under which the log has the exception that is being handled (or `error`)."""
    error_id = uuid.uuid4()
    log.error("Error %s at %s %s", error_id, request.method, request.path, exc_info=error or True)
    return problem(500, f"Something went wrong here; the log has it as {error_id}.", instance=error_id.urn)
