"""HTTP API of check-ins: `POST /api/SOA/home/checkin`, and `GET` of one check-in."""

from zoneinfo import ZoneInfo

from aiohttp import web

from checkin_service.store import CheckInStore
from runtime.hosting import Answer, Endpoint, Host, Parameter, ResponseHeader
from runtime.http.answers import HttpProblem, answer, existing, location
from runtime.http.inputs import message_of, uuid_of
from runtime.http.local_times import instant
from schemas.api import Checkin, NewCheckin

PATH = "/api/SOA/home/checkin"
_EVENT_ID = Parameter("eventId", "path", {"type": "string", "format": "uuid"})
_LOCATION = (ResponseHeader("Location", "URL of the check-in"),)


def endpoints(check_ins: CheckInStore, zone: ZoneInfo) -> tuple[Endpoint, ...]:
    """Returns the endpoints. Local times are of `zone`."""

    async def create(_: Host, request: web.Request) -> web.Response:
        new = await message_of(request, NewCheckin)
        checkin, is_new = await check_ins.create(new, instant(new.checkin_date, zone, "checkinDate"))
        url = location(PATH, checkin.event_id)
        if differing := checkin.differing(new, "checkin_latitude", "checkin_longitude"):
            detail = f"This check-in exists already, with another {' and '.join(differing)}."
            raise HttpProblem(409, detail, headers=url)
        return answer(checkin, 201 if is_new else 200, url)

    async def status(_: Host, request: web.Request) -> web.Response:
        event_id = uuid_of(request, _EVENT_ID, "must be the UUID from the answer to the check-in")
        return answer(existing(await check_ins.get(event_id), f"There is no check-in {str(event_id)!r}."))

    return (
        Endpoint(
            "POST",
            PATH,
            create,
            name="checkIn",
            summary="Check in on site; idempotent: a repeated report is the same check-in",
            tag="check-in",
            body=NewCheckin,
            answers={
                201: Answer("The check-in is stored, and published soon", Checkin, _LOCATION),
                200: Answer("The check-in existed; its current state", Checkin, _LOCATION),
            },
            problems=(409,),
        ),
        Endpoint(
            "GET",
            f"{PATH}/{{eventId}}",
            status,
            name="getCheckIn",
            summary="Get a check-in and its status",
            tag="check-in",
            parameters=(_EVENT_ID,),
            answers={200: Answer("The current state", Checkin)},
        ),
    )
