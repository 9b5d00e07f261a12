"""At least once on a real broker: a worker is killed in the middle of a commit, and its successor redoes the batch."""

import signal

import pytest

from ecosystem.embedded.ports import free_ports
from orders_service.state import ORDERS_VIEW
from runtime.loop.checkpoint import AtLeastOnce
from runtime.model.redo import OWNER
from runtime.model.topology import REDO
from schemas.messages import Customer, Order, OrderState, Payment
from schemas.topics import CUSTOMERS, FULFILMENTS, HOME_CHECKINS, ORDERS, PAYMENTS
from tests.commands import orders
from tests.letters import Mailbox, serving
from tests.samples import checked_in
from tests.workers import Deployment, until

SERVICES = ("orders", "fraud", "inventory", "details", "fulfilment", "email")
FRANZ = Customer(id=1, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Praha", level="gold")
ORDER = Order(id="o1", customer_id=1, product="JUMPERS", quantity=1, price=5)


@pytest.fixture
def mailbox():
    return Mailbox()


@pytest.fixture
def mail(mailbox):
    [port] = free_ports(1)
    with serving(mailbox, port):
        yield {"smtp_port": port}


async def ordered(deployment: Deployment, mail) -> None:
    """Leaves an order with payment and check-in as the backlog of workers that have stopped."""
    worker = await deployment.start(*SERVICES, processing_guarantee="at_least_once", **mail)
    await deployment.stock(JUMPERS=10)
    await deployment.send(CUSTOMERS, FRANZ)
    await deployment.caught_up(worker.topology.group)
    await deployment.stop(worker)
    await deployment.send(ORDERS, ORDER)
    await deployment.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    await deployment.send(HOME_CHECKINS, checked_in())


async def decided_once_and_shipped(deployment: Deployment, worker, mailbox) -> None:
    body = await deployment.outcome(worker, "o1")
    await until(lambda: len({letter["Message-ID"] for letter in mailbox.letters}) == 2, "validated and shipped")
    await deployment.caught_up(worker.topology.group)
    states = [order.state for order in await deployment.values(ORDERS) if order.id == "o1"]
    assert body["state"] in ("VALIDATED", "SHIPPED")
    assert set(states) == {OrderState.CREATED, OrderState.VALIDATED, OrderState.SHIPPED}
    assert {fulfilled.order_id for fulfilled in await deployment.values(FULFILMENTS)} == {"o1"}
    assert (await deployment.rows(ORDERS_VIEW))["o1"].order.state in (OrderState.VALIDATED, OrderState.SHIPPED)


async def left_over(deployment: Deployment) -> set[str]:
    """The services with pieces of redo records, as the changelogs of their redo tables say."""
    found = set()
    for service in SERVICES:
        rows = {(r.partition, r.key): r.value for r in await deployment.records(f"{service}{REDO}-changelog")}
        if any(value is not None and key != OWNER for (_, key), value in rows.items()):
            found.add(service)
    return found


@pytest.mark.parametrize("successor", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("point", ["commit.redo", "commit.written"])
async def test_the_batch_of_a_killed_worker_is_redone(deployment: Deployment, mailbox, mail, point, successor):
    """The successor may be exactly once: an operator has switched after the crash."""
    await ordered(deployment, mail)
    code, said = await orders(
        deployment,
        "run",
        *SERVICES,
        FAIL_POINTS=f"{point}=crash",
        PROCESSING_GUARANTEE="at_least_once",
        STATE_DIR=str(deployment.folder / "w0"),
        HTTP_PORT="0",
        SMTP_PORT=str(mail["smtp_port"]),
        UNKNOWN_PRODUCTS="pass",
    )
    assert code == -signal.SIGKILL, said
    assert await left_over(deployment)
    decided_before = [order for order in await deployment.values(ORDERS) if order.state.decided]
    assert bool(decided_before) is (point == "commit.written")

    worker = await deployment.start(*SERVICES, processing_guarantee=successor, **mail)
    await decided_once_and_shipped(deployment, worker, mailbox)
    await deployment.stop(worker)
    assert await left_over(deployment) == set()


async def test_a_batch_with_rows_and_without_output_records_is_redone(
    deployment: Deployment, mailbox, mail, monkeypatch
):
    await ordered(deployment, mail)
    send, torn = AtLeastOnce._send, []

    async def tear(self, *groups):
        if len(groups) == 2 and groups[1] and not torn:
            torn.append(await send(self, groups[0]))
            raise ConnectionError("the outputs do not get through")
        return await send(self, *groups)

    monkeypatch.setattr(AtLeastOnce, "_send", tear)
    worker = await deployment.start(*SERVICES, processing_guarantee="at_least_once", **mail)
    await decided_once_and_shipped(deployment, worker, mailbox)
    assert torn
    await deployment.stop(worker)
    assert await left_over(deployment) == set()
