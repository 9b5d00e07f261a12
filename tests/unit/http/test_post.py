import asyncio
import math
import uuid
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest

from orders_service.state import OrderView
from schemas.messages import Order, OrderState
from tests.unit.http.fakes import ORDER, Running, decided, until

PROBLEM = "application/problem+json"


async def test_an_order_is_created_with_a_generated_id(worker: Running):
    async with worker.post({**ORDER, "state": "FAILED", "createdAt": "1999-01-01T00:00:00Z"}) as answer:
        assert answer.status == 201
        assert answer.content_type == "application/json"
        body = await answer.json()
    assert uuid.UUID(body["id"]).version == 7
    assert answer.headers["Location"] == f"/v1/orders/{body['id']}"
    assert {k: body[k] for k in ORDER} == ORDER
    assert body["state"] == "CREATED"
    assert body["createdAt"] > "2020"
    assert [o.id for o in worker.host.produced] == [body["id"]]


@pytest.mark.parametrize("order_id", ["o-1", "a/b", "näh €", "50%", "a%2Fb", "{x}", "a b", "?#&=+", "x" * 128, "..."])
async def test_an_id_given_by_the_client_is_kept_and_found_at_location(worker: Running, order_id: str):
    async with worker.post({**ORDER, "id": order_id}) as answer:
        assert answer.status == 201
        location = answer.headers["Location"]
    assert location == "/v1/orders/" + quote(order_id, safe="")
    async with worker.get(location) as answer:
        assert answer.status == 200
        assert (await answer.json())["id"] == order_id
    async with worker.get(location + "/validated?timeout=0") as answer:
        assert answer.status == 504


@pytest.mark.parametrize(
    "change", [{"quantity": -1}, {"price": -1}, {"product": ""}, {"quantity": 0}, {"price": 0}, {"price": 1e10}]
)
async def test_fields_judged_by_the_details_check_are_accepted(worker: Running, change: dict[str, Any]):
    async with worker.post({**ORDER, **change}) as answer:
        assert answer.status == 201


async def test_a_repeated_order_is_answered_with_its_current_state(worker: Running):
    order = {**ORDER, "id": "o-1"}
    async with worker.post(order) as answer:
        first = Order.from_json(await answer.read())
    worker.host.cluster.put(decided(first, OrderState.FAILED, "no"))
    async with worker.post({**order, "price": 9.990}) as answer:
        assert answer.status == 200
        assert answer.headers["Location"] == "/v1/orders/o-1"
        assert Order.from_json(await answer.read()) == first.model_copy(update={"state": OrderState.FAILED})
    assert len(worker.host.produced) == 1


async def test_another_order_under_the_same_id_is_a_conflict_that_names_the_difference(worker: Running):
    await worker.post({**ORDER, "id": "o-1"})
    async with worker.post({**ORDER, "id": "o-1", "customerId": 8, "price": 10}) as answer:
        assert (answer.status, answer.content_type) == (409, PROBLEM)
        detail = (await answer.json())["detail"]
    assert "customerId, price" in detail
    assert len(worker.host.produced) == 1


async def test_verdicts_before_their_order_are_not_the_order(worker: Running):
    worker.host.cluster.rows["o-1"] = OrderView()
    async with worker.post({**ORDER, "id": "o-1"}) as answer:
        assert answer.status == 201


async def test_an_idempotency_key_makes_one_order_of_two_requests(worker: Running):
    headers = {"Idempotency-Key": "Schlüssel 1"}
    async with worker.post(ORDER, headers=headers) as first, worker.post(ORDER, headers=headers) as second:
        assert (first.status, second.status) == (201, 200)
        assert await first.json() == await second.json()
    async with worker.post({**ORDER, "quantity": 3}, headers=headers) as answer:
        assert answer.status == 409
    assert len(worker.host.produced) == 1


@pytest.mark.parametrize("order_id", [b"", b'"id":"o-1",'])
@pytest.mark.parametrize("key", ["", "\t", "\udcff"])
async def test_an_invalid_idempotency_key_is_rejected(worker: Running, key: str, order_id: bytes):
    body = b'{%s"customerId":1,"product":"x","quantity":1,"price":1}' % order_id
    head = f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nIdempotency-Key: a\x7f{key}\r\n\r\n"
    if key == "":
        head = head.replace("a\x7f", "")
    status, headers, _ = await worker.raw(head.encode(errors="surrogateescape") + body)
    assert (status, headers["content-type"]) == (400, PROBLEM)


async def test_ten_concurrent_posts_of_one_id_are_one_write(worker: Running):
    worker.host.gate.clear()
    posts = [asyncio.ensure_future(worker.post({**ORDER, "id": "o-1"})) for _ in range(9)]
    await until(lambda: worker.host.transactions >= 9)
    posts.append(asyncio.ensure_future(worker.post({**ORDER, "id": "o-1", "quantity": 9})))
    await until(lambda: worker.host.transactions >= 10)
    worker.host.gate.set()
    answers = await asyncio.gather(*posts)
    assert sorted(a.status for a in answers[:9]) == [200] * 8 + [201]
    assert answers[9].status == 409
    assert len({await a.read() for a in answers[:9]}) == 1
    assert len(worker.host.produced) == 1


async def test_a_failed_write_is_answered_503_and_the_id_stays_free(worker: Running):
    worker.host.gate.clear()
    worker.host.broken = True
    posts = [asyncio.ensure_future(worker.post({**ORDER, "id": "o-1", "quantity": n})) for n in (1, 2)]
    await until(lambda: worker.host.transactions >= 2)
    worker.host.gate.set()
    for answer in await asyncio.gather(*posts):
        assert (answer.status, answer.content_type, answer.headers["Retry-After"]) == (503, PROBLEM, "1")
    async with worker.post(ORDER) as answer:
        assert answer.status == 503
    worker.host.broken = False
    async with worker.post({**ORDER, "id": "o-1", "quantity": 3}) as answer:
        assert answer.status == 201


async def test_a_post_waits_while_an_order_of_its_id_may_be_missing_in_the_view(worker: Running):
    worker.host.behind = True
    async with worker.post({**ORDER, "id": "o-1"}, "/v1/orders?timeout=100") as answer:
        assert answer.status == 503
    async with worker.post(ORDER) as answer:  # a generated id cannot exist yet
        assert answer.status == 201
    worker.host.behind = False
    async with worker.post({**ORDER, "id": "o-1"}) as answer:
        assert answer.status == 201


async def test_a_client_that_disconnects_does_not_undo_its_order(worker: Running):
    worker.host.gate.clear()
    post = asyncio.ensure_future(worker.post({**ORDER, "id": "o-1"}))
    await until(lambda: worker.host.transactions == 1)
    post.cancel()
    worker.host.gate.set()
    async with worker.post({**ORDER, "id": "o-1"}) as answer:
        assert answer.status == 200
    assert len(worker.host.produced) == 1


FAULTS: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["body"]),
    "not JSON": (b"{'a': 1}", ["body"]),
    "half": (b'{"customerId": 1', ["body"]),
    "not UTF-8": (b'{"customerId":1,"product":"\xff","quantity":1,"price":1}', ["body"]),
    "UTF-16": ('{"customerId":1}'.encode("utf-16"), ["body"]),
    "lone surrogate": (b'{"customerId":1,"product":"\\ud800","quantity":1,"price":1}', ["body"]),
    "array": (b"[]", ["body"]),
    "null": (b"null", ["body"]),
    "text": (b'"order"', ["body"]),
    "deep": (b'{"a":' + b"[" * 1500 + b"]" * 1500 + b"}", ["body"]),
    "all missing": (b"{}", ["customerId", "product", "quantity", "price"]),
    "NaN": (b'{"customerId":1,"product":"x","quantity":1,"price":NaN}', ["price"]),
    "Infinity": (b'{"customerId":1,"product":"x","quantity":1,"price":Infinity}', ["price"]),
    "-Infinity": (b'{"customerId":1,"product":"x","quantity":1,"price":-Infinity}', ["price"]),
    "1e400": (b'{"customerId":1,"product":"x","quantity":1,"price":1e400}', ["price"]),
    "1e300": (b'{"customerId":1,"product":"x","quantity":1,"price":1e300}', ["price"]),
    "1e-300": (b'{"customerId":1,"product":"x","quantity":1,"price":1e-300}', ["price"]),
    "huge integers": (b'{"customerId":1e400,"product":"x","quantity":1e10,"price":1}', ["customerId", "quantity"]),
    "long integers": (b'{"customerId":%s,"product":"x","quantity":1,"price":1}' % (b"9" * 3000), ["customerId"]),
    "above int64": (b'{"customerId":9223372036854775808,"product":"x","quantity":1,"price":1}', ["customerId"]),
    "text for numbers": (
        b'{"customerId":"1","product":"x","quantity":"1","price":"1"}',
        ["customerId", "quantity", "price"],
    ),
    "booleans for numbers": (
        b'{"customerId":true,"product":"x","quantity":false,"price":true}',
        ["customerId", "quantity", "price"],
    ),
    "number for text": (b'{"customerId":1,"product":1,"quantity":1,"price":1,"id":1}', ["id", "product"]),
    "nulls": (
        b'{"customerId":null,"product":null,"quantity":null,"price":null}',
        ["customerId", "product", "quantity", "price"],
    ),
    "objects": (b'{"customerId":1,"product":{},"quantity":1,"price":[1]}', ["product", "price"]),
    "a fraction of a piece": (b'{"customerId":1,"product":"x","quantity":1.5,"price":1}', ["quantity"]),
    "too many": (b'{"customerId":1,"product":"x","quantity":1000000001,"price":1}', ["quantity"]),
    "too fine": (b'{"customerId":1,"product":"x","quantity":1,"price":0.00001}', ["price"]),
    "long product": (b'{"customerId":1,"product":"%s","quantity":1,"price":1}' % (b"x" * 257), ["product"]),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_every_invalid_field_of_a_body_is_named_with_its_remedy(worker: Running, name: str):
    body, names = FAULTS[name]
    async with worker.post(body, headers={"Content-Type": "application/json"}) as answer:
        assert (answer.status, answer.content_type) == (400, PROBLEM)
        problem = await answer.json()
    assert sorted(e["name"] for e in problem["errors"]) == sorted(names)
    assert all(e["reason"].startswith(("must ", "is missing: add it", "may ")) for e in problem["errors"]), problem
    assert problem["status"] == 400
    assert problem["title"] == "Bad Request"
    assert not worker.host.produced


@pytest.mark.parametrize("order_id", ["", ".", "..", " a", "a ", "a\nb", "a\u0000", "\u202eabc", "x" * 129])
async def test_an_id_that_is_unsafe_in_a_url_or_log_line_is_rejected(worker: Running, order_id: str):
    async with worker.post({**ORDER, "id": order_id}) as answer:
        assert answer.status == 400
        assert [e["name"] for e in (await answer.json())["errors"]] == ["id"]


@pytest.mark.parametrize("price", ["0.1", "12345678901.2345", "99999999999.9999", "1e2", "0.0001", "-0.3"])
async def test_a_price_is_kept_to_the_last_digit(worker: Running, price: str):
    body = b'{"customerId":1,"product":"x","quantity":1,"price":%s}' % price.encode()
    async with worker.post(body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 201
        assert Order.from_json(await answer.read()).price == Decimal(price)
    assert worker.host.produced[0].price == Decimal(price)


async def test_the_last_of_duplicate_fields_counts(worker: Running):
    async with worker.post(
        b'{"customerId":1,"product":"x","quantity":1,"price":1,"price":2}', headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 201
        assert math.isclose((await answer.json())["price"], 2)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ("Application/JSON", 201),
        ("application/vnd.order+json", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("nonsense", 415),
    ],
)
async def test_json_media_types_are_accepted_and_no_others(worker: Running, content_type: str, status: int):
    body = b'{"customerId":1,"product":"x","quantity":1,"price":1}'
    async with worker.post(body, headers={"Content-Type": content_type}) as answer:
        assert answer.status == status
        if status == 415:
            assert answer.content_type == PROBLEM
            assert answer.headers["Accept-Post"] == "application/json"


async def test_a_body_without_a_content_type_counts_as_json(worker: Running):
    body = b'{"customerId":1,"product":"x","quantity":1,"price":1}'
    head = f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    assert (await worker.raw(head.encode() + body))[0] == 201


async def test_a_whole_number_may_be_written_with_a_point(worker: Running):
    json = {"Content-Type": "application/json"}
    body = b'{"id":"o-1","customerId":15.0,"product":"x","quantity":3.0,"price":5}'
    async with worker.post(body, headers=json) as answer:
        assert answer.status == 201
        assert (await answer.read()).startswith(b'{"id":"o-1","customerId":15,')
    for old, new, field in ((b"3.0", b"3.5", "quantity"), (b"15.0", b"9007199254740993.0", "customerId")):
        async with worker.post(body.replace(old, new), headers=json) as answer:
            assert [e["name"] for e in (await answer.json())["errors"]] == [field]
