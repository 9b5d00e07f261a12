"""A day, replayed from the history into an empty cluster: the same states, stock and sessions, and no e-mail."""

import asyncio
import shutil
from collections import Counter, defaultdict
from datetime import UTC, datetime
from random import Random

import pytest

from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.mail_server import MailSink
from ecosystem.services import CORE
from orders_service.state import ORDERS_VIEW
from schemas.messages import Customer, HomeCheckin, Payment
from schemas.topics import CUSTOMERS, HOME_CHECKINS, ORDERS, PAYMENTS
from tests.commands import orders
from tests.integration.test_history_sink import is_read
from tests.workers import Deployment, until
from validators.fraud.state import CUSTOMERS as SESSIONS
from validators.inventory.state import STOCK

SERVICES = (*CORE, "fulfilment", "email")
ORDERED = 150
PRODUCTS = [f"p-{number}" for number in range(20)]
BUYERS = range(1, 26)
AT_ONCE = 6


class Day:
    """Orders that are posted, paid, checked in for and cancelled: side by side, but one at a time of what is scarce."""

    def __init__(self, deployment, worker, seed):
        self._deployment = deployment
        self._worker = worker
        self._random = Random(seed)
        self._busy = defaultdict(asyncio.Lock)
        self._held = Counter()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def run(self):
        for number in BUYERS:
            said = {"first_name": "F", "last_name": f"K {number}", "address": "Praha", "level": "gold"}
            await self._deployment.send(CUSTOMERS, Customer(id=number, email=f"f{number}@example.org", **said))
        await self._deployment.stock(**dict.fromkeys(PRODUCTS, 6))
        await asyncio.gather(*(self._order(f"o-{number:03}", number) for number in range(ORDERED)))

    async def _order(self, id_, number):
        chance = self._random.random
        product, customer = self._random.choice(PRODUCTS), self._random.choice(BUYERS)
        quantity = 0 if chance() < 0.04 else self._random.randint(1, 3)
        price = 900 if chance() < 0.08 else 5 + number % 7
        early, cancelled, counted = chance(), chance(), chance()
        pays, checks_in = early < 0.1 or chance() < 0.8, chance() < 0.7
        # In the order of names, so that nobody waits for each other.
        async with self._places, self._busy[f"c-{customer:02}"], self._busy[product]:
            if counted < 0.1:
                await self._deployment.stock(**{product: self._random.randint(5, 20)})
            if early < 0.1:
                await self._pay(id_, quantity * price)
            body = {"id": id_, "customerId": customer, "product": product, "quantity": quantity, "price": price}
            assert (await self._deployment.post(self._worker, **body))[0] == 201
            state = (await self._deployment.outcome(self._worker, id_))["state"]
            if cancelled < 0.12:
                answer = await self._deployment.repeated(self._worker, "DELETE", f"/v1/orders/{id_}")
                state = "CANCELLED" if answer.status == 200 else state
            if pays and early >= 0.1:
                await self._pay(id_, quantity * price)
            if checks_in:
                await self._check_in(id_)
            if state == "VALIDATED" and pays and checks_in:
                state = "SHIPPED"
            self._held[product] += quantity if state == "VALIDATED" else 0
            await until(lambda: self._is_settled(id_, product), f"{id_} {state}, and its stock released")

    async def _is_settled(self, id_, product):
        """Whether all checks have judged an order, and nothing is reserved but for orders that may be shipped."""
        _, body = await self._deployment.get(self._worker, id_, "validated")
        judged = len(body["verdicts"]) + body["late"] == len(CORE) - 1
        return judged and self._worker.read(STOCK, product).reserved == self._held[product]

    async def _pay(self, id_, amount):
        await self._deployment.send(PAYMENTS, Payment(id=f"pay-{id_}", order_id=id_, ccy="EUR", amount=max(amount, 1)))

    async def _check_in(self, id_):
        site = {"internet_no": "1", "staff_code": "s", "job_status": "done", "checkin_date": datetime.now(UTC)}
        place = {"checkin_latitude": 50.1, "checkin_longitude": 14.4}
        await self._deployment.send(HOME_CHECKINS, HomeCheckin(event_id=f"e-{id_}", order_no=id_, **site, **place))


async def outcome(deployment):
    """States with reasons, stock, and sessions, as the services have committed them."""
    views = await deployment.rows(ORDERS_VIEW)
    states = {id_: (view.order.state, view.order.reasons, view.reasons) for id_, view in views.items()}
    return states, await deployment.rows(STOCK), await deployment.rows(SESSIONS)


@pytest.fixture
async def empty(tmp_path):
    """A second Kafka, without any topic."""
    cluster = Cluster(tmp_path / "kafka")
    await asyncio.to_thread(cluster.__enter__)
    try:
        async with Deployment(cluster.bootstrap_servers, "", tmp_path / "state") as deployment:
            yield deployment
    finally:
        await asyncio.to_thread(cluster.__exit__, None, None, None)
        for node in cluster.nodes.values():
            shutil.rmtree(node.data)


async def test_a_day_replayed_into_an_empty_cluster_ends_as_it_did(deployment, empty, database_url, tmp_path):
    with MailSink(tmp_path / "mail") as mail, MailSink(tmp_path / "no-mail") as silent:
        worker = await deployment.start(*SERVICES, "history", history_database_url=database_url, smtp_port=mail.port)
        await Day(deployment, worker, seed=7).run()
        await until(lambda: is_read(deployment, database_url), "stored", every=0.2)
        expected = await outcome(deployment)
        counts = Counter(state for state, _, _ in expected[0].values())
        assert len(expected[0]) == ORDERED
        assert min(counts[state] for state in ("VALIDATED", "FAILED", "SHIPPED", "CANCELLED")) > 3, counts
        assert {reason.split(":")[0] for _, _, reasons in expected[0].values() for reason in reasons} >= {
            "FRAUD_CHECK",
            "INVENTORY_CHECK",
            "ORDER_DETAILS_CHECK",
        }
        await until(lambda: len(list(mail.new.iterdir())) > ORDERED / 3, "e-mails of the day")
        await deployment.stop(worker)

        await empty.start(*SERVICES, smtp_port=silent.port)
        code, said = await orders(
            empty,
            *("replay", "--all", "--inputs", "--in-order", "--yes", "--resume", str(tmp_path / "day.jsonl")),
            HISTORY_DATABASE_URL=database_url,
            UNKNOWN_PRODUCTS="pass",
        )
        assert code == 0, said
        await empty.caught_up("+".join(sorted(SERVICES)))
        found = await outcome(empty)
        differing = {id_: (was, found[0].get(id_)) for id_, was in expected[0].items() if found[0].get(id_) != was}
        assert differing == {}
        assert found == expected
        replayed = [r for r in await empty.records(ORDERS.name) if ("replays", b"1") in r.headers]
        assert len(replayed) == len(await empty.records(ORDERS.name)), "what follows from a replay is marked"
        assert list(silent.new.iterdir()) == []
