"""Query parameters of the history: as documented, and as read. Pure but for the request."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from aiohttp import web

from history_service.filters import FEWEST_CHARACTERS, MOST_CHARACTERS, Filters
from runtime.hosting import Parameter
from runtime.http.inputs import AT
from runtime.http.validation import invalid_input
from schemas.messages import OrderState
from schemas.times import INSTANT, parse_instant

T = TypeVar("T")

DEFAULT_LIMIT = 50
MOST_ORDERS = 500
"""Orders of a page."""
_INT64 = 2**63

_TEXT = {"type": "string", "maxLength": MOST_CHARACTERS}
_PART = {**_TEXT, "minLength": FEWEST_CHARACTERS}

STATE = Parameter(
    "state",
    "query",
    {"type": "array", "items": {"type": "string", "enum": [state.value for state in OrderState]}},
    "Only orders in this state; repeated: in one of these",
)
CUSTOMER = Parameter("customerId", "query", {"type": "integer", "minimum": -_INT64, "maximum": _INT64 - 1})
PRODUCT = Parameter("product", "query", _TEXT)
REASON = Parameter("reason", "query", _PART, "A part of one of the reasons of a FAILED or CANCELLED order, in any case")
FROM = Parameter("from", "query", INSTANT, "The earliest `createdAt`")
TO = Parameter("to", "query", INSTANT, "The first `createdAt` that is too late")
PART = Parameter(
    "q", "query", _PART, "A part of the order's id, its reasons, ids of payments and refunds, or a header, in any case"
)
LIMIT = Parameter(
    "limit",
    "query",
    {"type": "integer", "minimum": 1, "maximum": MOST_ORDERS, "default": DEFAULT_LIMIT},
    "Orders in the answer at most",
)
CURSOR = Parameter(
    "cursor",
    "query",
    {"type": "string", "minLength": 1},
    "`next` of the page before. The filters must be those of that page; the limit may be another",
)
RANGE = (FROM, TO)
FILTERS = (STATE, CUSTOMER, PRODUCT, REASON, FROM, TO, PART)


def filters_of(request: web.Request) -> Filters:
    """The filters of a list. Raises `HttpProblem` (400), as do all functions here."""
    refuse_others(request, *FILTERS, LIMIT, CURSOR)
    since, before = range_of(request)
    return Filters(
        states=_states(request),
        customer_id=_read(request, CUSTOMER, _customer),
        product=_read(request, PRODUCT, _text),
        reason=_read(request, REASON, _part),
        since=since,
        before=before,
        part=_read(request, PART, _part),
    )


def range_of(request: web.Request) -> tuple[datetime | None, datetime | None]:
    """The range of `createdAt`: from the first time on, before the second."""
    return _read(request, FROM, parse_instant), _read(request, TO, parse_instant)


def refuse_others(request: web.Request, *known: Parameter) -> None:
    """Refuses query parameters beside the known ones: a misspelt filter would answer with orders nobody asked for."""
    names = [parameter.name for parameter in known]
    for name in request.query:
        if name not in names:
            reason = f"is unknown here: use {', '.join(names)}"
            raise invalid_input(name, reason, f"The query parameter {name!r} {reason}.")


def limit_of(request: web.Request) -> int:
    """The number of orders of a page."""
    return _read(request, LIMIT, _limit) or DEFAULT_LIMIT


def cursor_of(request: web.Request) -> str | None:
    """The text of the cursor."""
    return _read(request, CURSOR, str)


def time_of(request: web.Request) -> datetime | None:
    """The time of the parameter `at`."""
    return _read(request, AT, parse_instant)


def _states(request: web.Request) -> tuple[OrderState, ...]:
    try:
        return tuple(sorted({OrderState(text) for text in request.query.getall(STATE.name, ())}))
    except ValueError:
        raise _invalid(STATE, f"must be one of {', '.join(OrderState)}; repeat it for several") from None


def _read(request: web.Request, parameter: Parameter, parse: Callable[[str], T]) -> T | None:
    """The value of a parameter; `None` without it. `parse` raises `ValueError` with what the value must be."""
    given = request.query.getall(parameter.name, ())
    if not given:
        return None
    if len(given) > 1:
        raise _invalid(parameter, f"is there {len(given)} times: give it once")
    try:
        return parse(given[0])
    except ValueError as error:
        raise _invalid(parameter, str(error)) from None


def _invalid(parameter: Parameter, reason: str) -> Exception:
    return invalid_input(parameter.name, reason, f"The query parameter {parameter.name!r} {reason}.")


def _limit(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text) or int(text) > MOST_ORDERS:
        raise ValueError(f"must be a whole number from 1 to {MOST_ORDERS}, such as {DEFAULT_LIMIT}")
    return int(text)


def _customer(text: str) -> int:
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text) or not -_INT64 <= int(text) < _INT64:
        raise ValueError("must be a whole number such as 15, in plain digits")
    return int(text)


def _text(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"must have at most {MOST_CHARACTERS} characters")
    return _sound(text)


def _part(text: str) -> str:
    if not FEWEST_CHARACTERS <= len(text) <= MOST_CHARACTERS:
        raise ValueError(
            f"must have {FEWEST_CHARACTERS} to {MOST_CHARACTERS} characters: shorter parts are in too many orders"
        )
    return _sound(text)


def _sound(text: str) -> str:
    """The text as the database has it, which cannot store all characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8, percent-encoded") from None
    return text.replace("\0", "\ufffd")
