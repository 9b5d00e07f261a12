"""`POST /api/SOA/home/checkin`, and what became of one."""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from checkin_service.store import CheckIns
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import message_of
from runtime.http.openapi import body, problems, schemas_of
from schemas.api import Checkin, InvalidParam, NewCheckin

PATH = "/api/SOA/home/checkin"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


def routes(check_ins: CheckIns, zone: ZoneInfo) -> Callable[[Host], Iterable[web.RouteDef]]:
    """The routes, for check-ins whose times are of `zone`."""

    async def take(request: web.Request) -> web.Response:
        new = await message_of(request, NewCheckin)
        checkin, is_new = await check_ins.take(new, instant(new.checkin_date, zone))
        location = {"Location": f"{PATH}/{checkin.event_id}"}
        differing = [name for name in ("checkinLatitude", "checkinLongitude") if _differs(new, checkin, name)]
        if differing:
            detail = f"There is this very check-in already, with another {' and '.join(differing)}."
            raise HttpProblem(409, detail, headers=location)
        return answer(checkin, 201 if is_new else 200, location)

    async def status(request: web.Request) -> web.Response:
        event_id = _event_id_of(request)
        checkin = await check_ins.get(event_id)
        if checkin is None:
            raise HttpProblem(404, f"There is no check-in {str(event_id)!r}.")
        return answer(checkin)

    return lambda _: (web.post(PATH, take), web.get(f"{PATH}/{{eventId:[^/]+}}", status))


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """The moment, UTC, at which clocks in `zone` show `local`; the first of two, unless it names its offset.

    Raises `HttpProblem` (400) if no clock showed it.
    """
    if local.tzinfo is not None:
        return local.astimezone(UTC)
    try:
        moment = local.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == local:
            return moment
    except OverflowError:
        pass
    fault = InvalidParam(
        name="checkinDate", reason=f"must be a time that clocks in {zone.key} show, or name its offset"
    )
    raise HttpProblem(400, f"{fault.name} {fault.reason}.", errors=[fault])


def _differs(new: NewCheckin, kept: Checkin, name: str) -> bool:
    field = {"checkinLatitude": "checkin_latitude", "checkinLongitude": "checkin_longitude"}[name]
    return bool(getattr(new, field) != getattr(kept, field))


def _event_id_of(request: web.Request) -> uuid.UUID:
    text = request.match_info["eventId"]
    if not re.fullmatch(_UUID, text):  # Python also reads braces, underscores and what has no hyphens
        fault = InvalidParam(name="eventId", reason="must be a UUID, as the check-in was answered with")
        raise HttpProblem(400, f"{fault.name} {fault.reason}.", errors=[fault])
    return uuid.UUID(text)


def openapi() -> Mapping[str, Any]:
    """Paths and schemas."""
    location = {"Location": {"description": "Where the check-in is", "schema": {"type": "string"}}}
    event_id = {"name": "eventId", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    return {
        "paths": {
            PATH: {
                "post": {
                    "operationId": "checkIn",
                    "summary": "Report that somebody is on the spot; the same report again is the same check-in",
                    "tags": ["check-in"],
                    "requestBody": {"required": True, **body(NewCheckin)},
                    "responses": {
                        "201": {
                            "description": "It is kept and will be announced",
                            "headers": location,
                            **body(Checkin),
                        },
                        "200": {"description": "It was kept already, and is as it is now", "headers": location}
                        | body(Checkin),
                        **problems(400, 409, 413, 415, 500, 503),
                    },
                }
            },
            f"{PATH}/{{eventId}}": {
                "get": {
                    "operationId": "getCheckIn",
                    "summary": "A check-in, and whether it was rejected",
                    "tags": ["check-in"],
                    "parameters": [event_id],
                    "responses": {
                        "200": {"description": "As it is now", **body(Checkin)},
                        **problems(400, 404, 500, 503),
                    },
                }
            },
        },
        "components": {"schemas": schemas_of(NewCheckin, Checkin)},
    }
