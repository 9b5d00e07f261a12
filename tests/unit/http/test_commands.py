"""Creation of, commands on and events of a row, for a resource that is no order."""

from collections.abc import Iterator

import pytest
from aiohttp import web

from runtime.hosting import Answer, ServiceDefinition
from runtime.http.answers import HttpProblem, answer
from runtime.http.commands import Creation, row_command
from runtime.http.event_stream import ServerSentEvent
from runtime.http.inputs import CODE, IdempotencyKey
from runtime.http.preferences import WaitPreference
from runtime.http.row_events import row_events
from runtime.model.service import Context, Service, Table
from schemas.topics import DAY, Topic
from schemas.wire import Message
from tests.unit.http.fakes import Cluster, FakeHost, Running, running


class NewParcel(Message):
    code: str | None = None
    weight: int


class Parcel(Message):
    code: str
    weight: int
    stops: int = 0


PARCELS = Topic("parcels", Parcel, lambda parcel: parcel.code, "parcels", DAY)
ROWS = Table("parcels-view", Parcel)
TEXTS = {"summary": "S", "description": "D", "tag": "parcels"}


def place(parcel: Parcel, ctx: Context) -> Parcel | None:
    known = ctx.get(ROWS, parcel.code)
    if known is None:
        ctx.send(PARCELS, parcel)
    return known


def check_same(posted: Parcel, existing: Parcel) -> None:
    if posted.weight != existing.weight:
        raise HttpProblem(409, "another weight")


def move_on(code: str, ctx: Context) -> Parcel | None:
    parcel = ctx.get(ROWS, code)
    if parcel is not None:
        parcel = parcel.model_copy(update={"stops": parcel.stops + 1})
        ctx.send(PARCELS, parcel)
    return parcel


def unknown(code: str) -> HttpProblem:
    return HttpProblem(404, f"no parcel {code!r}")


def moved(code: str, parcel: Parcel | None) -> web.Response:
    if parcel is None:
        raise unknown(code)
    return answer(parcel)


def events_of(parcel: Parcel) -> Iterator[ServerSentEvent]:
    return (ServerSentEvent(f"1-{n}", "stop", parcel) for n in range(1, parcel.stops + 1))


CREATION = Creation(
    path="/parcels",
    table=ROWS,
    topic=PARCELS,
    body=NewParcel,
    key=IdempotencyKey("one parcel"),
    prefer=WaitPreference("wait"),
    id_of=lambda new: new.code,
    id_for=lambda key: f"key-{key}",
    new_id=lambda: "fresh",
    make=lambda new, code: Parcel(code=code, weight=new.weight),
    place=place,
    check_same=check_same,
    decided=lambda parcel: parcel.stops > 0,
    outcome=lambda parcel, row: row or parcel,
)
ENDPOINTS = (
    CREATION.endpoint(name="createParcel", answers={201: Answer("Created", Parcel)}, **TEXTS),
    row_command(
        *("PUT", "/parcels/{code}", ROWS, CODE, move_on, moved),
        ready=lambda parcel: parcel.weight > 0,
        name="moveParcel",
        answers={200: Answer("Moved", Parcel)},
        **TEXTS,
    ),
    row_events(
        *("/parcels/{code}/events", ROWS, CODE, events_of, unknown),
        ready=lambda parcel: parcel.weight > 0,
        final=lambda parcel: parcel.stops >= 2,
        name="followParcel",
        **TEXTS,
    ),
)


@pytest.fixture
async def depot(monkeypatch):
    """A worker that owns all parcels."""

    def send(host, topic, parcel):
        host.produced.append(parcel)
        host.cluster.rows[parcel.code] = parcel
        host.watches.changed(ROWS.name, {parcel.code.encode(): parcel.to_json()})

    monkeypatch.setattr(FakeHost, "read", lambda host, _, code: host.cluster.rows.get(code))
    monkeypatch.setattr(FakeHost, "send", send)
    async with running(Cluster(), [ServiceDefinition(Service("parcels", (), ()), ENDPOINTS)]) as worker:
        yield worker


async def posted(depot: Running, body, **headers):
    async with depot.post(body, "/parcels", headers=headers) as response:
        return response.status, response.headers.get("Location"), (await response.json()).get("stops")


@pytest.mark.parametrize(
    ("code", "headers", "location"),
    [("p", {}, "/parcels/p"), (None, {"Idempotency-Key": "k"}, "/parcels/key-k"), (None, {}, "/parcels/fresh")],
)
async def test_a_resource_is_created_once_under_the_id_chosen_derived_or_generated(depot, code, headers, location):
    body = {"weight": 3} | ({"code": code} if code else {})
    assert await posted(depot, body, **headers) == (201, location, 0)
    assert await posted(depot, body, **headers) == (200, location, 0)
    assert (await posted(depot, {**body, "weight": 4}, **headers))[0] == 409
    assert len(depot.host.produced) == 1


async def test_a_client_that_waits_gets_the_outcome_or_what_is_known(depot):
    assert await posted(depot, {"code": "p", "weight": 3}, Prefer="wait=0") == (202, "/parcels/p", 0)
    async with depot.request("PUT", "/parcels/p") as response:
        assert response.status == 200
    assert await posted(depot, {"code": "p", "weight": 3}, Prefer="wait=9") == (200, "/parcels/p", 1)


async def test_a_command_waits_for_its_row_and_is_not_run_without_it(depot):
    async with depot.request("PUT", "/parcels/nope?timeout=0") as response:
        assert response.status == 404
    await posted(depot, {"code": "empty", "weight": 0})
    async with depot.request("PUT", "/parcels/empty?timeout=0") as response:
        assert response.status == 404
    assert depot.host.transactions == 1


@pytest.mark.parametrize(("after", "ids"), [(None, ["1-1", "1-2"]), ("1-1", ["1-2"]), ("nonsense", ["1-1", "1-2"])])
async def test_events_continue_behind_the_last_one_until_the_row_is_final(depot, after, ids):
    await posted(depot, {"code": "p", "weight": 3})
    for _ in range(2):
        async with depot.request("PUT", "/parcels/p") as response:
            assert response.status == 200
    async with depot.get("/parcels/p/events", headers={"Last-Event-ID": after} if after else {}) as response:
        lines = (await response.content.read()).decode().splitlines()
    assert [line.removeprefix("id: ") for line in lines if line.startswith("id")] == ids
    async with depot.get("/parcels/nope/events?timeout=0") as response:
        assert response.status == 404
