import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from orders_service.state import ORDERS_VIEW, OrderView
from runtime.hosting import Endpoint, Host, ServiceDefinition
from runtime.http.forwarding import NOT_OWNED
from runtime.http.inputs import ORDER_ID, deadline_of
from runtime.http.routing import route_to_owner
from runtime.http.signatures import FORWARDED_BY, forwarding_headers
from schemas.messages import Order, OrderState
from tests.unit.http.fakes import ENDPOINTS, ORDER, SERVICE, Cluster, Running, answered_by, decided, running, until

PROBLEM = "application/problem+json"
CREATED = Order(id="a/b é", customer_id=1, product="x", quantity=1, price=1, created_at=datetime.now(UTC))
PATH = "/v1/orders/a%2Fb%20%C3%A9"
Pair = tuple[Running, Running]


async def test_any_worker_answers_for_any_key(pair: Pair):
    owner, other = pair
    async with other.post({**ORDER, "id": CREATED.id}) as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == PATH
        posted = await answer.read()
    assert [o.id for o in owner.host.produced] == [CREATED.id]
    assert not other.host.produced
    async with other.post({**ORDER, "id": CREATED.id}) as answer:
        assert (answer.status, await answer.read()) == (200, posted)
    async with other.post({**ORDER, "id": CREATED.id, "price": 1}) as answer:
        assert (answer.status, answer.content_type) == (409, PROBLEM)
    async with other.get(PATH) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (200, "application/json", posted)
    async with other.get(PATH + "/validated?timeout=10") as answer:
        assert (answer.status, answer.content_type) == (504, PROBLEM)
    async with other.get("/v1/orders/unknown?timeout=10") as answer:
        assert (answer.status, answer.content_type) == (404, PROBLEM)


async def test_an_order_without_an_id_is_accepted_by_any_worker(pair: Pair):
    _, other = pair
    async with other.post(ORDER) as answer:
        assert answer.status == 201
    assert len(other.host.produced) == 1


async def test_an_idempotency_key_reaches_the_owner(pair: Pair):
    owner, other = pair
    headers = {"Idempotency-Key": "Schlüssel"}
    async with other.post(ORDER, headers=headers) as first, owner.post(ORDER, headers=headers) as second:
        assert (first.status, second.status) == (201, 200)


async def test_a_body_without_a_content_type_is_forwarded_without_one(pair: Pair):
    _, other = pair
    body = b'{"id":"o-1","customerId":1,"product":"x","quantity":1,"price":1}'
    head = f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    assert (await other.raw(head.encode() + body))[0] == 201


async def test_an_unavailable_broker_of_the_owner_is_reported_to_the_client(pair: Pair):
    owner, other = pair
    owner.host.broken = True
    async with other.post({**ORDER, "id": "o-1"}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "Kafka" in (await answer.json())["detail"]
        assert NOT_OWNED not in answer.headers


async def test_a_request_is_forwarded_unchanged_with_the_remaining_timeout(cluster: Cluster):
    seen: list[web.Request] = []
    bodies: list[bytes] = []

    async def record(request: web.Request) -> web.Response:
        seen.append(request)
        bodies.append(await request.read())
        if len(seen) < 3:  # as while the key moves: the timeout runs
            return web.Response(status=503, headers={NOT_OWNED: "1"})
        status = 409 if request.method == "POST" else 404
        return web.Response(status=status, body=b"{}", headers={"Content-Type": "application/x", "Retry-After": "9"})

    fake = answered_by(record)
    async with running(cluster, (fake,)), running(cluster) as other:
        body = b' {"id":"a/b",\n"customerId":1,"product":"\\u00e9","quantity":1,"price":1.50}'
        headers = {"Content-Type": "application/x+json", "Idempotency-Key": "k"}
        async with other.post(body, "/v1/orders?timeout=60000&x=%2F", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (409, b"{}")
            assert answer.headers["Content-Type"] == "application/x"
            assert answer.headers["Retry-After"] == "9"
        async with other.get(PATH + "/validated", data=b"x" * 100_000) as answer:
            assert answer.status == 404, "what comes along with a read says nothing, here as at the owner"
    assert bodies == [body, body, body, b""]
    assert [r.method for r in seen] == ["POST", "POST", "POST", "GET"]
    assert [r.rel_url.raw_path for r in seen] == [*["/v1/orders"] * 3, PATH + "/validated"]
    assert seen[0].query["x"] == "/"
    assert 0 < int(seen[2].query["timeout"]) < int(seen[0].query["timeout"]) <= 60_000
    assert 0 < int(seen[3].query["timeout"]) <= 10_000
    assert {r.headers[FORWARDED_BY] for r in seen} == {str(other.host.url)}
    assert seen[0].headers["Content-Type"] == "application/x+json"
    assert seen[0].headers["Idempotency-Key"] == "k"


async def test_a_delete_is_answered_by_the_owner(cluster: Cluster):
    asked: list[tuple[str, bytes]] = []

    async def clear(host: Host, request: web.Request) -> web.StreamResponse:
        async def clear_here() -> web.Response:
            asked.append((str(host.url), await request.read()))
            return web.Response(status=200)

        order_id, deadline = ORDER_ID.of(request), deadline_of(request)
        return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline, clear_here)

    endpoint = Endpoint(
        "DELETE",
        "/v1/orders/{id}",
        clear,
        name="clear",
        summary="Clear",
        tag="orders",
        answers={},
        parameters=(ORDER_ID,),
        routed=True,
    )
    hosted = ServiceDefinition(SERVICE, (*(e for e in ENDPOINTS if e.method != "DELETE"), endpoint))
    async with running(cluster, (hosted,)) as owner, running(cluster, (hosted,)) as other:
        for worker, body in ((owner, b""), (other, b""), (other, b"{}")):
            async with worker.request("DELETE", PATH, data=body or None) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
        assert asked == [(str(owner.host.url), body) for body in (b"", b"", b"{}")]
        async with other.get("/openapi.json") as answer:
            described = (await answer.json())["paths"]["/v1/orders/{id}"]["delete"]
        assert [p["name"] for p in described["parameters"]] == ["id", "timeout"]
        assert described["responses"].keys() >= {"400", "404", "502", "503"}


async def test_a_forwarded_request_is_never_forwarded_again(pair: Pair):
    owner, other = pair
    headers = {FORWARDED_BY: str(owner.host.url)}
    for path in (PATH, PATH + "/validated"):
        async with other.get(path, headers=headers) as answer:
            assert (answer.status, answer.content_type) == (503, PROBLEM)
            assert answer.headers["Retry-After"] == answer.headers[NOT_OWNED] == "1"
    async with other.post({**ORDER, "id": "o-1"}, headers=headers) as answer:
        assert answer.status == 503
    assert owner.host.transactions == 0


async def test_two_workers_that_believe_the_other_is_the_owner_do_not_loop(pair: Pair):
    one, two = pair
    asked = 0

    def believes_in_owner(owner: Running) -> Any:
        def answer(_: str) -> URL:
            nonlocal asked
            asked += 1
            return owner.host.url

        return answer

    one.host.owner, two.host.owner = believes_in_owner(two), believes_in_owner(one)  # type: ignore[method-assign]
    async with one.get(PATH + "?timeout=300") as answer:
        assert answer.status == 503
    assert asked < 20
    assert len(one.host.watches) == len(two.host.watches) == 0


async def test_a_get_that_waits_follows_the_key_to_its_new_owner(pair: Pair):
    owner, other = pair
    gets = [asyncio.ensure_future(w.get(PATH + "/validated?timeout=60000")) for w in (owner, other, other)]
    await until(lambda: len(owner.host.watches) == 3)
    owner.host.cluster.move(other.host.url)
    await until(lambda: len(other.host.watches) >= 3 and len(owner.host.watches) <= 1)
    other.host.cluster.put(decided(CREATED))
    for get in gets:
        async with await get as answer:
            assert answer.status == 200
    await until(lambda: len(owner.host.watches) == len(other.host.watches) == 0)


async def test_a_request_waits_while_nobody_owns_its_key(pair: Pair):
    owner, other = pair
    cluster = owner.host.cluster
    cluster.put(OrderView(order=CREATED))
    cluster.move(None)
    get = asyncio.ensure_future(other.get(PATH))
    post = asyncio.ensure_future(other.post({**ORDER, "id": "o-2"}))
    await until(lambda: len(other.host.watches) == 2)
    cluster.move(owner.host.url)
    async with await get as answer:
        assert answer.status == 200
    async with await post as answer:
        assert answer.status == 201
    assert len(owner.host.produced) == 1


async def test_a_request_waits_until_the_owner_has_restored_the_state(pair: Pair):
    owner, other = pair
    cluster = owner.host.cluster
    cluster.put(OrderView(order=CREATED))
    owner.host.here = False
    gets = [asyncio.ensure_future(w.get(PATH)) for w in pair]
    await until(lambda: len(owner.host.watches) == 2)
    owner.host.here = True
    cluster.move(owner.host.url)
    for get in gets:
        async with await get as answer:
            assert answer.status == 200
    assert len(other.host.watches) == 0


@pytest.mark.parametrize("timeout", [0, 50])
async def test_a_key_without_an_owner_is_answered_503_at_the_timeout(pair: Pair, timeout: int):
    pair[0].host.cluster.move(None)
    started = time.monotonic()
    for path in (PATH, PATH + "/validated"):
        async with pair[1].get(f"{path}?timeout={timeout}") as answer:
            assert (answer.status, answer.content_type, answer.headers["Retry-After"]) == (503, PROBLEM, "1")
    assert time.monotonic() - started < 9, "what is waited for without a time"
    assert len(pair[1].host.watches) == 0


async def test_a_client_that_waits_for_an_owner_is_answered_when_the_worker_stops(pair: Pair):
    _, other = pair
    other.host.cluster.move(None)
    get = asyncio.ensure_future(other.get(PATH))
    await until(lambda: len(other.host.watches) == 1)
    other.host.stop()
    async with await get as answer:
        assert answer.status == 503


async def test_a_forwarded_waiting_request_is_answered_when_either_worker_stops(pair: Pair):
    owner, other = pair
    get = asyncio.ensure_future(other.get(PATH))
    await until(lambda: len(owner.host.watches) == 1)
    owner.host.stop()  # it answers; the request is forwarded again until its own worker stops
    await until(lambda: len(other.host.watches) == 1)
    other.host.stop()
    async with await get as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_waiting_request_is_answered_by_the_next_owner_after_a_crash(pair: Pair):
    owner, other = pair
    gets = [asyncio.ensure_future(other.get(PATH + "?timeout=60000")) for _ in range(5)]
    await until(lambda: len(owner.host.watches) == 5)
    await owner.die()
    await until(lambda: len(other.host.watches) == 5)
    other.host.cluster.put(OrderView(order=CREATED))
    other.host.cluster.move(other.host.url)
    for get in gets:
        async with await get as answer:
            assert answer.status == 200
    assert len(other.host.watches) == 0


async def test_a_post_to_an_owner_that_crashes_writes_the_order_once(pair: Pair):
    owner, other = pair
    owner.host.gate.clear()
    post = asyncio.ensure_future(other.post({**ORDER, "id": "o-1"}))
    await until(lambda: owner.host.transactions == 1)
    await owner.die()
    owner.host.gate.set()
    await until(lambda: len(owner.host.produced) == 1)
    other.host.cluster.move(other.host.url)
    async with await post as answer:
        assert answer.status == 200
    assert not other.host.produced


async def test_a_request_to_a_crashed_owner_is_answered_503_at_the_timeout(pair: Pair):
    owner, other = pair
    await owner.die()
    async with other.get(PATH + "?timeout=200") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_paused_owner_is_abandoned_once_it_is_replaced(cluster: Cluster):
    frozen = asyncio.Event()
    asked = asyncio.Event()

    async def freeze(_: web.Request) -> web.Response:
        asked.set()
        await frozen.wait()
        raise AssertionError

    fake = answered_by(freeze)
    async with running(cluster, (fake,)), running(cluster) as other:
        get = asyncio.ensure_future(other.get(PATH + "?timeout=60000"))
        await asked.wait()
        cluster.put(OrderView(order=CREATED))
        cluster.move(other.host.url)
        async with asyncio.timeout(40), await get as answer:
            assert answer.status == 200
        frozen.set()


async def test_clients_that_disconnect_leak_nothing_at_the_owner(pair: Pair):
    owner, other = pair
    gets = [asyncio.ensure_future(other.get(PATH + "?timeout=60000")) for _ in range(50)]
    await until(lambda: len(owner.host.watches) == 50)
    for get in gets:
        get.cancel()
    await until(lambda: len(owner.host.watches) == 0)


async def test_with_keys_workers_answer_for_each_other(cluster: Cluster):
    async with running(cluster, worker_keys="new,old"), running(cluster, worker_keys="old") as other:
        async with other.post({**ORDER, "id": CREATED.id}) as answer:
            assert answer.status == 201
        async with other.get(PATH + "?x=%2F+y") as answer:
            assert answer.status == 200


async def test_different_worker_keys_are_reported(cluster: Cluster, caplog: pytest.LogCaptureFixture):
    async with running(cluster, worker_keys="a"), running(cluster, worker_keys="b") as other, other.get(PATH) as answer:
        assert (answer.status, answer.content_type) == (502, PROBLEM)
    assert "WORKER_KEYS" in caplog.text


@pytest.fixture
def signed(cluster: Cluster) -> Any:
    """The headers that a worker sends with `GET /v1/orders/o-1?timeout=0`."""

    def make(*keys: str, method: str = "GET", target: str = "/v1/orders/o-1?timeout=0") -> dict[str, str]:
        from runtime.common.settings import Settings

        return forwarding_headers(Settings(worker_keys=keys).worker_keys, URL("http://elsewhere:1"), method, target)

    return make


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda sign: sign("one"), 404),
        (lambda sign: sign("two"), 404),
        (lambda sign: sign("two", "nonsense"), 404),
        (lambda sign: sign(), 401),
        (lambda sign: sign("three"), 401),
        (lambda sign: sign("one", method="POST"), 401),
        (lambda sign: sign("one", target="/v1/orders/o-2?timeout=0"), 401),
        (lambda sign: sign("one", target="/v1/orders/o-1?timeout=1"), 401),
        (lambda sign: sign("one") | {"X-Forwarded-At": str(int(time.time()) - 1)}, 401),
        (lambda sign: sign("one") | {"X-Forwarded-At": "²"}, 401),
        (lambda sign: sign("one") | {"X-Forwarded-At": ""}, 401),
        (lambda sign: sign("one") | {"X-Forwarded-Signature": "é"}, 401),
        (lambda _: {}, 404),
    ],
)
async def test_forwarded_by_is_accepted_only_with_a_valid_signature(
    cluster: Cluster, signed: Any, change: Any, status: int
):
    async with (
        running(cluster, worker_keys="one, two") as worker,
        worker.get("/v1/orders/o-1?timeout=0", headers=change(signed)) as answer,
    ):
        assert (answer.status, answer.content_type) == (status, PROBLEM)


@pytest.mark.parametrize(("seconds", "status"), [(-31, 401), (-29, 404), (29, 404), (32, 401)])
async def test_a_signature_is_valid_for_half_a_minute(
    cluster: Cluster, signed: Any, monkeypatch: pytest.MonkeyPatch, seconds: int, status: int
):
    now = time.time()
    monkeypatch.setattr("runtime.http.signatures.time.time", lambda: now + seconds)
    headers = signed("one")
    monkeypatch.setattr("runtime.http.signatures.time.time", lambda: now)
    async with (
        running(cluster, worker_keys="one") as worker,
        worker.get("/v1/orders/o-1?timeout=0", headers=headers) as answer,
    ):
        assert answer.status == status


async def test_without_keys_forwarded_by_is_trusted(worker: Running, signed: Any):
    worker.host.cluster.put(decided(CREATED, OrderState.SHIPPED))
    async with worker.get(PATH, headers=signed()) as answer:
        assert answer.status == 200
