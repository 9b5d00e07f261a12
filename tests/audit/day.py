"""A working day of the whole shop: orders that pass and fail in every way, payments, check-ins, products, e-mails."""

from datetime import timedelta

from ecosystem.audit.sources import SUBSCRIBERS
from ecosystem.services import CORE, NAMES
from fulfilment_service.state import PROGRESS
from portal_service.processors import CHECK_INS_VIEW
from runtime.model.service import PendingSideEffect, Table
from schemas.messages import Customer, Payment
from schemas.topics import CUSTOMERS, ORDERS_ENRICHED, PAYMENTS
from tests.workers import Deployment, until
from validators.inventory.state import STOCK

OTHER_SERVICES = tuple(name for name in NAMES if name not in CORE)
PATIENCE = timedelta(seconds=2)
"""`checkin_patience_s` of the day."""
WINDOW = timedelta(minutes=30)
"""`email_window_s` of the day: longer than the day lasts."""
CHECKIN_PATH = "/api/SOA/home/checkin"


async def sell(deployment: Deployment, worker, others, mail, settings):
    await deployment.stock(MUG=10, KETTLE=1000, GRINDER=9, SCALES=5, TAMPER=5, VASE=4)
    await deployment.send(CUSTOMERS, customer("shipped", "gold"), customer("paid", "amber"), customer("dear", "silver"))
    for n in range(6):
        await order(deployment, worker, f"mug-{n}", product="MUG", quantity=2)  # the last one fails: no stock is left
    await order(deployment, worker, "grinder", product="GRINDER")
    await order(deployment, worker, "scales", product="SCALES", quantity=5)
    await deployment.stock(SCALES=1)  # below the reserved quantity, which a warehouse may report
    await order(deployment, worker, "dear", product="KETTLE", quantity=50, price=60)
    await order(deployment, worker, "regret", product="VASE", quantity=2)
    assert (await deployment.repeated(worker, "DELETE", "/v1/orders/regret")).status == 200
    await deployment.stop(fraud(deployment))
    await order(deployment, worker, "none", product="KETTLE", quantity=0)
    await deployment.start("fraud", name="fraud", **settings)  # its verdict comes after the deadline
    await order(deployment, worker, "shipped", product="TAMPER", quantity=2)
    await order(deployment, worker, "paid", product="TAMPER")
    for number, (order_id, amount) in enumerate((("shipped", 1), ("shipped", 1), ("paid", 5))):
        await deployment.send(PAYMENTS, Payment(id=f"p{number}", order_id=order_id, ccy="EUR", amount=amount))
    # A check-in is rejected when fulfilment does not know its order in time.
    await deployment.caught_up(*CORE, "+".join(sorted(OTHER_SERVICES)))
    for order_id in ("shipped", "dear", "mug-0", "nowhere"):
        await check_in(deployment, others, order_id)
    await deployment.caught_up(*CORE, "+".join(sorted(OTHER_SERVICES)))
    await deployment.stop(fraud(deployment))
    await deployment.post(worker, id="open", customerId=7, product="KETTLE", quantity=1, price=1)
    await deployment.caught_up("orders", "inventory", "details", "+".join(sorted(OTHER_SERVICES)))
    await until(lambda: everything_is_done(deployment, worker, mail), "everything done")


def fraud(deployment: Deployment):
    return next(w for w in deployment.workers if w.settings.state_dir.name == "fraud")


async def change_products(deployment: Deployment, shop):
    """Adds a product, lowers its price sharply and withdraws it. Adds another product."""
    for method, path, body in (
        ("POST", "", {"code": "PRESS", "name": "Press", "price": 30}),
        ("PUT", "/PRESS", {"name": "French press", "price": 2}),
        ("DELETE", "/PRESS", None),
        ("POST", "", {"code": "FILTER", "name": "Filter", "price": 3}),
    ):

        async def taken(method=method, path=path, body=body):
            return (await deployment.ask(shop, method, f"/v1/products{path}", json=body)).status in {200, 201}

        await until(taken, "change")

    async def heard():
        tables = [table for _, table in SUBSCRIBERS.values()]
        rows = [await deployment.rows(table) for table in tables]
        logged = await deployment.rows(pending_of("product-log"))
        written = await deployment.rows(pending_of("product-notifications"))
        return (
            not logged
            and not written
            and all({c: row.version for c, row in t.items()} == {"PRESS": 3, "FILTER": 1} for t in rows)
        )

    await until(heard, "every subscriber has processed the changes")
    await deployment.caught_up("+".join(sorted(OTHER_SERVICES)))  # alerts are processed, too
    await until(heard, "every subscriber has processed the alerts")


def customer(order_id, level):
    said = {"first_name": "Franz", "last_name": "Kafka", "email": "franz@example.org", "address": "Praha"}
    return Customer(id=customer_of(order_id), level=level, **said)


def customer_of(order_id):
    return len(order_id) + ord(order_id[-1])


async def check_in(deployment: Deployment, others, order_id):
    body = {
        "orderNo": order_id,
        "internetNo": "1",
        "staffCode": "s",
        "jobStatus": "j",
        "checkinLatitude": 13.5,
        "checkinLongitude": 100.5,
        "checkinDate": "2021-03-18 10:13:43",
    }

    async def taken():
        return (await deployment.ask(others, "POST", CHECKIN_PATH, json=body)).status in {200, 201}

    await until(taken, "check-in")


async def everything_is_done(deployment: Deployment, worker, mail):
    """The order is shipped, two check-ins are rejected everywhere, and the e-mails are sent."""
    shown = await deployment.rows(CHECK_INS_VIEW)
    rejected = [c.status for row in shown.values() for c in row.check_ins].count("REJECTED")
    pending = [rows for name in ("email", "checkin") if (rows := await deployment.rows(pending_of(name)))]
    shipped = (await deployment.get(worker, "shipped"))[1]["state"] == "SHIPPED"
    return (
        shipped
        and rejected == 2
        and not pending
        and len(await deployment.values(ORDERS_ENRICHED)) == 2
        and len(list((mail / "new").iterdir())) == 4
        and (await deployment.rows(PROGRESS))["shipped"].state == "SHIPPED"
        and (await deployment.rows(PROGRESS))["regret"].state == "CANCELLED"
        and (await deployment.rows(STOCK))["TAMPER"].count == 3
        and (await deployment.rows(STOCK))["VASE"].reserved == 0
    )


def pending_of(service):
    return Table(f"{service}-effects", PendingSideEffect)


async def order(deployment: Deployment, worker, id_, **content):
    body = {"id": id_, "customerId": customer_of(id_), "quantity": 1, "price": 1, **content}
    assert (await deployment.post(worker, **body))[0] == 201
    return await deployment.outcome(worker, id_)
