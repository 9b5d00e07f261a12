"""Products over HTTP: versioned, each change published; repeated and stale requests change nothing."""

import asyncio
import os
import sys

import pytest

from runtime.model.records import EVENT_ID
from schemas.topics import PRODUCTS
from tests.workers import Deployment, until

PATH = "/v1/products"
MUG = {"code": "mug", "name": "Mug", "price": 12.0}


@pytest.fixture
async def worker(deployment: Deployment, database_url):
    """The product service alone. It has no inputs."""
    worker = await deployment.start("products", products_database_url=database_url)
    await until(lambda: worker.readiness()["databases"] == {"products": "open"}, "database")
    return worker


@pytest.fixture
def ask(deployment: Deployment, worker):
    async def asked(method, code=None, body=None, if_match=None):
        path = PATH if code is None else f"{PATH}/{code}"
        headers = {} if if_match is None else {"If-Match": if_match}
        return await deployment.ask(worker, method, path, json=body, headers=headers)

    return asked


async def announced(deployment: Deployment, count):
    """Waits for a number of events. Returns them by product code in offset order."""
    events = await until(lambda: _so_many(deployment, count), "announced")
    by_code = {}
    for event in events:
        by_code.setdefault(event.code, []).append((str(event.kind), event.version, event.price))
    return by_code


async def _so_many(deployment: Deployment, count):
    events = await deployment.values(PRODUCTS)
    return events if len(events) >= count else None


async def test_every_change_is_a_version_and_a_message(deployment: Deployment, ask):
    made = await ask("POST", body=MUG)
    assert (made.status, made.headers["Location"], made.headers["ETag"]) == (201, f"{PATH}/mug", '"1"')
    cheaper = await ask("PUT", "mug", {"name": "Mug", "price": 11})
    assert (cheaper.status, cheaper.headers["ETag"], cheaper.json()["price"]) == (200, '"2"', 11)
    assert (await ask("DELETE", "mug")).json()["state"] == "WITHDRAWN"
    back = await ask("PUT", "mug", {"name": "Mug", "price": 10}, '"3"')
    assert back.json() | {"changedAt": ""} == MUG | {"price": 10, "version": 4, "state": "ACTIVE", "changedAt": ""}
    assert (await ask("GET", "mug")).json() == back.json()

    assert await announced(deployment, 4) == {
        "mug": [("CREATED", 1, 12), ("UPDATED", 2, 11), ("WITHDRAWN", 3, 11), ("UPDATED", 4, 10)]
    }
    records, events = await deployment.records(PRODUCTS.name), await deployment.values(PRODUCTS)
    assert [dict(r.headers)[EVENT_ID].decode() for r in records] == [e.event_id for e in events]
    assert sorted(e.at for e in events) == [e.at for e in events]


async def test_repeated_and_stale_requests_change_nothing(deployment: Deployment, ask):
    at_once = await asyncio.gather(*(ask("POST", body=MUG) for _ in range(8)))
    assert sorted(a.status for a in at_once) == [200] * 7 + [201]
    assert len({a.body for a in at_once}) == 1
    other = await ask("POST", body=MUG | {"price": 13})
    assert (other.status, other.headers["Location"]) == (409, f"{PATH}/mug")
    assert "another price" in other.json()["detail"]

    for _ in range(2):
        assert (await ask("PUT", "mug", {"name": "Mug", "price": 11}, '"1"')).headers["ETag"] == '"2"'
    assert (await ask("PUT", "mug", {"name": "Mug", "price": 9}, '"1"')).status == 412
    assert (await ask("DELETE", "mug", if_match='"1"')).status == 412
    for _ in range(2):
        assert (await ask("DELETE", "mug", if_match='"2"')).headers["ETag"] == '"3"'

    for late in (
        await ask("POST", body=MUG),
        await ask("PUT", "mug", {"name": "Mug", "price": 11}),
    ):
        assert late.status == 409
        assert "withdrawn" in late.json()["detail"]
    assert (await ask("PUT", "mug", {"name": "Mug", "price": 11}, '"1"')).status == 412
    assert (await ask("GET", "mug")).json()["state"] == "WITHDRAWN"
    await ask("POST", body=MUG | {"code": "last"})
    assert await announced(deployment, 4) == {
        "mug": [("CREATED", 1, 12), ("UPDATED", 2, 11), ("WITHDRAWN", 3, 11)],
        "last": [("CREATED", 1, 12)],
    }


async def test_of_many_clients_with_one_version_one_changes_the_product(deployment: Deployment, ask):
    await ask("POST", body=MUG)
    answers = await asyncio.gather(*(ask("PUT", "mug", {"name": "Mug", "price": n}, '"1"') for n in range(1, 9)))
    assert sorted(a.status for a in answers) == [200] + [412] * 7
    free = await asyncio.gather(*(ask("PUT", "mug", {"name": "Mug", "price": n}) for n in range(20, 28)))
    assert sorted(a.json()["version"] for a in free) == list(range(3, 11))
    versions = [version for _, version, _ in (await announced(deployment, 10))["mug"]]
    assert versions == list(range(1, 11)), "in the order of the changes"


@pytest.mark.parametrize(
    ("method", "code", "body", "if_match", "status", "said"),
    [
        ("POST", None, {**MUG, "price": -1}, None, 400, "price must be at least 0"),
        ("POST", None, {"name": "Mug", "price": 1}, None, 400, "code is missing: add it"),
        ("PUT", "unknown", {"name": "Mug", "price": 1}, None, 404, "no product 'unknown'"),
        ("PUT", "unknown", {"name": "", "price": 1}, None, 400, "name must not be empty"),
        ("PUT", "unknown", {"name": "Mug", "price": 1}, "3", 400, "If-Match must be the ETag"),
        ("DELETE", "unknown", None, None, 404, "no product"),
        ("DELETE", "unknown", None, '"1', 400, "If-Match must be the ETag"),
        ("GET", "unknown", None, None, 404, "no product"),
        ("GET", "x" * 65, None, None, 400, "Nothing can have this code"),
        ("GET", "%00", None, None, 400, "Nothing can have this code"),
    ],
)
async def test_an_invalid_request_is_rejected_with_the_reason(ask, method, code, body, if_match, status, said):
    answer = await ask(method, code, body, if_match)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("tag", ['"x"', 'W/"1"', '"99999999999999999999999999"', '"01a"', '"-1"'])
async def test_an_etag_of_no_version_matches_nothing(ask, tag):
    await ask("POST", body=MUG)
    assert (await ask("DELETE", "mug", if_match=tag)).status == 412
    assert (await ask("DELETE", "mug", if_match=f'{tag}, "1"')).status == 200


async def test_any_product_code_is_addressable(ask):
    code, quoted = "čaj/č. 1 %2F?#", "%C4%8Daj%2F%C4%8D.%201%20%252F%3F%23"
    made = await ask("POST", body=MUG | {"code": code})
    assert made.headers["Location"] == f"{PATH}/{quoted}"
    assert (await ask("GET", quoted)).json()["code"] == code


async def test_the_worker_is_ready_and_its_openapi_document_has_the_paths(deployment: Deployment, worker):
    ready = await deployment.ask(worker, "GET", "/readyz")
    assert (ready.status, ready.json()["services"], ready.json()["partitions"]) == (200, ["products"], [])
    paths = (await deployment.ask(worker, "GET", "/openapi.json")).json()["paths"]
    assert set(paths[f"{PATH}/{{code}}"]) == {"get", "put", "delete"}


async def test_the_products_commands_report_their_outcome(worker, tmp_path):
    csv = tmp_path / "products.csv"
    csv.write_text("code,name,price\nmug,Mug,9\njug,Jug,30\ncup,Cup,3\n")
    for arguments, code, said in (
        ("add mug Mug 12", 0, "mug  Mug  12.00  ACTIVE  version 1"),
        ("add mug Mug 13", 1, "another price"),
        ("change mug --price 11", 0, "mug  Mug  11.00  ACTIVE  version 2"),
        ("change mug --price -1", 2, "price"),
        ("add cup Cup 3", 0, "version 1"),
        ("withdraw cup", 0, "cup  Cup  3.00  WITHDRAWN  version 2"),
        (f"import --only-new {csv}", 0, "1 left as they are, 1 left withdrawn, 1 offered"),
        (f"import {csv}", 0, "1 changed, 1 left withdrawn, 1 offered"),
        (f"import {csv}", 0, "1 left withdrawn, 2 offered"),
        ("show mug", 0, "mug  Mug  9.00  ACTIVE  version 3"),
        ("show cup", 0, "WITHDRAWN"),
        ("change cup --name Beaker", 0, "cup  Beaker  3.00  ACTIVE  version 3"),
        ("show tea", 1, "no product 'tea'"),
    ):
        command = [sys.executable, "-m", "ecosystem.cli", "products", *arguments.split()]
        environment = {**os.environ, "PRODUCTS_URL": str(worker.url)}
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=-1, stderr=-1)
        out, err = await process.communicate()
        assert (process.returncode, said in (out + err).decode()) == (code, True), (arguments, out, err)
