"""What the history of a real worker says about orders: lists, records, earlier states, and why they failed."""

import base64
import json
from datetime import UTC, datetime

from ecosystem.clients.api import HistoryApi
from ecosystem.services import CORE
from history_service.http import LAG
from schemas.topics import ORDERS
from tests.commands import orders
from tests.samples import DETAILS, FRAUD, INVENTORY
from tests.workers import until


async def test_a_worker_answers_for_the_past_of_its_orders(deployment, database_url):
    worker = await deployment.start(*CORE, "history", history_database_url=database_url)

    async def ask(path):
        answer = await deployment.ask(worker, "GET", path)
        return answer.status, answer.json(), answer.headers

    async def listed(query=""):
        _, page, _ = await ask(f"/v1/orders{query}")
        return {order["id"]: order["state"] for order in page.get("orders", ())}

    await deployment.stock(mug=2)
    for number in range(4):
        body = {"id": f"o-{number}", "customerId": 1 + number, "product": "mug", "quantity": 1, "price": 5}
        await deployment.post(worker, **body)
        assert await deployment.outcome(worker, f"o-{number}")
    await deployment.send_raw(ORDERS.dead_letters, b"o-0", b"\xff{")

    expected = {"o-3": "FAILED", "o-2": "FAILED", "o-1": "VALIDATED", "o-0": "VALIDATED"}
    await until(lambda: listed_is(listed, expected), "listed", every=0.2)
    assert list(await listed()) == list(expected)
    assert await listed("?state=FAILED&q=available") == {"o-3": "FAILED", "o-2": "FAILED"}
    _, first, _ = await ask("/v1/orders?limit=3")
    _, second, _ = await ask(f"/v1/orders?limit=3&cursor={first['next']}")
    assert [order["id"] for order in first["orders"] + second["orders"]] == list(expected)
    status, problem, _ = await ask(f"/v1/orders?product=mug&cursor={first['next']}")
    assert (status, problem["errors"][0]["name"]) == (400, "cursor")

    async def history():
        _, found, headers = await ask("/v1/orders/o-0/history")
        complete = len(found["records"]) == 6 and LAG in headers and found["lagSeconds"] == 0
        return complete and found["records"]

    records = await until(history, "all records of the order", every=0.2)
    stages = [record["stage"] for record in records]
    assert stages == ["CREATED", "VERDICT", "VERDICT", "VERDICT", "VALIDATED", "DEAD_LETTER"]
    assert [record["topic"] for record in records if record["stage"] == "VERDICT"] == ["order-validations"] * 3
    assert records[0]["payload"]["customerId"] == 1
    assert records[0]["headers"][0] == {"name": "consumed-by", "value": "details+fraud+history+inventory+orders"}
    assert base64.b64decode(records[-1]["payloadBase64"]) == b"\xff{"
    assert "secondsSincePrevious" not in records[0]
    assert all("secondsSincePrevious" in record for record in records[1:])

    created, validated = records[0]["producedAt"], records[4]["producedAt"]
    _, then, _ = await ask(f"/v1/orders/o-0?at={validated}")
    assert then["state"] == "VALIDATED"
    if created != validated:
        _, then, _ = await ask(f"/v1/orders/o-0?at={created}")
        assert then["state"] == "CREATED"
    status, problem, _ = await ask("/v1/orders/o-0?at=2020-01-01T00:00:00Z")
    assert (status, "its first record is from" in problem["detail"]) == (404, True)
    assert (await ask("/v1/orders/o-9/history"))[0] == 404

    _, why, _ = await ask("/v1/orders/o-3/explain")
    [inventory] = [verdict for verdict in why["verdicts"] if verdict["checkType"] == INVENTORY]
    assert why["explanation"] == "The order failed: INVENTORY_CHECK did not pass."
    assert (why["required"], why["missing"]) == ([FRAUD, INVENTORY, DETAILS], [])
    assert inventory["agrees"]
    assert inventory["stock"] == inventory["stock"] | {"counted": 2, "reserved": 2, "available": 0, "asked": 1}

    status, timings, headers = await ask("/v1/timings?from=2020-01-01T00:00:00Z")
    assert (status, timings["orders"], LAG in headers) == (200, 4, True)
    counts = {(step["start"], step["end"]): step["count"] for step in timings["steps"]}
    assert (counts["POSTED", "VALIDATED"], counts["POSTED", "FAILED"], counts["POSTED", "DECIDED"]) == (2, 2, 4)
    status, problem, _ = await ask("/v1/timings?to=yesterday")
    assert (status, problem["errors"][0]["name"]) == (400, "to")
    async with HistoryApi(str(worker.url)) as api:
        until_then = await api.timings(None, datetime(2020, 1, 1, tzinfo=UTC))
    assert (until_then.orders, until_then.steps) == (0, ())
    await commands_say_the_same(deployment, worker, expected)


async def commands_say_the_same(deployment, worker, expected):
    async def said(*words, code=0):
        found, text = await orders(deployment, *words, "--url", str(worker.url))
        assert found == code, text
        return text

    listed = await said("list", "--json", "--limit", "3")
    lines = [json.loads(line) for line in listed.splitlines() if line.startswith("{")]
    assert [line["id"] for line in lines] == list(expected)[:3]
    cursor = listed.split("--cursor ")[1].strip()
    assert "o-0" in (rest := await said("list", "--limit", "3", "--cursor", cursor))
    assert "o-1" not in rest
    found = await said("list", "--state", "failed", "--product", "mug", "--from", "24h", "-q", "AVAILABLE")
    assert "o-3" in found
    assert "o-0" not in found
    assert "cursor" in await said("list", "--customer", "7", "--cursor", cursor, code=1)
    found = await said("history", "o-0")
    assert "order-validations" in found
    assert "DEAD_LETTER" in found
    assert "There is no order 'o-9'" in await said("history", "o-9", code=1)
    assert json.loads(await said("explain", "o-3", "--json"))["state"] == "FAILED"
    found = await said("explain", "o-3")
    assert "1 of 'mug' were asked for. The warehouse had counted 2, other orders held 2: 0 were available." in found


async def listed_is(listed, expected):
    return await listed() == expected
