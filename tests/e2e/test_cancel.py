"""Cancelling orders over HTTP on real workers: what it answers, and what follows from it."""

import asyncio
import sys
from functools import partial

import pytest

from ecosystem.embedded.mail_server import MailSink
from ecosystem.services import CORE
from runtime.common.settings import Guarantee
from schemas.messages import BuiltInCheck, Customer, Payment
from schemas.topics import CUSTOMERS, ORDERS, PAYMENTS, REFUNDS
from tests.e2e.test_checkin import check_in, kept, shown
from tests.workers import PATIENCE_S, Deployment, until
from validators.inventory.state import STOCK

SERVICES = (*CORE, "fulfilment", "email", "checkin", "portal")
REASON = "cancelled by the client"
NEVER = "CREDIT_CHECK"
"""A check without a validator: with it, an order stays undecided until its deadline."""


class Shop:
    """The deployment, its workers by service, and its e-mails."""

    def __init__(self, deployment: Deployment, mail) -> None:
        self.deployment = deployment
        self.workers = {name: w for w in deployment.workers for name in w.readiness()["services"]}
        self._mail = mail

    async def post(self, id_, *, decided="VALIDATED", **content):
        body = {"id": id_, "customerId": 7, "product": "JUMPERS", "quantity": 2, "price": 5, **content}
        assert (await self.deployment.post(self.workers["orders"], **body))[0] == 201
        if decided:
            assert (await self.deployment.outcome(self.workers["orders"], id_))["state"] == decided

    async def cancel(self, id_, timeout=10_000):
        path = f"/v1/orders/{id_}?timeout={timeout}"
        answer = await self.deployment.repeated(self.workers["orders"], "DELETE", path)
        return answer.status, answer.json()

    async def pay(self, id_, payment_id, amount, ccy="EUR"):
        await self.deployment.send(PAYMENTS, Payment(id=payment_id, order_id=id_, ccy=ccy, amount=amount))

    async def check_in(self, id_, **changes):
        status, taken = await check_in(self.deployment, self.workers["checkin"], id_, **changes)
        assert status == 201
        return taken

    async def kept(self, taken):
        """The check-in as the database has it, and as the portal shows it."""
        found = await kept(self.deployment, self.workers["checkin"], taken["eventId"])
        at_portal = await shown(self.deployment, self.workers["portal"], taken["orderNo"])
        by_id = {c["eventId"]: c["status"] for c in at_portal}
        return found["status"], found.get("reason"), by_id.get(taken["eventId"])

    async def history(self, id_):
        return [str(o.state) for o in await self.deployment.values(ORDERS) if o.id == id_]

    async def progress(self, id_):
        path = f"/v1/orders/{id_}/fulfilment"
        return (await self.deployment.ask(self.workers["fulfilment"], "GET", path)).json()

    async def state(self, id_):
        """The state of an order when fulfilment has the same; `None` until then."""
        _, order = await self.deployment.get(self.workers["orders"], id_)
        return order["state"] if order["state"] == (await self.progress(id_)).get("state") else None

    async def becomes(self, id_, state):
        async def reached():
            return await self.state(id_) == state

        await until(reached, f"{id_} is {state}")

    async def refunds(self, id_):
        return sorted(
            (r.refund_id, str(r.ccy), r.amount) for r in await self.deployment.values(REFUNDS) if r.order_id == id_
        )

    async def refunded(self, id_, *refunds):
        async def sent():
            return await self.refunds(id_) == sorted(refunds)

        await until(sent, f"refunds of {id_}")

    async def reserved(self):
        return (await self.deployment.rows(STOCK))["JUMPERS"].reserved

    def subjects(self, id_):
        emails = [path.read_text() for path in (self._mail / "new").iterdir()]
        return [line for text in emails for line in text.splitlines() if line.startswith("Subject:") and id_ in line]


@pytest.fixture
def opened(deployment: Deployment, apart, database_url, tmp_path):
    async def opened(**changes):
        await deployment.start_core(
            apart=apart,
            only=SERVICES,
            checkin_database_url=database_url,
            standby_replicas=0,
            **{"checkin_patience_s": 600.0, **changes},
        )
        shop = Shop(deployment, tmp_path / "mail")
        await until(lambda: shop.workers["checkin"].readiness()["databases"] == {"checkin": "open"}, "database")
        await deployment.stock(JUMPERS=100)
        franz = {"first_name": "Franz", "last_name": "Kafka", "email": "franz@example.org", "address": "Praha"}
        await deployment.send(CUSTOMERS, Customer(id=7, level="gold", **franz))
        return shop

    with MailSink(tmp_path / "mail") as sink:
        yield partial(opened, smtp_port=sink.port)


async def test_a_validated_order_is_cancelled_with_all_that_follows(opened):
    shop = await opened()
    await shop.post("o1")
    await shop.pay("o1", "p1", 4)
    await shop.pay("o1", "p2", 7, "USD")

    async def paid():
        found = await shop.progress("o1")
        return found.get("paid") == 4 and found["otherCurrencies"] == {"USD": 7}

    await until(paid, "paid in part")
    before = await shop.check_in("o1")

    async def accepted():
        return "CHECKED_IN" not in (await shop.progress("o1"))["missing"]

    await until(accepted, "accepted")
    assert await shop.reserved() == 2

    status, cancelled = await shop.cancel("o1")
    assert (status, cancelled["state"], cancelled["reasons"]) == (200, "CANCELLED", [REASON])
    assert await shop.cancel("o1") == (200, cancelled)
    await shop.becomes("o1", "CANCELLED")
    await shop.refunded("o1", ("o1", "EUR", 4), ("o1/USD", "USD", 7))

    await shop.pay("o1", "p3", 6)
    await shop.pay("o1", "p3", 6)
    await shop.pay("o1", "returned", -4)
    late = await shop.check_in("o1", staffCode="late")

    async def compensated():
        return await shop.kept(late) == ("REJECTED", "the order was cancelled", "REJECTED")

    await until(compensated, "check-in rejected in database and portal")
    await shop.refunded("o1", ("o1", "EUR", 4), ("o1/USD", "USD", 7), ("p3", "EUR", 6))
    assert await shop.kept(before) == ("CREATED", None, "CREATED")
    assert await shop.history("o1") == ["CREATED", "VALIDATED", "CANCELLED"]

    async def released():
        return await shop.reserved() == 0

    await until(released, "stock released")
    await until(lambda: shop.subjects("o1"), "e-mail")
    assert shop.subjects("o1") == ["Subject: Your order o1 is cancelled"]
    outcome = await shop.deployment.outcome(shop.workers["orders"], "o1")
    assert (outcome["state"], outcome["reasons"]) == ("CANCELLED", [REASON])


async def test_an_undecided_order_is_cancelled(opened):
    shop = await opened(required_checks=f"{','.join(BuiltInCheck)},{NEVER}", validation_deadline_s=600.0)
    await shop.post("o1", decided=None)
    waiting = await shop.check_in("o1")
    assert (await shop.cancel("o1"))[1]["state"] == "CANCELLED"

    async def compensated():
        return await shop.kept(waiting) == ("REJECTED", "the order was cancelled", "REJECTED")

    await until(compensated, "check-in rejected in database and portal")

    async def released():
        return await shop.reserved() == 0

    await until(released, "stock released")
    assert await shop.history("o1") == ["CREATED", "CANCELLED"]
    assert await shop.refunds("o1") == []


async def test_what_has_ended_or_does_not_exist_is_not_cancelled(opened):
    shop = await opened()
    status, problem = await shop.cancel("unknown", timeout=0)
    assert (status, "'unknown'" in problem["detail"]) == (404, True)

    await shop.post("failed", decided="FAILED", product="NONE")
    await shop.post("shipped")
    await shop.pay("shipped", "p1", 10)
    await shop.check_in("shipped")
    await shop.becomes("shipped", "SHIPPED")
    for id_ in ("failed", "shipped"):
        status, problem = await shop.cancel(id_)
        said = f"The order '{id_}' is {id_.upper()}: it cannot be cancelled any more."
        assert (status, problem["detail"]) == (409, said)
    assert await shop.history("failed") == ["CREATED", "FAILED"]
    assert await shop.history("shipped") == ["CREATED", "VALIDATED", "SHIPPED"]
    assert await shop.deployment.values(REFUNDS) == []


async def test_an_unpaid_order_is_cancelled_at_the_payment_deadline(opened):
    shop = await opened(payment_deadline_s=4.0)
    await shop.post("paid")
    await shop.pay("paid", "p1", 10)
    await shop.post("short")
    await shop.pay("short", "p2", 3)
    await shop.becomes("short", "CANCELLED")
    assert (await shop.deployment.outcome(shop.workers["orders"], "short"))["reasons"] == ["not paid within 4 s"]
    await shop.refunded("short", ("short", "EUR", 3))
    await shop.pay("short", "p3", 7)  # too late
    await shop.refunded("short", ("short", "EUR", 3), ("p3", "EUR", 7))
    assert await shop.history("short") == ["CREATED", "VALIDATED", "CANCELLED"]
    assert await shop.state("paid") == "VALIDATED"


async def test_cancelling_races_with_shipping_and_one_of_them_wins(opened):
    """Each order is cancelled while its last prerequisite arrives; the answer agrees with what is on the topic."""
    shop = await opened(processing_guarantee=Guarantee.EXACTLY_ONCE)
    ids = [f"o{n}" for n in range(12)]
    for id_ in ids:
        await shop.post(id_)
        await shop.check_in(id_)
    answers = {}

    async def race(number, id_):
        paying = asyncio.create_task(shop.pay(id_, f"p-{id_}", 10))
        await asyncio.sleep(number * 0.03)  # earlier or later in the race
        answers[id_] = (await shop.cancel(id_))[0]
        await paying

    await asyncio.gather(*(race(number, id_) for number, id_ in enumerate(ids)))
    for id_ in ids:
        end = "CANCELLED" if answers[id_] == 200 else "SHIPPED"
        assert answers[id_] in {200, 409}
        await shop.becomes(id_, end)
        assert await shop.history(id_) == ["CREATED", "VALIDATED", end]

    async def money_back():
        wanted = {id_: 10 for id_ in ids if answers[id_] == 200}
        found = {}
        for refund in await shop.deployment.values(REFUNDS):
            found[refund.order_id] = found.get(refund.order_id, 0) + refund.amount
        return found == wanted

    await until(money_back, "refunds of all cancelled orders, and of no other")


async def test_the_command_cancels_and_says_what_it_cannot_cancel(opened):
    shop = await opened()
    await shop.post("o1")
    await shop.post("o2")
    await shop.post("failed", decided="FAILED", product="NONE")
    url = str(shop.workers["orders"].url)

    async def cancel(*arguments):
        command = [sys.executable, "-m", "ecosystem.cli", "cancel", *arguments, "--url", url]
        process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
        async with asyncio.timeout(PATIENCE_S):
            said, errors = await process.communicate()
        return process.returncode, said.decode(), errors.decode()

    code, said, errors = await cancel("o1")
    assert (code, "o1  CANCELLED" in said, errors) == (0, True, "")
    code, said, errors = await cancel("failed", "unknown", "o2", "o1", "--timeout", "100")
    assert (code, said.count("CANCELLED")) == (1, 2)
    assert "The order 'failed' is FAILED: it cannot be cancelled any more." in errors
    assert "'unknown'" in errors
    code, said, errors = await cancel("failed")
    assert (code, said, "cannot be cancelled" in errors) == (1, "", True)
    assert await shop.history("o2") == ["CREATED", "VALIDATED", "CANCELLED"]
