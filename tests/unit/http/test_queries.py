import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from orders_service.state import OrderView
from schemas.api import OrderOutcome, Verdict
from schemas.messages import BuiltInCheck, Order, OrderState, ValidationResult
from tests.unit.http.fakes import Running, decided, until

PROBLEM = "application/problem+json"
CREATED = Order(id="o-1", customer_id=1, product="x", quantity=1, price=1, created_at=datetime.now(UTC))
PASSED = Verdict(check_type=BuiltInCheck.FRAUD_CHECK, validation_result=ValidationResult.PASS)


async def test_an_existing_order_is_answered_at_once(worker: Running):
    worker.host.cluster.put(OrderView(order=CREATED))
    async with worker.get("/v1/orders/o-1") as answer:
        assert answer.status == 200
        assert Order.from_json(await answer.read()) == CREATED


@pytest.mark.parametrize("path", ["/v1/orders/o-1", "/v1/orders/o-1/validated"])
@pytest.mark.parametrize("timeout", [0, 20])
async def test_an_unknown_order_is_answered_404_at_the_timeout(worker: Running, path: str, timeout: int):
    worker.host.cluster.rows["o-1"] = OrderView(verdicts=(PASSED,))  # verdicts alone are no order
    async with worker.get(f"{path}?timeout={timeout}") as answer:
        assert (answer.status, answer.content_type) == (404, PROBLEM)
        assert "'o-1'" in (await answer.json())["detail"]
    assert len(worker.host.watches) == 0


async def test_a_get_before_the_post_is_answered_by_the_post(worker: Running):
    gets = [asyncio.ensure_future(worker.get(f"/v1/orders/o-1{end}?timeout=60000")) for end in ("", "/validated")]
    await until(lambda: len(worker.host.watches) == 2)
    async with worker.post({"id": "o-1", "customerId": 1, "product": "x", "quantity": 1, "price": 1}) as answer:
        assert answer.status == 201
    async with await gets[0] as answer:
        assert answer.status == 200
    await until(lambda: len(worker.host.watches) == 1)
    worker.host.cluster.put(decided(worker.host.produced[0], OrderState.FAILED, "FRAUD_CHECK: too much"))
    async with await gets[1] as answer:
        assert answer.status == 200
        outcome = OrderOutcome.from_json(await answer.read())
    assert outcome.state is outcome.order.state is OrderState.FAILED
    assert outcome.reasons == ("FRAUD_CHECK: too much",)
    assert len(worker.host.watches) == 0


@pytest.mark.parametrize("state", [OrderState.VALIDATED, OrderState.FAILED, OrderState.SHIPPED])
async def test_every_decided_state_counts_as_validated(worker: Running, state: OrderState):
    worker.host.cluster.put(decided(CREATED, state))
    async with worker.get("/v1/orders/o-1/validated") as answer:
        assert (answer.status, (await answer.json())["state"]) == (200, state)


@pytest.mark.parametrize("timeout", [0, 20])
async def test_an_undecided_order_is_answered_504_with_its_progress(worker: Running, timeout: int):
    worker.host.cluster.put(OrderView(order=CREATED, verdicts=(PASSED,)))
    async with worker.get(f"/v1/orders/o-1/validated?timeout={timeout}") as answer:
        assert (answer.status, answer.content_type) == (504, PROBLEM)
        problem = await answer.json()
    assert problem["state"] == "CREATED"
    assert problem["verdicts"] == [{"checkType": "FRAUD_CHECK", "validationResult": "PASS"}]


async def test_two_hundred_clients_can_wait_for_one_order(worker: Running):
    gets = [asyncio.ensure_future(worker.get("/v1/orders/o-1/validated?timeout=60000")) for _ in range(200)]
    await until(lambda: len(worker.host.watches) == 200)
    worker.host.cluster.put(OrderView(order=CREATED))  # wakes them, but is not decided
    worker.host.cluster.put(decided(CREATED))
    answers = await asyncio.gather(*gets)
    assert {a.status for a in answers} == {200}
    assert len({await a.read() for a in answers}) == 1
    assert len(worker.host.watches) == 0


async def test_two_hundred_clients_that_disconnect_leak_nothing(worker: Running):
    gets = [asyncio.ensure_future(worker.get("/v1/orders/o-1?timeout=60000")) for _ in range(200)]
    await until(lambda: len(worker.host.watches) == 200)
    for get in gets:
        get.cancel()
    await until(lambda: len(worker.host.watches) == 0)


@pytest.mark.parametrize("path", ["/v1/orders/o-1", "/v1/orders/o-1/validated"])
async def test_a_waiting_client_is_answered_when_the_worker_stops(worker: Running, path: str):
    get = asyncio.ensure_future(worker.get(path))
    await until(lambda: len(worker.host.watches) == 1)
    worker.host.stop()
    async with await get as answer:
        assert (answer.status, answer.content_type, answer.headers["Retry-After"]) == (503, PROBLEM, "1")


async def test_a_stopping_worker_still_answers_existing_orders(worker: Running):
    worker.host.cluster.put(decided(CREATED))
    worker.host.stop()
    async with worker.get("/v1/orders/o-1/validated") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("timeout", ["-1", "abc", "1.5", "1e3", "", "+5", "%205", "%D9%A5", "0x10", "NaN"])
async def test_an_invalid_timeout_is_rejected_by_name(worker: Running, timeout: str):
    async with worker.get(f"/v1/orders/o-1?timeout={timeout}") as answer:
        assert (answer.status, answer.content_type) == (400, PROBLEM)
        assert [e["name"] for e in (await answer.json())["errors"]] == ["timeout"]


@pytest.mark.parametrize("timeout", ["60001", "9" * 20, "9" * 5000])
async def test_a_timeout_above_the_maximum_counts_as_the_maximum(worker: Running, timeout: str):
    worker.host.cluster.put(OrderView(order=CREATED))
    async with worker.get(f"/v1/orders/o-1?timeout={timeout}") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["%20a", "a%0Ab", "%E2%80%AEx", "x" * 129, "%00"])
async def test_an_invalid_id_is_rejected_without_waiting(worker: Running, path: str):
    async with worker.get(f"/v1/orders/{path}") as answer:
        assert answer.status == 400
        assert [e["name"] for e in (await answer.json())["errors"]] == ["id"]


@pytest.mark.parametrize(
    ("path", "order_id"),
    [("a%2Fb", "a/b"), ("a%2fb", "a/b"), ("a%252Fb", "a%2Fb"), ("%C3%A9", "é"), ("a+b", "a+b"), ("a%20b", "a b")],
)
async def test_ids_are_percent_decoded_once(worker: Running, path: str, order_id: str):
    worker.host.cluster.put(OrderView(order=CREATED.model_copy(update={"id": order_id})))
    async with worker.get(f"/v1/orders/{path}?timeout=0") as answer:
        assert answer.status == 200


async def test_a_head_request_is_answered_like_its_get(worker: Running):
    worker.host.cluster.put(OrderView(order=CREATED))
    async with worker.request("HEAD", "/v1/orders/o-1") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 10


async def test_a_change_between_reading_and_waiting_is_not_missed(worker: Running, monkeypatch: Any):
    look = worker.host.read

    def read_then_change(*args: Any) -> Any:
        row = look(*args)
        monkeypatch.undo()
        worker.host.cluster.put(OrderView(order=CREATED))
        return row

    monkeypatch.setattr(worker.host, "read", read_then_change)
    async with asyncio.timeout(40), worker.get("/v1/orders/o-1?timeout=60000") as answer:
        assert answer.status == 200
