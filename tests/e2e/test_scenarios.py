"""Orders from the POST to the outcome."""

import asyncio

import pytest

from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.workers import until
from validators.inventory.state import RESERVATIONS

SOON_S = 50
"""Seconds: long, but shorter than the minute after which waiting requests look again by themselves."""


async def test_an_order_is_created_and_validated(shop):
    outcome = await shop.order(quantity=3)

    assert outcome["state"] == "VALIDATED"
    assert {v["checkType"]: v["validationResult"] for v in outcome["verdicts"]} == {
        "FRAUD_CHECK": "PASS",
        "INVENTORY_CHECK": "PASS",
        "ORDER_DETAILS_CHECK": "PASS",
    }
    assert [o.state for o in await messages(shop, outcome["id"])] == ["CREATED", "VALIDATED"]


async def test_ten_orders_in_a_row_are_validated(shop):
    product = await shop.product(10)

    outcomes = [await shop.order(product=product) for _ in range(10)]

    assert [o["state"] for o in outcomes] == ["VALIDATED"] * 10


async def test_ten_orders_in_a_row_fail_for_lack_of_stock(shop):
    product = await shop.product(1)

    outcomes = [await shop.order(product=product, quantity=5) for _ in range(10)]

    assert [o["state"] for o in outcomes] == ["FAILED"] * 10
    assert {tuple(o["reasons"]) for o in outcomes} == {(f"INVENTORY_CHECK: 5 of '{product}' ordered, 1 available",)}


@pytest.mark.parametrize(
    "orders",
    [
        [(3, 5, "PASS"), (1, 75, "PASS")],
        [(1, 75, "PASS"), (1, 75, "PASS"), (50, 75, "FAIL")],
        [(10, 100, "PASS"), (10, 100, "FAIL"), (1, 5, "FAIL")],
    ],
    ids=["customer 0", "customer 1", "customer 2"],
)
async def test_a_customer_fails_from_the_order_on_that_reaches_the_limit(shop, orders):
    customer, product = shop.customer(), await shop.product()

    outcomes = [
        await shop.order(customerId=customer, product=product, quantity=quantity, price=price)
        for quantity, price, _ in orders
    ]

    assert [fraud_of(o) for o in outcomes] == [verdict for _, _, verdict in orders]
    assert [o["state"] for o in outcomes] == ["VALIDATED" if v == "PASS" else "FAILED" for _, _, v in orders]


async def test_stock_is_reserved_until_there_is_none_left(shop):
    underpants, jumpers = await shop.product(75), await shop.product(1)

    outcomes = [
        await shop.order(product=product, quantity=quantity)
        for product, quantity in [(underpants, 3), (jumpers, 1), (jumpers, 1)]
    ]

    assert [o["state"] for o in outcomes] == ["VALIDATED", "VALIDATED", "FAILED"]
    assert (await shop.reserved(underpants), await shop.reserved(jumpers)) == (3, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quantity": -1}, "quantity must be above 0, is -1"),
        ({"quantity": 0}, "quantity must be above 0, is 0"),
        ({"price": -1}, "price must be 0 or more, is -1"),
        ({"customerId": -1}, "customerId must name a customer (0 or more), is -1"),
    ],
    ids=["quantity -1", "quantity 0", "price -1", "customer -1"],
)
async def test_an_order_with_invalid_details_fails(shop, change, reason):
    outcome = await shop.order(**change)

    assert outcome["state"] == "FAILED"

    async def details():
        return {v.reason for v in await messages(shop, outcome["id"], ORDER_VALIDATIONS) if "DETAILS" in v.check_type}

    # The outcome may have another reason: another check may have failed the order first.
    assert await until(details, "details verdict") == {reason}


async def test_a_failed_order_releases_its_stock(shop):
    product = await shop.product(20)

    failed = await shop.order(product=product, quantity=20, price=100)
    assert [r.partition(":")[0] for r in failed["reasons"]] == ["FRAUD_CHECK"]

    async def given_back():
        reservation = (await shop.deployment.rows(RESERVATIONS.rows)).get(failed["id"])
        return reservation and reservation.refusal is None and reservation.held == 0

    await until(given_back, "reservation given back")
    assert await shop.reserved(product) == 0
    assert (await shop.order(product=product, quantity=20))["state"] == "VALIDATED"


async def test_every_order_is_read_from_every_worker(shop):
    product = await shop.product()
    posted = [
        await shop.deployment.post(worker, **await shop.sound(product=product))
        for worker in [shop.first, shop.last] * 10
    ]
    orders = {order["id"]: order for _, order in posted}
    assert len({shop.first.owner(id_) for id_ in orders}) == len(shop.front), "every worker holds some"

    for worker in shop.front:
        for id_, order in orders.items():
            status, read = await shop.deployment.get(worker, id_)
            assert (status, read | {"state": "CREATED"}) == (200, order)
            outcome = await shop.deployment.outcome(worker, id_)
            assert (outcome["state"], outcome["order"]) == ("VALIDATED", order | {"state": "VALIDATED"})


async def test_a_read_waiting_for_an_order_is_answered_when_it_is_posted(shop):
    for n, poster in enumerate([shop.first, shop.last] * 2):
        order = await shop.sound(id=f"read first {n}")
        reads = [
            asyncio.create_task(shop.deployment.get(worker, order["id"], *then, timeout=60_000))
            for worker in shop.front
            for then in ((), ("validated",))
        ]
        await shop.wait_for_waiters(len(reads))

        await shop.deployment.post(poster, **order)

        async with asyncio.timeout(SOON_S):
            answers = await asyncio.gather(*reads)
        assert {(status, body["id"]) for status, body in answers} == {(200, order["id"])}


@pytest.mark.parametrize("count", [2, 200])
async def test_every_request_waiting_for_an_order_is_answered(shop, count):
    order = await shop.sound(id=f"awaited by {count}")
    waiters = [
        asyncio.create_task(shop.deployment.get(worker, order["id"], "validated", timeout=60_000))
        for worker in (shop.first, shop.last)
        for _ in range(count // 2)
    ]
    await shop.wait_for_waiters(count)

    await shop.deployment.post(shop.first, **order)

    async with asyncio.timeout(SOON_S):
        answers = await asyncio.gather(*waiters)
    assert {(status, body["state"]) for status, body in answers} == {(200, "VALIDATED")}
    await until(lambda: shop.waiting() == 0, "nothing left behind")


async def test_a_disconnected_client_leaves_no_waiting_request(shop):
    waiters = [asyncio.create_task(shop.deployment.get(w, "never posted", timeout=60_000)) for w in shop.front]
    await shop.wait_for_waiters(len(waiters))

    for waiter in waiters:
        waiter.cancel()

    async with asyncio.timeout(SOON_S):
        await until(lambda: shop.waiting() == 0, "nobody waiting")


async def test_a_timed_out_wait_for_an_unknown_order_is_404(shop):
    status, problem = await shop.deployment.get(shop.first, "never posted", timeout=0)
    assert (status, problem["status"]) == (404, 404)
    status, problem = await shop.deployment.get(shop.last, "never posted", "validated", timeout=50)
    assert (status, problem["status"]) == (404, 404)


def fraud_of(outcome):
    return next(v["validationResult"] for v in outcome["verdicts"] if v["checkType"] == "FRAUD_CHECK")


async def messages(shop, order_id, topic=ORDERS):
    return [m for m in await shop.deployment.values(topic) if topic.key(m) == order_id]
