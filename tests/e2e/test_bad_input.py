"""Every request gets a documented answer, and every accepted order is decided."""

import asyncio
import json
from urllib.parse import quote

import pytest

from schemas.messages import OrderState
from schemas.topics import ORDERS
from tests.workers import WAIT_MS

PROBLEM = "application/problem+json"
SOUND = {"customerId": 1, "product": "never stocked", "quantity": 1, "price": 1}


def body(**changes):
    """The body of a valid order with fields replaced by raw JSON. `None` removes a field."""
    fields = {name: json.dumps(value) for name, value in SOUND.items()} | changes
    return "{" + ",".join(f'"{name}":{text}' for name, text in fields.items() if text is not None) + "}"


REFUSED = {
    "price NaN": (400, "price", body(price="NaN")),
    "price Infinity": (400, "price", body(price="Infinity")),
    "price 1e400": (400, "price", body(price="1e400")),
    "price 1e15": (400, "price", body(price="1e15")),
    "price with 5000 digits": (400, "body", body(price="9" * 5000)),
    "price with five decimals": (400, "price", body(price="0.00001")),
    "price as text": (400, "price", body(price='"1"')),
    "price null": (400, "price", body(price="null")),
    "price missing": (400, "price", body(price=None)),
    "quantity 1e30": (400, "quantity", body(quantity="1" + "0" * 30)),
    "quantity 1.5": (400, "quantity", body(quantity="1.5")),
    "quantity true": (400, "quantity", body(quantity="true")),
    "quantity as text": (400, "quantity", body(quantity='"1"')),
    "quantity missing": (400, "quantity", body(quantity=None)),
    "customer a list": (400, "customerId", body(customerId="[1]")),
    "customer beyond 64 bits": (400, "customerId", body(customerId=str(2**63))),
    "customer missing": (400, "customerId", body(customerId=None)),
    "product a number": (400, "product", body(product="7")),
    "product half a character": (400, "body", body(product='"\\ud83e"')),
    "product of 257 characters": (400, "product", body(product=f'"{"x" * 257}"')),
    "product missing": (400, "product", body(product=None)),
    "id empty": (400, "id", body(id='""')),
    "id .": (400, "id", body(id='"."')),
    "id ..": (400, "id", body(id='".."')),
    "id with a line break": (400, "id", body(id='"a\\nb"')),
    "id with a zero": (400, "id", body(id='"a\\u0000b"')),
    "id with an invisible character": (400, "id", body(id='"a\\u200bb"')),
    "id that begins with a space": (400, "id", body(id='" a"')),
    "id of 129 characters": (400, "id", body(id=f'"{"x" * 129}"')),
    "id a number": (400, "id", body(id="7")),
    "no body": (400, "body", ""),
    "not JSON": (400, "body", "quantity=1&price=1"),
    "cut off": (400, "body", body()[:-1]),
    "a list": (400, "body", f"[{body()}]"),
    "null": (400, "body", "null"),
    "not UTF-8": (400, "body", body(product='"é"').encode("latin-1")),
    "nested 30,000 deep": (400, "body", "[" * 30_000),
    "2 MiB": (413, None, body(product='"' + "x" * 2**21 + '"')),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_invalid_order_is_rejected_naming_the_field(shop, name):
    status, field, sent = REFUSED[name]

    for worker in shop.front:
        answer = await post(shop, worker, sent)

        assert (answer.status, answer.headers["Content-Type"]) == (status, PROBLEM), answer
        assert [error["name"] for error in answer.json().get("errors", ())] == ([field] if field else [])


async def test_a_body_without_the_json_content_type_is_rejected(shop):
    answer = await post(shop, shop.first, body(), **{"Content-Type": "application/x-www-form-urlencoded"})

    assert (answer.status, answer.headers["Content-Type"]) == (415, PROBLEM)


async def test_a_rejected_order_is_on_no_topic_and_orders_continue(shop):
    for _, _, sent in REFUSED.values():
        await post(shop, shop.first, sent)

    assert (await shop.order())["state"] == "VALIDATED"
    assert "never stocked" not in {o.product for o in await shop.deployment.values(ORDERS)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"product": "UNKNOWN"}, "no stock of 'UNKNOWN' was announced"),
        ({"product": "ÜNKNÖWN 🧦"}, "no stock of 'ÜNKNÖWN 🧦' was announced"),
        ({"product": "a\0b"}, "no stock of 'a\\x00b' was announced"),
        ({"price": 1e10}, "the customer's orders of this session come to 10000000000.00, the limit is 2000.00"),
        ({"quantity": 1_000_000_000, "price": 0}, "ordered, 1000 available"),
    ],
    ids=["unknown product", "unknown product in unicode", "a zero in the product", "huge price", "huge quantity"],
)
async def test_an_order_that_fails_a_check_has_the_reason(shop, change, reason):
    outcome = await shop.order(**change)

    assert outcome["state"] == "FAILED"
    assert reason in " ".join(outcome["reasons"])


async def test_an_order_without_stock_fails_at_once(shop):
    outcome = await shop.order(product=await shop.product(0))

    assert outcome["state"] == "FAILED"
    assert "0 available" in outcome["reasons"][0]


async def test_posting_an_order_again_is_idempotent(shop):
    order = await shop.sound(id="posted twice")

    first = await shop.deployment.post(shop.first, **order)
    others = [await shop.deployment.post(worker, **order) for worker in (shop.first, shop.last)]
    await shop.deployment.outcome(shop.last, order["id"])
    status, later = await shop.deployment.post(shop.last, **order)

    assert first[0] == 201
    assert {(status, content(body)) for status, body in others} == {(200, content(first[1]))}
    assert (status, later) == (200, first[1] | {"state": "VALIDATED"})
    assert await states(shop, order["id"]) == ["CREATED", "VALIDATED"]


async def test_another_order_under_the_same_id_is_a_conflict(shop):
    order = await shop.sound(id="taken")
    await shop.deployment.post(shop.first, **order)

    for change in ({"quantity": 2}, {"price": 1.5}, {"product": "other"}, {"customerId": 1}):
        for worker in shop.front:
            status, problem = await shop.deployment.post(worker, **order | change)
            assert (status, problem["status"]) == (409, 409)
            assert next(iter(change)) in problem["detail"]

    assert (await shop.deployment.outcome(shop.last, order["id"]))["order"]["quantity"] == 1
    assert await states(shop, order["id"]) == ["CREATED", "VALIDATED"]


async def test_twenty_concurrent_posts_of_one_order_create_it_once(shop):
    order = await shop.sound(id="posted by twenty")

    answers = await at_once(shop, [order] * 20)

    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len({content(body) for _, body in answers}) == 1
    assert (await shop.deployment.outcome(shop.first, order["id"]))["state"] == "VALIDATED"
    assert await states(shop, order["id"]) == ["CREATED", "VALIDATED"]


async def test_of_twenty_concurrent_orders_with_one_id_one_wins(shop):
    order = await shop.sound(id="wanted by twenty")

    answers = await at_once(shop, [order | {"quantity": n // 2 + 1} for n in range(20)])

    assert sorted(status for status, _ in answers) == [200, 201] + [409] * 18
    assert len({content(body) for status, body in answers if status < 400}) == 1
    (winner,) = [body for status, body in answers if status == 201]
    assert (await shop.deployment.outcome(shop.last, order["id"]))["order"] == winner | {"state": "VALIDATED"}
    assert await states(shop, order["id"]) == ["CREATED", "VALIDATED"]


@pytest.mark.parametrize("key", ["7b7f2a3c-0f0e-4b8e-9d6c-0a1b2c3d4e5f", 'a key / with "odd" characters: ä, 🧦'])
async def test_an_idempotency_key_names_one_order(shop, key):
    order = json.dumps(await shop.sound()).encode()

    answers = [await post(shop, worker, order, **{"Idempotency-Key": key}) for worker in (shop.first, shop.last)]
    other = await post(shop, shop.last, order.replace(b'"quantity": 1', b'"quantity": 2'), **{"Idempotency-Key": key})

    assert [a.status for a in answers] == [201, 200]
    assert len({content(a.json()) for a in answers}) == 1
    assert other.status == 409
    order_id = answers[0].json()["id"]
    assert (await shop.deployment.outcome(shop.first, order_id))["state"] == "VALIDATED"
    assert await states(shop, order_id) == ["CREATED", "VALIDATED"]


async def test_twenty_concurrent_posts_with_one_idempotency_key_create_one_order(shop):
    order = await shop.sound()

    answers = await at_once(shop, [order] * 20, **{"Idempotency-Key": "twenty"})

    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len({content(body) for _, body in answers}) == 1
    assert await states(shop, answers[0][1]["id"]) in (["CREATED"], ["CREATED", "VALIDATED"])


ODD = [
    "a/b", "/", "//a//", "a b", 'say "hi"', "it's", "`a`", "100%", "%2F", "%", "what?", "a#b", "a&b=c", "a+b", "a;b",
    "a\\b", "{id}", "<b>", "...", "validated", "a/validated", "../orders", "Größe 42", "é", "訂單", "🛒🧦",
    "a:b@c", "*", "~", "null", "0", "-1", "x" * 128, "🧦" * 128,
]  # fmt: skip


@pytest.mark.parametrize("order_id", ODD, ids=range(len(ODD)))
async def test_an_id_may_have_any_printable_character(shop, order_id):
    order = await shop.sound(id=order_id, product="UNKNOWN")

    answer = await post(shop, shop.first, json.dumps(order))

    assert answer.status == 201, answer
    assert answer.headers["Location"] == f"/v1/orders/{quote(order_id, safe='')}"
    for worker in shop.front:
        found = await shop.deployment.ask(worker, "GET", answer.headers["Location"])
        assert (found.status, found.json()["id"]) == (200, order_id)
        outcome = await shop.deployment.outcome(worker, order_id)
        assert (outcome["id"], outcome["state"]) == (order_id, "FAILED")
        status, _ = await shop.deployment.post(worker, **order)
        assert status == 200


@pytest.mark.parametrize("path", ["%00", "%0A", "%20a", "%E2%80%8B", "x" * 129, "%FF", "%F0%9F"])
async def test_a_read_with_an_invalid_id_is_rejected(shop, path):
    for worker in shop.front:
        answer = await shop.deployment.ask(worker, "GET", f"/v1/orders/{path}?timeout=0")
        # Bytes that are not UTF-8 are an unknown name, or rejected.
        assert answer.status in ({400, 404} if "%F" in path else {400}), answer
        assert answer.headers["Content-Type"] == PROBLEM


@pytest.mark.parametrize("timeout", ["-1", "abc", "1.5", "1e3", "", "٣"])
async def test_an_invalid_timeout_is_rejected(shop, timeout):
    answer = await shop.deployment.ask(shop.last, "GET", f"/v1/orders/any?timeout={quote(timeout)}")

    assert (answer.status, [e["name"] for e in answer.json()["errors"]]) == (400, ["timeout"])


async def test_every_order_is_decided_in_the_end(shop):
    """Checks all orders that this module has posted. Runs last."""
    await shop.order()
    created = [o.id for o in await shop.deployment.values(ORDERS) if o.state is OrderState.CREATED]

    for order_id in created:
        await shop.deployment.outcome(shop.first, order_id)

    decided = [o.id for o in await shop.deployment.values(ORDERS) if o.state.decided]
    assert sorted(created) == sorted(decided), "each created once, and decided once"


async def post(shop, worker, data, **headers):
    headers = {"Content-Type": "application/json", **headers}
    return await shop.deployment.ask(worker, "POST", f"/v1/orders?timeout={WAIT_MS}", data=data, headers=headers)


async def at_once(shop, orders, **headers):
    """Posts orders concurrently, to the workers in turn."""
    answers = await asyncio.gather(
        *(post(shop, shop.front[n % len(shop.front)], json.dumps(o), **headers) for n, o in enumerate(orders))
    )
    return [(a.status, a.json()) for a in answers]


def content(order):
    """The content of an order without its state, hashable."""
    return json.dumps({**order, "state": None}, sort_keys=True)


async def states(shop, order_id):
    return [o.state for o in await shop.deployment.values(ORDERS) if o.id == order_id]
