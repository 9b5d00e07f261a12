"""Check-ins from HTTP to a shipped order or a rejection, through crashes and without a database."""

import asyncio
import os
import secrets
import signal
import sys
from collections import defaultdict
from contextlib import asynccontextmanager

import aiohttp
import asyncpg
import pytest

from ecosystem.embedded.ports import free_ports
from ecosystem.embedded.postgres import Postgres
from ecosystem.services import CORE
from runtime.model.records import EVENT_ID
from schemas.messages import Payment
from schemas.topics import HOME_CHECKINS, PAYMENTS
from tests.workers import PATIENCE_S, Deployment, Remote, until

PATH = "/api/SOA/home/checkin"
SERVICES = (*CORE, "fulfilment", "checkin", "portal")


def body(order_no, **changes):
    return {
        "internetNo": "8850049302",
        "orderNo": order_no,
        "staffCode": "cs_eng_ftth",
        "jobStatus": "homecheckedin",
        "checkinLatitude": 13.7827811,
        "checkinLongitude": 100.5465937,
        "checkinDate": "2021-03-18 10:13:43",
        **changes,
    }


async def check_in(deployment: Deployment, worker, order_no, **changes):
    answer = await deployment.ask(worker, "POST", PATH, json=body(order_no, **changes))
    return answer.status, answer.json()


async def kept(deployment: Deployment, worker, event_id):
    return (await deployment.ask(worker, "GET", f"{PATH}/{event_id}")).json()


async def shown(deployment: Deployment, worker, order_no):
    answer = await deployment.ask(worker, "GET", f"/v1/portal/checkins/{order_no}")
    return answer.json()["checkIns"] if answer.status == 200 else []


@pytest.fixture
def patience_s():
    return 600.0


@pytest.fixture
async def workers(deployment: Deployment, apart, database_url, patience_s):
    """Workers by service. A check-in waits for its order longer than any order takes."""
    await deployment.start_core(
        apart=apart, only=SERVICES, checkin_database_url=database_url, checkin_patience_s=patience_s, standby_replicas=0
    )
    found = {name: w for w in deployment.workers for name in w.readiness()["services"]}
    await until(lambda: found["checkin"].readiness()["databases"] == {"checkin": "open"}, "database")
    return found


async def state(deployment: Deployment, workers, order_id):
    return (await deployment.get(workers["orders"], order_id))[1].get("state")


async def test_an_order_that_is_validated_paid_and_checked_in_is_shipped(deployment: Deployment, workers):
    await deployment.stock(JUMPERS=10)
    order = {"id": "5960915_106347524.2", "customerId": 1, "product": "JUMPERS", "quantity": 2, "price": 5}
    assert (await deployment.post(workers["orders"], **order))[0] == 201
    await deployment.send(PAYMENTS, Payment(id="p1", order_id=order["id"], ccy="EUR", amount=10))
    status, taken = await check_in(deployment, workers["checkin"], order["id"])
    assert status == 201

    await until(lambda: _is(state(deployment, workers, order["id"]), "SHIPPED"), "shipped")
    assert (await kept(deployment, workers["checkin"], taken["eventId"])) == taken
    assert taken["checkinDate"] == "2021-03-18T03:13:43Z"
    [at_portal] = await until(lambda: shown(deployment, workers["portal"], order["id"]), "shown")
    assert (at_portal["eventId"], at_portal["status"]) == (taken["eventId"], "CREATED")


@pytest.mark.parametrize("patience_s", [2.0])
async def test_a_check_in_without_a_valid_order_is_rejected_in_database_and_portal(deployment: Deployment, workers):
    order = {"id": "failed", "customerId": 1, "product": "NONE", "quantity": 2, "price": 5}
    await deployment.post(workers["orders"], **order)
    assert (await deployment.outcome(workers["orders"], "failed"))["state"] == "FAILED"
    # Fulfilment rejects a check-in whose order it does not know in time.
    await until(lambda: _is(progress(deployment, workers, "failed"), "FAILED"), "fulfilment knows")
    taken = {id_: (await check_in(deployment, workers["checkin"], id_))[1] for id_ in ("failed", "unknown")}

    for id_, reason in (("failed", "the order has failed"), ("unknown", "there is no such order")):
        await until(lambda id_=id_: _is_rejected(kept(deployment, workers["checkin"], taken[id_]["eventId"])), id_)
        found = await kept(deployment, workers["checkin"], taken[id_]["eventId"])
        assert found == taken[id_] | {"status": "REJECTED", "reason": reason}
        await until(lambda id_=id_: _last_is_rejected(shown(deployment, workers["portal"], id_)), f"portal {id_}")


async def progress(deployment: Deployment, workers, order_id):
    answer = await deployment.ask(workers["fulfilment"], "GET", f"/v1/orders/{order_id}/fulfilment")
    return answer.json().get("state")


async def _is(awaitable, value):
    return await awaitable == value


async def _is_rejected(awaitable):
    return (await awaitable)["status"] == "REJECTED"


async def _last_is_rejected(awaitable):
    found = await awaitable
    return bool(found) and found[-1]["status"] == "REJECTED"


@pytest.fixture
async def worker(deployment: Deployment, database_url):
    worker = await deployment.start("checkin", checkin_database_url=database_url)
    await until(lambda: worker.readiness()["databases"] == {"checkin": "open"}, "database")
    return worker


async def test_a_repeated_check_in_is_stored_once(deployment: Deployment, worker):
    first, *again = [await check_in(deployment, worker, "o1") for _ in range(3)]
    at_once = await asyncio.gather(*(check_in(deployment, worker, "o2") for _ in range(8)))
    other = await check_in(deployment, worker, "o1", checkinDate="2021-03-18 10:13:44")
    moved = await check_in(deployment, worker, "o1", checkinLatitude=14)

    assert [first[0], other[0], moved[0]] == [201, 201, 409]
    assert again == [(200, first[1])] * 2
    assert sorted(status for status, _ in at_once) == [200] * 7 + [201]
    assert "checkinLatitude" in moved[1]["detail"]
    await until(lambda: _count(deployment, 3), "announced")
    records = await deployment.records(HOME_CHECKINS.name)
    assert {dict(r.headers)[EVENT_ID].decode() for r in records} == {
        first[1]["eventId"],
        other[1]["eventId"],
        at_once[0][1]["eventId"],
    }


async def _count(deployment: Deployment, count):
    """Whether `count` check-ins are published. One may be published twice when the relay loses its database."""
    return len({c.event_id for c in await deployment.values(HOME_CHECKINS)}) == count


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "said"),
    [
        ("POST", PATH, {"json": body("o1", checkinLatitude=91)}, 400, "checkinLatitude must be at most 90"),
        ("POST", PATH, {"json": body("o1", checkinDate="yesterday")}, 400, "checkinDate must be a date and time"),
        ("POST", PATH, {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "body must be JSON"),
        ("POST", PATH, {"data": b"a=1", "headers": {"Content-Type": "text/plain"}}, 415, "application/json"),
        ("GET", f"{PATH}/not-a-uuid", {}, 400, "eventId must be the UUID"),
        ("GET", f"{PATH}/01890a5d-ac96-774b-bcce-b302099a8057", {}, 404, "no check-in"),
    ],
)
async def test_an_invalid_request_is_rejected_with_the_reason(
    deployment: Deployment, shared_worker, method, path, options, status, said
):
    answer = await deployment.ask(shared_worker, method, path, **options)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert said in answer.json()["detail"]


@pytest.fixture(scope="module")
async def shared_worker(kafka, postgres, tmp_path_factory):
    from tests.workers import Deployment

    name = f"t_{secrets.token_hex(4)}"
    url = postgres.database(name)
    async with Deployment(kafka, f"t-{secrets.token_hex(4)}-", tmp_path_factory.mktemp("shared")) as deployment:
        worker = await deployment.start("checkin", checkin_database_url=url)
        await until(lambda: worker.readiness()["databases"] == {"checkin": "open"}, "database")
        yield worker
    postgres.drop(name)


async def test_check_in_without_its_database_answers_503_and_other_services_continue(deployment: Deployment, tmp_path):
    with Postgres(tmp_path / "postgres") as server:
        url = server.database("checkin")
        server.kill()
        worker = await deployment.start(*CORE, "checkin", checkin_database_url=url)
        await deployment.stock(JUMPERS=10)

        for how in ("before it was ever there", "after it went away"):
            answer = await deployment.ask(worker, "POST", PATH, json=body("o1"))
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), how
            assert "database" in answer.json()["detail"]
            status, order = await deployment.post(worker, customerId=1, product="JUMPERS", quantity=1, price=1)
            assert status == 201
            assert (await deployment.outcome(worker, order["id"]))["state"] == "VALIDATED"
            server.restart()
            await until(lambda: _is_taken(deployment, worker), "taken again")
            if how.startswith("before"):
                server.kill()
        await until(lambda: _count(deployment, 1), "announced once")


async def _is_taken(deployment: Deployment, worker):
    return (await check_in(deployment, worker, "o1"))[0] in {200, 201}


@pytest.fixture
def environment(deployment: Deployment, database_url):
    mine = {
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "STATE_DIR": str(deployment.folder / "state"),
        "SESSION_TIMEOUT_S": "6",
        "HEARTBEAT_INTERVAL_S": "0.5",
        "HTTP_PORT": str(free_ports(1)[0]),
        "CHECKIN_DATABASE_URL": database_url,
    }
    return {**{k: v for k, v in os.environ.items() if k not in {"CHECKIN_URL", "ORDERS_DATA"}}, **mine}


async def orders(environment, *arguments, **pipes):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecosystem.cli", *arguments, env=environment, **pipes
    )


@asynccontextmanager
async def running(deployment: Deployment, environment, **more):
    """Runs `orders run checkin`, and kills it at the end if it still runs."""
    process = await orders({**environment, **more}, "run", "checkin")
    try:
        yield process, Remote(f"http://127.0.0.1:{environment['HTTP_PORT']}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_crashes_at_every_outbox_step_lose_duplicate_and_reorder_nothing(
    deployment: Deployment, environment, database_url
):
    """Clients repeat unanswered requests. The worker crashes at each step of the relay, and at random times."""
    acknowledged = {}
    busy = True
    url = Remote(f"http://127.0.0.1:{environment['HTTP_PORT']}")

    async def client(name):
        number = 0
        while busy:
            wanted = body(f"o{number % 3}", staffCode=f"{name}-{number}")
            try:
                answer = await deployment.ask(url, "POST", PATH, json=wanted)
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
                continue
            if answer.status in {200, 201}:
                acknowledged[wanted["staffCode"]] = answer.json()["eventId"]
                number += 1
            else:
                assert answer.status == 503, answer.body
                await asyncio.sleep(0.1)

    clients = [asyncio.create_task(client(name)) for name in "abcd"]
    for point in ("outbox.read=crash@2", "outbox.sent=crash@3", "outbox.marked=crash@2", "outbox.sent=crash@1"):
        async with running(deployment, environment, FAIL_POINTS=point) as (process, _):
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == -signal.SIGKILL, point
    for _ in range(2):
        before = len(acknowledged)
        async with running(deployment, environment):
            await until(lambda before=before: len(acknowledged) > before + 40, "taken")

    async with running(deployment, environment):
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before, "taken")
        busy = False
        await asyncio.gather(*clients)
        connection = await asyncpg.connect(database_url)
        try:
            waiting = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
            await until(lambda: _none(connection, waiting), "all relayed")
            rows = await connection.fetch("SELECT event_id, key FROM outbox ORDER BY id")
            check_ins = await connection.fetch("SELECT staff_code, event_id FROM check_ins")
        finally:
            await connection.close()

    assert {r["staff_code"]: str(r["event_id"]) for r in check_ins}.items() >= acknowledged.items()
    assert {r["event_id"] for r in rows} == {r["event_id"] for r in check_ins}
    written, read = defaultdict(list), defaultdict(dict)
    for row in rows:
        written[row["key"]].append(str(row["event_id"]))
    records = await deployment.records(HOME_CHECKINS.name)
    for record in records:
        read[record.key.decode()][dict(record.headers)[EVENT_ID].decode()] = True
    assert {key: list(ids) for key, ids in read.items()} == written
    assert len(records) > len(rows), "some were written again: a crash between writing and marking was hit"


async def _none(connection, count):
    return await connection.fetchval(count) == 0


async def test_the_checkin_command_checks_in_and_reports_errors(deployment: Deployment, worker, environment):
    environment["CHECKIN_URL"] = str(worker.url)
    for arguments, code, said in (
        (["o1", "--at", "2021-03-18 10:13:43"], 0, b"CREATED "),
        (["o1", "--at", "yesterday"], 2, b"such as 2021-03-18 10:13:43"),
        (["o1", "--latitude", "91"], 2, b"checkin_latitude"),
    ):
        process = await orders(environment, "checkin", *arguments, stdout=-1, stderr=-1)
        out, err = await process.communicate()
        assert process.returncode == code, err
        assert said in out + err


async def test_a_worker_without_its_database_url_ends_with_the_reason(environment):
    del environment["CHECKIN_DATABASE_URL"]
    process = await orders(environment, "run", "checkin", stderr=-1)
    async with asyncio.timeout(PATIENCE_S):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"set CHECKIN_DATABASE_URL" in said
