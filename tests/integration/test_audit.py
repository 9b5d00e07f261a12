"""The audit on a real Kafka: nothing to find after a day's work, and each kind of violation once a topic holds it."""

import asyncio
import json
import secrets
import shutil
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email import message_from_bytes

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner
from pydantic import SecretStr

from ecosystem.audit import AuditError, Kind, audit
from ecosystem.audit.facts import SUBSCRIBERS, TOPICS, Source
from ecosystem.cli.main import main
from ecosystem.embedded.mail_server import MailSink
from ecosystem.services import CORE, DATABASES, NAMES
from fulfilment_service.state import PROGRESS
from portal_service.view import CHECK_INS_VIEW
from product_subscribers.monitoring.counts import ALL
from runtime.common.settings import Guarantee
from runtime.data_loss.losses import Loss, LossCause, LossPath
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.topics import ensure_topics
from runtime.model.dead_letters import LOST_UNTIL, dead_letter
from runtime.model.records import Record
from runtime.model.service import PendingSideEffect, Table
from schemas.api import CheckinState
from schemas.messages import (
    CheckinRejected,
    CheckType,
    Customer,
    OrderEnriched,
    OrderState,
    Payment,
    StockLevel,
    ValidationResult,
)
from schemas.payments import PaymentTotals
from schemas.topics import CUSTOMERS, ORDER_VALIDATIONS, ORDERS_ENRICHED, PAYMENTS, WAREHOUSE_INVENTORY
from tests import topics
from tests.workers import Deployment, until
from validators.inventory.state import STOCK

FRAUD = CheckType.FRAUD_CHECK
AROUND = tuple(name for name in NAMES if name not in CORE)
AT_ONCE = timedelta(0)
PATIENCE = timedelta(seconds=2)
WINDOW = timedelta(minutes=30)
"""In which orders, payments and customers come: longer than the day takes."""
CHECKIN_PATH = "/api/SOA/home/checkin"


@pytest.fixture(scope="module")
async def day(kafka, tmp_path_factory, databases, mail):
    """What services apart wrote in a day: orders that passed, failed in every way, came late, were shipped, or are
    still open; check-ins that count, and such that do not; letters."""
    with MailSink(mail) as sink:
        async with Deployment(kafka, f"t-{secrets.token_hex(4)}-", tmp_path_factory.mktemp("day")) as deployment:
            settings = {
                "validation_deadline_s": 3600,  # such that the order that is open stays so while the tests last
                "smtp_port": sink.port,
                **databases,
                "checkin_patience_s": PATIENCE.total_seconds(),
                "email_window_s": WINDOW.total_seconds(),
                "product_notifications_to": ",".join(topics.NOTIFIED),
            }
            [worker] = await deployment.start_core(apart=True, **settings)
            around = await deployment.start(*AROUND, name="around", **settings)
            await business(deployment, worker, around, mail, settings)
            await changes(deployment, around)
            for each in list(deployment.workers):
                await deployment.stop(each)
            yield await topics.read(deployment)


@pytest.fixture(scope="module")
def databases(postgres):
    """URLs, by the names of the settings."""
    names = {url.lower(): f"t_audit_{service.replace('-', '_')}" for service, url in DATABASES.items()}
    yield {setting: postgres.database(name) for setting, name in names.items()}
    for name in names.values():
        postgres.drop(name)


@pytest.fixture(scope="module")
def mail(tmp_path_factory):
    """The letters of the day."""
    return tmp_path_factory.mktemp("letters") / "mail"


async def business(deployment, worker, around, mail, settings):
    await deployment.stock(MUG=10, KETTLE=1000, GRINDER=9, SCALES=5, TAMPER=5)
    await deployment.send(CUSTOMERS, customer("shipped", "gold"), customer("paid", "amber"), customer("dear", "silver"))
    for n in range(6):
        await order(deployment, worker, f"mug-{n}", product="MUG", quantity=2)  # the last one finds none left
    await order(deployment, worker, "grinder", product="GRINDER")
    await order(deployment, worker, "scales", product="SCALES", quantity=5)
    await deployment.stock(SCALES=1)  # below what is reserved: the warehouse's right
    await order(deployment, worker, "dear", product="KETTLE", quantity=50, price=60)
    await deployment.stop(fraud(deployment))
    await order(deployment, worker, "none", product="KETTLE", quantity=0)
    await deployment.start("fraud", name="fraud", **settings)  # its verdict comes late
    await order(deployment, worker, "shipped", product="TAMPER", quantity=2)
    await order(deployment, worker, "paid", product="TAMPER")
    for number, (order_id, amount) in enumerate((("shipped", 1), ("shipped", 1), ("paid", 5))):
        await deployment.send(PAYMENTS, Payment(id=f"p{number}", order_id=order_id, ccy="EUR", amount=amount))
    # An order that fulfilment did not know in time would be none.
    await deployment.caught_up("orders", "fraud", "inventory", "details", "+".join(sorted(AROUND)))
    for order_id in ("shipped", "dear", "mug-0", "nowhere"):
        await check_in(deployment, around, order_id)
    await deployment.caught_up("orders", "fraud", "inventory", "details", "+".join(sorted(AROUND)))
    await deployment.stop(fraud(deployment))
    await deployment.post(worker, id="open", customerId=7, product="KETTLE", quantity=1, price=1)
    await deployment.caught_up("orders", "inventory", "details", "+".join(sorted(AROUND)))
    await until(lambda: all_is_done(deployment, worker, mail), "what follows has come")


def fraud(deployment):
    return next(w for w in deployment.workers if w.settings.state_dir.name == "fraud")


async def changes(deployment, shop):
    """A product that is offered, becomes cheap all of a sudden, and is withdrawn; and another one."""
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

    await until(heard, "everybody has heard")
    await deployment.caught_up("+".join(sorted(AROUND)))  # alerts are heard of, too
    await until(heard, "and done what follows")


def customer(order_id, level):
    said = {"first_name": "Franz", "last_name": "Kafka", "email": "franz@example.org", "address": "Praha"}
    return Customer(id=customer_of(order_id), level=level, **said)


def customer_of(order_id):
    return len(order_id) + ord(order_id[-1])


async def check_in(deployment, around, order_id):
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
        return (await deployment.ask(around, "POST", CHECKIN_PATH, json=body)).status in {200, 201}

    await until(taken, "check-in")


async def all_is_done(deployment, worker, mail):
    """The order is shipped, two check-ins are rejected everywhere, and the letters have gone out."""
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
        and (await deployment.rows(STOCK))["TAMPER"].count == 3
    )


def pending_of(service):
    return Table(f"{service}-effects", PendingSideEffect)


async def order(deployment, worker, id_, **content):
    body = {"id": id_, "customerId": customer_of(id_), "quantity": 1, "price": 1, **content}
    assert (await deployment.post(worker, **body))[0] == 201
    return await deployment.outcome(worker, id_)


async def written(kafka, logs, **settings):
    """Settings that lead to a copy of the topics."""
    own = {
        "checkin_patience_s": PATIENCE.total_seconds(),
        "email_window_s": WINDOW.total_seconds(),
        "product_notifications_to": topics.NOTIFIED,
    }
    settings = {**own, **settings}
    return (await topics.write(kafka, logs.records, TOPICS.values())).model_copy(update=settings)


def secret(databases):
    return {name: SecretStr(url) for name, url in databases.items()}


async def test_a_day_is_found_sound(kafka, day, databases, mail):
    settings = await written(kafka, day, **secret(databases))
    report = await audit(settings, grace=AT_ONCE, mail=mail)

    assert report.violations == []
    wanted = {
        "orders": 13,
        "VALIDATED": 9,
        "FAILED": 3,
        "SHIPPED": 1,
        "open": 1,
        "products": 5,
        "reserved": 10 + 1 + 5 + 1 + 1,
        "check-ins": 4,
        "check-ins kept": 4,
        "check-ins rejected": 2,
        "enriched": 2,
        "letters": 4,
        "letters delivered": 4,
        "changes": 4,
        "products kept": 2,
        "changes logged": 4,
        "alerts": 1,
        "notices": 5,
        "notices delivered": 5,
    }
    assert {name: report.counts[name] for name in wanted} == wanted
    assert report.counts["late verdicts"] >= 1
    assert not report.counts["unchecked products"]
    assert (report.open, report.missing, report.absent, report.unasked) == (1, (), (), ())


def stuck(logs):
    [timer] = logs.of(Source.TIMERS, "open")[-1:]
    logs.change(timer, at=datetime.now(UTC) - timedelta(minutes=10))


def stuck_without_a_timer(logs):
    logs.drop(*logs.of(Source.TIMERS, "open"))


def never_seen(logs):
    post = topics.kept(Source.ORDERS, "lost", post_of(logs, "open").message.model_copy(update={"id": "lost"}), 1)
    logs.add(post)


def two_finals(logs):
    logs.add(final_of(logs, "grinder").saying(state=OrderState.FAILED))


def shipped_though_failed(logs):
    logs.add(final_of(logs, "dear").saying(state=OrderState.SHIPPED))


def view_changed_back(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.add(row.saying(order=post_of(logs, "grinder").message), row)


def announced_twice(logs):
    logs.add(final_of(logs, "grinder"))


def never_posted(logs):
    final = final_of(logs, "grinder").message.model_copy(update={"id": "ghost"})
    logs.add(topics.kept(Source.ORDERS, "ghost", final, 1))


def decided_before_it_was_posted(logs):
    post = post_of(logs, "grinder")
    logs.drop(post)
    logs.add(post)


def content_differs(logs):
    logs.change(final_of(logs, "grinder"), quantity=3)


def check_missing(logs):
    for verdict in logs.of(Source.VERDICTS, "grinder"):
        if verdict.message.check_type is FRAUD:
            logs.drop(verdict)
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.change(row, verdicts=tuple(v for v in row.message.verdicts if v.check_type is not FRAUD))


def validated_against(result):
    return lambda logs: judge_anew(logs, "grinder", result)


def failed_without_reason(logs):
    judge_anew(logs, "dear", ValidationResult.PASS)


def failed_too_early(logs):
    """Its deadline is named, but it was not up."""
    [verdict] = [v for v in logs.of(Source.VERDICTS, "dear") if v.message.check_type is FRAUD]
    logs.drop(verdict)
    [row] = logs.of(Source.VIEW, "dear")[-1:]
    heard = tuple(v for v in row.message.verdicts if v.check_type is not FRAUD)
    missing = [check for check in CheckType if check not in {v.check_type for v in heard}]
    logs.change(row, verdicts=heard, reasons=tuple(f"{check}: no verdict within 60 s" for check in missing))


def contradiction(logs):
    [verdict] = [v for v in logs.of(Source.VERDICTS, "grinder") if v.message.check_type is FRAUD]
    logs.add(verdict.saying(validation_result=ValidationResult.FAIL))


def view_of_another_content(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.change(row, order=row.message.order.model_copy(update={"quantity": 3}))


def view_of_another_state(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.change(row, order=row.message.order.model_copy(update={"state": OrderState.FAILED}))


def not_in_the_view(logs):
    logs.drop(*logs.of(Source.VIEW, "grinder"))


def verdict_only_in_the_view(logs):
    logs.drop(*[v for v in logs.of(Source.VERDICTS, "grinder") if v.message.check_type is FRAUD])


def shipped_holds(logs):
    """Neither reservation nor stock know of it."""
    logs.drop(logs.of(Source.RESERVATIONS, "shipped")[-1], logs.of(Source.STOCK, "TAMPER")[-1])


def not_announced(logs):
    logs.drop(final_of(logs, "grinder"))


def holds_another_quantity(logs):
    logs.change(logs.of(Source.RESERVATIONS, "grinder")[0], held=2)
    logs.change(logs.of(Source.STOCK, "GRINDER")[-1], reserved=2)


def reserved_never_posted(logs):
    row = logs.of(Source.RESERVATIONS, "none")[-1].message
    logs.add(topics.kept(Source.RESERVATIONS, "ghost", row, 1, by="KETTLE"))


def failed_holds(logs):
    """Never given back: neither by the reservation nor by the stock, which agree."""
    logs.drop(logs.of(Source.RESERVATIONS, "dear")[-1])
    for row in logs.of(Source.STOCK, "KETTLE")[2:]:
        logs.change(row, reserved=row.message.reserved + 50)


def validated_holds_nothing(logs):
    logs.drop(logs.of(Source.RESERVATIONS, "grinder")[-1], logs.of(Source.STOCK, "GRINDER")[-1])


def taken_twice(logs):
    taken, given_back = logs.of(Source.RESERVATIONS, "dear")
    logs.add(taken, given_back)


def taken_twice_in_a_row(logs):
    logs.add(logs.of(Source.RESERVATIONS, "grinder")[-1])


def given_back_twice(logs):
    logs.add(logs.of(Source.RESERVATIONS, "dear")[-1])


def given_back_twice_by_the_stock(logs):
    [row] = logs.of(Source.STOCK, "SCALES")[-1:]
    logs.add(row.saying(reserved=0))


def wrong_for_a_while(logs):
    [row] = logs.of(Source.STOCK, "MUG")[-1:]
    logs.add(row.saying(reserved=5), row)


def oversold(logs):
    for record in [*logs.of(Source.WAREHOUSE, "GRINDER"), *logs.of(Source.STOCK, "GRINDER")]:
        logs.change(record, count=0)


def negative(logs):
    [row] = logs.of(Source.STOCK, "GRINDER")[-1:]
    logs.add(row.saying(reserved=-1))


def unreadable(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.records.insert(0, topics.Kept(row.topic, row.partition, row.time_ms, row.key, b"{"))


def stock_not_reduced(logs):
    logs.change(logs.of(Source.STOCK, "TAMPER")[-1], count=6)


def fulfilled_twice(logs):
    logs.add(*logs.of(Source.FULFILMENTS, "shipped"))


def shipped_by_nobody(logs):
    logs.drop(*logs.of(Source.FULFILMENTS, "shipped"))
    logs.change(logs.of(Source.PROGRESS, "shipped")[-1], fulfilled=False)


def shipped_without_a_check_in(logs):
    logs.drop(*logs.of(Source.CHECK_INS, "shipped"))
    logs.change(logs.of(Source.PROGRESS, "shipped")[-1], checked_in=False)


def shipped_without_enough(logs):
    [payment] = logs.of(Source.PAYMENTS, "p0")
    logs.drop(payment)
    logs.change(logs.of(Source.PROGRESS, "shipped")[-1], received=PaymentTotals().plus(payment.message, "EUR"))


def shipped_for_another_currency(logs):
    """It is as if fulfilment had taken one for the other."""
    [payment] = logs.of(Source.PAYMENTS, "p0")
    logs.change(payment, ccy="IDR")


def confirmed_too_early(logs):
    """Before it was paid in full, to which it never came."""
    [payment] = logs.of(Source.PAYMENTS, "p2")
    part = payment.message.model_copy(update={"amount": Decimal("0.5")})
    logs.change(payment, amount=part.amount)
    logs.change(logs.of(Source.PROGRESS, "paid")[-1], received=PaymentTotals().plus(part, "EUR"))


def never_fulfilled(logs):
    """What it takes has happened, and fulfilment knows it."""
    [check_in] = logs.of(Source.CHECK_INS, "mug-0")
    logs.add(topics.kept(Source.CHECK_INS, "paid", copy(check_in, order_no="paid", event_id="c"), check_in.time_ms))
    logs.change(logs.of(Source.PROGRESS, "paid")[-1], checked_in=True)
    [shown] = logs.of(Source.PORTAL, "mug-0")[-1:]
    of_other = tuple(c.model_copy(update={"event_id": "c"}) for c in shown.message.check_ins)
    row = copy(shown, order_no="paid", check_ins=of_other)
    logs.add(topics.kept(Source.PORTAL, "paid", row, shown.time_ms))


def never_shipped(logs):
    """It is as if the orders service had not heard that it is fulfilled."""
    last = (Source.ORDERS, Source.VIEW, Source.RESERVATIONS, Source.PROGRESS)
    logs.drop(*[logs.of(source, "shipped")[-1] for source in last], logs.of(Source.STOCK, "TAMPER")[-1])
    logs.drop(*logs.of(Source.LETTERS, "shipped/shipped"))


def payment_not_in_the_row(logs):
    [payment] = logs.of(Source.PAYMENTS, "p0")
    logs.change(logs.of(Source.PROGRESS, "shipped")[-1], received=PaymentTotals().plus(payment.message, "EUR"))


def no_row_of_a_payment(logs):
    logs.drop(*logs.of(Source.PROGRESS, "paid"))


def announced_otherwise(logs):
    [check_in] = logs.of(Source.CHECK_INS, "mug-0")
    logs.add(check_in.saying(staff_code="another"))


def not_rejected(order_id):
    def doctor(logs):
        logs.drop(*logs.of(Source.REJECTIONS, order_id))
        [row] = logs.of(Source.PORTAL, order_id)[-1:]
        told = {"status": CheckinState.CREATED}
        logs.change(row, check_ins=tuple(c.model_copy(update=told) for c in row.message.check_ins))

    return doctor


def rejected_twice(logs):
    logs.add(*logs.of(Source.REJECTIONS, "nowhere"))


def rejected_wrongly(logs):
    [check_in] = logs.of(Source.CHECK_INS, "mug-0")
    reject(logs, "mug-0", check_in.message.event_id)


def rejected_unknown(logs):
    reject(logs, "dear", "never-made")


def reject(logs, order_id, event_id):
    rejection = CheckinRejected(event_id=event_id, order_no=order_id, reason="the order has failed")
    at_ms = post_of(logs, order_id).time_ms + 60_000
    logs.add(topics.kept(Source.REJECTIONS, order_id, rejection, at_ms))
    [row] = logs.of(Source.PORTAL, order_id)[-1:]
    told = {"status": CheckinState.REJECTED}
    check_ins = tuple(c.model_copy(update=told) if c.event_id == event_id else c for c in row.message.check_ins)
    logs.change(row, check_ins=check_ins)


def not_at_the_portal(logs):
    logs.drop(*logs.of(Source.PORTAL, "mug-0"))


def not_enriched(logs):
    logs.drop(*logs.of(Source.ENRICHED, "paid"), *logs.of(Source.BRONZE, "paid"))


def enriched_twice(logs):
    logs.add(*logs.of(Source.ENRICHED, "paid"))


def enriched_though_failed(logs):
    enriched = OrderEnriched(id="dear", customer_id=customer_of("dear"), customer_level="silver")
    logs.add(topics.kept(Source.ENRICHED, "dear", enriched, post_of(logs, "dear").time_ms))


def enriched_with_another_customer(logs):
    logs.change(logs.of(Source.ENRICHED, "paid")[0], customer_id=customer_of("dear"))


def level_of_another_topic(logs):
    [gold] = logs.of(Source.GOLD, "shipped")
    logs.drop(gold)
    logs.add(topics.kept(Source.SILVER, "shipped", gold.message, gold.time_ms))


def level_topic_twice(logs):
    logs.add(*logs.of(Source.GOLD, "shipped"))


def level_topic_never(logs):
    logs.drop(*logs.of(Source.GOLD, "shipped"))


def level_of_nobody(logs):
    for source in (Source.GOLD, Source.ENRICHED):
        logs.change(logs.of(source, "shipped")[0], customer_level="platinum")
    [customer] = logs.of(Source.CUSTOMERS, str(customer_of("shipped")))
    long_ago = topics.Kept(
        customer.topic, customer.partition, customer.time_ms - 3_600_000, customer.key, customer.value
    )
    logs.records[logs.records.index(customer)] = long_ago
    [gold] = logs.of(Source.GOLD, "shipped")
    logs.drop(gold)
    logs.add(topics.kept(Source.PLATINUM, "shipped", gold.message, gold.time_ms))


def letter_missing(kind, order_id):
    return lambda logs: logs.drop(*logs.of(Source.LETTERS, f"{order_id}/{kind}"))


def letter_twice(logs):
    logs.add(*logs.of(Source.LETTERS, "dear/failed"))


def letter_of_another_state(logs):
    rows = logs.of(Source.LETTERS, "dear/failed")
    logs.add(*[topics.kept(Source.LETTERS, "paid/failed", row.message, row.time_ms) for row in rows])


def change_missing(logs):
    change = logs.of(Source.CHANGES, "PRESS")[1]
    logs.drop(change, *notices_of(logs, change))
    [totals] = logs.of(Source.TOTALS, ALL)[-1:]
    logs.change(totals, updated=totals.message.updated - 1, gaps=1)


def change_again_as_it_was_not(logs):
    logs.add(logs.of(Source.CHANGES, "FILTER")[0].saying(price=1))


def not_heard(logs):
    logs.drop(*logs.of(Source.IN_DETAILS, "FILTER"))


def alert_twice(logs):
    logs.add(*logs.of(Source.ALERTS, "PRESS"))


def alert_missing(logs):
    [alert] = logs.of(Source.ALERTS, "PRESS")
    logs.drop(alert, *notices_of(logs, alert))


def totals_differ(logs):
    [totals] = logs.of(Source.TOTALS, ALL)[-1:]
    logs.change(totals, updated=totals.message.updated + 1)


def notices_of(logs, event):
    """What there is of the letters about a change or an alert."""
    id_ = event.message.event_id.encode()
    return [r for r in logs.records if r.topic == TOPICS[Source.NOTICES] and r.key.startswith(id_)]


def notice_missing(logs):
    [alert] = logs.of(Source.ALERTS, "PRESS")
    logs.drop(*notices_of(logs, alert))
    return alert.message.event_id


def notice_twice(logs):
    [change] = logs.of(Source.CHANGES, "FILTER")
    logs.add(*notices_of(logs, change))
    return change.message.event_id


def notice_wrong(logs):
    [change] = logs.of(Source.CHANGES, "FILTER")
    key = f"none/{topics.NOTIFIED[0]}"
    logs.add(*[topics.kept(Source.NOTICES, key, row.message, row.time_ms) for row in notices_of(logs, change)])
    return "none"


def copy(record, **changes):
    return record.message.model_copy(update=changes)


def post_of(logs, id_):
    return logs.of(Source.ORDERS, id_)[0]


def final_of(logs, id_):
    return logs.of(Source.ORDERS, id_)[-1]


def judge_anew(logs, id_, result):
    """Fraud says something else, and is heard to."""
    [verdict] = [v for v in logs.of(Source.VERDICTS, id_) if v.message.check_type is FRAUD]
    logs.change(verdict, validation_result=result, reason=None)
    [row] = logs.of(Source.VIEW, id_)[-1:]
    heard = [
        v.model_copy(update={"validation_result": result, "reason": None}) if v.check_type is FRAUD else v
        for v in row.message.verdicts
    ]
    logs.change(row, verdicts=tuple(heard))


DOCTORED = [
    (stuck, "open", {Kind.STUCK}),
    (stuck_without_a_timer, "open", {Kind.STUCK}),
    (never_seen, "lost", {Kind.STUCK}),
    (two_finals, "grinder", {Kind.TWO_FINALS}),
    (shipped_though_failed, "dear", {Kind.CHANGED_BACK}),
    (view_changed_back, "grinder", {Kind.CHANGED_BACK}),
    (announced_twice, "grinder", {Kind.ANNOUNCED_TWICE}),
    (never_posted, "ghost", {Kind.NEVER_POSTED}),
    (decided_before_it_was_posted, "grinder", {Kind.NEVER_POSTED}),
    (content_differs, "grinder", {Kind.CONTENT_DIFFERS}),
    (check_missing, "grinder", {Kind.VALIDATED_WITHOUT}),
    (validated_against(ValidationResult.FAIL), "grinder", {Kind.VALIDATED_WITHOUT}),
    (validated_against(ValidationResult.ERROR), "grinder", {Kind.VALIDATED_WITHOUT}),
    (failed_without_reason, "dear", {Kind.FAILED_WITHOUT_REASON}),
    (failed_too_early, "dear", {Kind.FAILED_WITHOUT_REASON}),
    (contradiction, "grinder", {Kind.CONTRADICTION}),
    (view_of_another_content, "grinder", {Kind.VIEW_DIFFERS}),
    (view_of_another_state, "grinder", {Kind.VIEW_DIFFERS}),
    (not_in_the_view, "grinder", {Kind.VIEW_DIFFERS}),
    (verdict_only_in_the_view, "grinder", {Kind.VIEW_DIFFERS}),
    (not_announced, "grinder", {Kind.NOT_ANNOUNCED}),
    (holds_another_quantity, "grinder", {Kind.RESERVATION_DIFFERS}),
    (reserved_never_posted, "ghost", {Kind.RESERVED_NEVER_POSTED}),
    (failed_holds, "dear", {Kind.FAILED_HOLDS}),
    (shipped_holds, "shipped", {Kind.SHIPPED_HOLDS}),
    (validated_holds_nothing, "grinder", {Kind.VALIDATED_HOLDS_NOTHING}),
    (taken_twice, "dear", {Kind.TAKEN_TWICE}),
    (taken_twice_in_a_row, "grinder", {Kind.TAKEN_TWICE}),
    (given_back_twice, "dear", {Kind.GIVEN_BACK_TWICE}),
    (given_back_twice_by_the_stock, "SCALES", {Kind.SUM_DIFFERS}),
    (wrong_for_a_while, "MUG", {Kind.SUM_DIFFERS}),
    (oversold, "GRINDER", {Kind.OVERSOLD}),
    (negative, "GRINDER", {Kind.NEGATIVE, Kind.SUM_DIFFERS}),
    (unreadable, "grinder", {Kind.UNREADABLE_ROW}),
]
DOCTORED_AROUND = [
    (stock_not_reduced, "TAMPER", {Kind.COUNT_DIFFERS}),
    (fulfilled_twice, "shipped", {Kind.FULFILLED_TWICE}),
    (shipped_by_nobody, "shipped", {Kind.SHIPPED_WITHOUT}),
    (shipped_without_a_check_in, "shipped", {Kind.SHIPPED_WITHOUT}),
    (shipped_without_enough, "shipped", {Kind.SHIPPED_WITHOUT, Kind.CONFIRMED_UNPAID}),
    (
        shipped_for_another_currency,
        "shipped",
        {Kind.SHIPPED_WITHOUT, Kind.CONFIRMED_UNPAID, Kind.PROGRESS_DIFFERS},
    ),
    (confirmed_too_early, "paid", {Kind.CONFIRMED_UNPAID}),
    (never_fulfilled, "paid", {Kind.NOT_FULFILLED}),
    (never_shipped, "shipped", {Kind.NOT_SHIPPED}),
    (payment_not_in_the_row, "shipped", {Kind.PROGRESS_DIFFERS}),
    (no_row_of_a_payment, "paid", {Kind.PROGRESS_DIFFERS}),
    (announced_otherwise, "mug-0", {Kind.CHECKIN_DIFFERS}),
    (not_rejected("dear"), "dear", {Kind.NOT_REJECTED}),
    (not_rejected("nowhere"), "nowhere", {Kind.NOT_REJECTED}),
    (rejected_twice, "nowhere", {Kind.REJECTED_TWICE}),
    (rejected_wrongly, "mug-0", {Kind.REJECTED_WRONGLY}),
    (rejected_unknown, "dear", {Kind.REJECTED_WRONGLY}),
    (not_at_the_portal, "mug-0", {Kind.PORTAL_DIFFERS}),
    (not_enriched, "paid", {Kind.NOT_ENRICHED}),
    (enriched_twice, "paid", {Kind.ENRICHED_TWICE}),
    (enriched_though_failed, "dear", {Kind.ENRICHED_WRONGLY}),
    (enriched_with_another_customer, "paid", {Kind.ENRICHED_WRONGLY}),
    (level_of_another_topic, "shipped", {Kind.LEVEL_DIFFERS}),
    (level_topic_twice, "shipped", {Kind.LEVEL_DIFFERS}),
    (level_topic_never, "shipped", {Kind.LEVEL_DIFFERS}),
    (level_of_nobody, "shipped", {Kind.LEVEL_DIFFERS}),
    (letter_missing("validated", "paid"), "paid", {Kind.LETTER_MISSING}),
    (letter_missing("failed", "dear"), "dear", {Kind.LETTER_MISSING}),
    (letter_missing("shipped", "shipped"), "shipped", {Kind.LETTER_MISSING}),
    (letter_twice, "dear", {Kind.LETTER_TWICE}),
    (letter_of_another_state, "paid", {Kind.LETTER_WRONG}),
    (change_missing, "PRESS", {Kind.VERSIONS_DIFFER, Kind.ALERT_DIFFERS}),
    (change_again_as_it_was_not, "FILTER", {Kind.CHANGE_DIFFERS}),
    (not_heard, "FILTER", {Kind.SUBSCRIBER_DIFFERS}),
    (alert_twice, "PRESS", {Kind.ALERT_TWICE}),
    (alert_missing, "PRESS", {Kind.ALERT_DIFFERS}),
    (totals_differ, ALL, {Kind.TOTALS_DIFFER}),
]
ABOUT_EVENTS = [
    (notice_missing, Kind.NOTICE_MISSING),
    (notice_twice, Kind.NOTICE_TWICE),
    (notice_wrong, Kind.NOTICE_WRONG),
]


@pytest.mark.parametrize(("doctor", "subject", "kinds"), DOCTORED, ids=[d[0].__name__ for d in DOCTORED])
async def test_each_kind_of_violation_is_found_and_no_other(kafka, day, doctor, subject, kinds):
    logs = day.copy()
    doctor(logs)

    report = await audit(await topics.write(kafka, logs.records), grace=AT_ONCE)

    assert {v.kind: v.subject for v in report.violations} == dict.fromkeys(kinds, subject), report.violations
    assert all(v.records for v in report.violations)


async def test_a_day_read_without_a_broker_is_as_sound(day):
    report = await topics.judged(day, patience=PATIENCE, window=WINDOW)
    assert report.violations == []
    assert report.counts["SHIPPED"] == 1


@pytest.mark.parametrize(("doctor", "subject", "kinds"), DOCTORED_AROUND, ids=[d[0].__name__ for d in DOCTORED_AROUND])
async def test_each_kind_around_the_core_is_found_and_no_other(day, doctor, subject, kinds):
    logs = day.copy()
    doctor(logs)

    report = await topics.judged(logs, patience=PATIENCE, window=WINDOW)

    assert {v.kind: v.subject for v in report.violations} == dict.fromkeys(kinds, subject), report.violations
    assert all(v.records for v in report.violations)


@pytest.mark.parametrize(("doctor", "kind"), ABOUT_EVENTS, ids=[d[0].__name__ for d in ABOUT_EVENTS])
async def test_each_kind_of_letters_about_products_is_found_and_no_other(day, doctor, kind):
    logs = day.copy()
    subject = doctor(logs)

    report = await topics.judged(logs, patience=PATIENCE, window=WINDOW)

    assert [(v.kind, v.subject) for v in report.violations] == [(kind, subject)]
    assert all(v.records for v in report.violations)


def check_in_lost(logs):
    logs.drop(*logs.of(Source.CHECK_INS, "mug-0"))


def check_in_of_no_row(logs):
    [check_in] = logs.of(Source.CHECK_INS, "mug-0")
    logs.add(topics.kept(Source.CHECK_INS, "mug-0", copy(check_in, event_id="c"), check_in.time_ms))
    [shown] = logs.of(Source.PORTAL, "mug-0")[-1:]
    also = tuple(c.model_copy(update={"event_id": "c"}) for c in shown.message.check_ins)
    logs.change(shown, check_ins=shown.message.check_ins + also)


def change_lost(logs):
    """Nobody has heard of it."""
    [change] = logs.of(Source.CHANGES, "FILTER")
    logs.drop(change, *notices_of(logs, change))
    [totals] = logs.of(Source.TOTALS, ALL)[-1:]
    logs.change(totals, created=totals.message.created - 1, on_offer=totals.message.on_offer - 1)
    for source in SUBSCRIBERS:
        logs.drop(*logs.of(source, "FILTER"))


STATUS = "UPDATE check_ins SET status = '{}' WHERE order_no = '{}'"
STAFF = "UPDATE check_ins SET staff_code = '{}' WHERE order_no = '{}'"
PUBLISHED = (
    "UPDATE outbox SET published_at = {} FROM check_ins WHERE outbox.event_id = check_ins.event_id AND order_no = '{}'"
)
WITH_DATABASE = [
    (check_in_lost, (), "mug-0", {Kind.CHECKIN_LOST}, "marked as published"),
    (
        check_in_lost,
        (PUBLISHED.format("NULL", "mug-0"), PUBLISHED.format("now()", "mug-0")),
        "mug-0",
        {Kind.CHECKIN_LOST},
        "waits in the outbox",
    ),
    (check_in_of_no_row, (), "mug-0", {Kind.CHECKIN_UNKNOWN}, "does not have it"),
    (
        None,
        (STATUS.format("CREATED", "dear"), STATUS.format("REJECTED", "dear")),
        "dear",
        {Kind.CHECKIN_STATUS},
        "was rejected, and",
    ),
    (
        None,
        (STATUS.format("REJECTED", "shipped"), STATUS.format("CREATED", "shipped")),
        "shipped",
        {Kind.CHECKIN_STATUS},
        "which nobody said",
    ),
    (None, (STAFF.format("x", "dear"), STAFF.format("s", "dear")), "dear", {Kind.CHECKIN_DIFFERS}, "otherwise"),
]


PRICE = "UPDATE products SET price = {} WHERE code = 'FILTER'"
VERSION = "UPDATE products SET version = {} WHERE code = 'FILTER'"
LOGGED = (
    "ALTER TABLE product_log DISABLE TRIGGER append_only; UPDATE product_log SET price = {} WHERE code = 'FILTER'; "
    "ALTER TABLE product_log ENABLE ALWAYS TRIGGER append_only"
)
WITH_PRODUCTS = [
    ("products", change_lost, (), {Kind.CHANGE_LOST}, "marked as published"),
    ("products", None, (VERSION.format(0), VERSION.format(1)), {Kind.CHANGE_UNKNOWN}, "the database has 0"),
    ("products", None, (PRICE.format(1), PRICE.format(3)), {Kind.CHANGE_DIFFERS}, "otherwise"),
    ("product_log", None, (LOGGED.format(1), LOGGED.format(3)), {Kind.LOG_DIFFERS}, "otherwise in the log"),
]


@pytest.mark.parametrize(("doctor", "changes", "subject", "kinds", "says"), WITH_DATABASE)
async def test_what_the_database_has_is_compared(kafka, day, databases, doctor, changes, subject, kinds, says):
    await compared(kafka, day, databases, "checkin", doctor, changes, subject, kinds, says)


@pytest.mark.parametrize(("service", "doctor", "changes", "kinds", "says"), WITH_PRODUCTS)
async def test_what_the_databases_of_products_have_is_compared(
    kafka, day, databases, service, doctor, changes, kinds, says
):
    await compared(kafka, day, databases, service, doctor, changes, "FILTER", kinds, says)


async def compared(kafka, day, databases, service, doctor, changes, subject, kinds, says):
    logs, name = day.copy(), f"{service}_database_url"
    if doctor:
        doctor(logs)
    settings = await written(kafka, logs, **secret({name: databases[name]}))
    connection = await asyncpg.connect(databases[name])
    try:
        for change in changes[:1]:
            await connection.execute(change)
        report = await audit(settings, grace=AT_ONCE)
        for undone in changes[1:]:
            await connection.execute(undone)
    finally:
        await connection.close()

    assert {v.kind: v.subject for v in report.violations} == dict.fromkeys(kinds, subject), report.violations
    assert says in report.violations[0].says


async def test_a_letter_that_was_not_delivered_is_missed_and_one_that_came_twice_is_counted(kafka, day, mail, tmp_path):
    settings = await written(kafka, day)
    shutil.copytree(mail, tmp_path / "mail")
    letters = {message_from_bytes(path.read_bytes())["Subject"]: path for path in (tmp_path / "mail/new").iterdir()}
    refused = letters["Your order dear could not be accepted"]
    shutil.copy2(refused, refused.with_name("again"))
    (tmp_path / "mail/new/other").write_text("Subject: Hello")

    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert report.violations == []
    counted = ("letters delivered", "letters delivered again", "letters of others")
    assert [report.counts[name] for name in counted] == [4, 1, 1]

    letters["Your order shipped is on its way"].unlink()
    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert [(v.kind, v.subject) for v in report.violations] == [(Kind.LETTER_LOST, "shipped")]


async def test_a_letter_about_a_product_that_was_not_delivered_is_missed(kafka, day, mail, tmp_path):
    settings = await written(kafka, day)
    shutil.copytree(mail, tmp_path / "mail")
    [change] = day.of(Source.CHANGES, "FILTER")
    about = {message_from_bytes(path.read_bytes())["X-Event-Id"]: path for path in (tmp_path / "mail/new").iterdir()}
    shutil.copy2(about[change.message.event_id], about[change.message.event_id].with_name("again"))
    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert (report.violations, report.counts["notices delivered again"]) == ([], 1)

    about[change.message.event_id].with_name("again").unlink()
    about[change.message.event_id].unlink()
    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert [(v.kind, v.subject) for v in report.violations] == [(Kind.NOTICE_LOST, change.message.event_id)]


async def test_what_others_write_among_the_dead_letters_of_emails_is_no_email(kafka, day):
    settings = await topics.write(kafka, day.records)
    junk = Record("", 0, 7, 0, b"dear/failed", b"{}", ())
    effects = ("email-effects", "product-notifications-effects")
    letters = [dead_letter(junk._replace(topic=topic), "email", "it is broken", datetime.now(UTC)) for topic in effects]
    await ensure_topics(settings, {letter.topic: {} for letter in letters})
    before = (await audit(settings, grace=AT_ONCE)).counts
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for letter in letters:
            for headers in (list(letter.headers), [], [("error", None)]):
                topic = settings.topic_prefix + letter.topic
                await producer.send_and_wait(topic, letter.value, letter.key, partition=0, headers=headers)

    report = await audit(settings, grace=AT_ONCE)

    assert report.violations == []
    assert report.counts["unreadable"] - before["unreadable"] == 6
    assert report.counts["letters refused"] == before["letters refused"]


async def test_records_that_were_lost_are_found_once_and_may_be_what_else_is_wrong_comes_from(kafka, day):
    logs = day.copy()
    stuck(logs)
    settings = await topics.write(kafka, logs.records)
    [order, *_] = logs.of(Source.ORDERS, "open")
    loss = Loss("order-validations", order.partition, 5, 9, LossPath.INPUT, LossCause.REMOVED)
    gone = dead_letter(loss.record(), "orders", loss.description, datetime.now(UTC))
    other = Record("order-validations", order.partition, 3, 0, b"k", b"v", ((LOST_UNTIL, b"4"),))
    await ensure_topics(settings, {gone.topic: {}})
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        # At least once it may be written again; and what somebody else wrote with that header is no range.
        for letter in (gone, gone, dead_letter(other, "orders", "it is broken", datetime.now(UTC))):
            topic, headers = settings.topic_prefix + letter.topic, list(letter.headers)
            await producer.send_and_wait(topic, letter.value, letter.key, partition=letter.partition, headers=headers)

    report = await audit(settings, grace=AT_ONCE)

    [lost, missed] = report.violations
    assert (lost.kind, lost.of, lost.subject) == (
        Kind.RECORDS_LOST,
        "partition",
        f"order-validations[{order.partition}]",
    )
    assert "records 5 to 8 were removed" in lost.says
    assert "4 offsets; noticed by orders" in lost.says
    assert (missed.kind, missed.subject) == (Kind.STUCK, "open")
    assert missed.says.endswith("records of its partition were lost, see records-lost")


def test_every_kind_is_tried():
    tried = {kind for _, _, kinds in DOCTORED + DOCTORED_AROUND for kind in kinds}
    tried |= {Kind.LETTER_LOST, Kind.NOTICE_LOST, Kind.RECORDS_LOST, *(kind for _, kind in ABOUT_EVENTS)}
    tried |= {Kind.UNREADABLE_RECORD}  # by tests/integration/test_unreadable.py, on a broker whose files are damaged
    tried |= {kind for *_, kinds, _ in [*WITH_DATABASE, *WITH_PRODUCTS] for kind in kinds}
    assert tried == set(Kind)


async def test_at_least_once_a_repeat_is_counted_and_another_state_is_not_forgiven(kafka, day):
    logs = day.copy()
    announced_twice(logs)
    report = await audit(await topics.write(kafka, logs.records), guarantee=Guarantee.AT_LEAST_ONCE)
    assert report.violations == []
    assert report.counts["announced again"] == 1

    two_finals(logs)
    report = await audit(await topics.write(kafka, logs.records), guarantee=Guarantee.AT_LEAST_ONCE)
    assert set(report.found) == {Kind.TWO_FINALS}


async def test_what_may_still_come_in_time_is_no_violation(kafka, day):
    logs = day.copy()
    failed_holds(logs)
    report = await audit(await topics.write(kafka, logs.records), grace=timedelta(hours=1))
    assert report.violations == []
    assert report.counts["giving back"] == 1
    assert report.open == 2


async def test_orders_of_before_are_not_judged_by_half_of_their_records(kafka, day):
    from_ms = post_of(day, "dear").time_ms
    logs = day.copy()
    two_finals(logs)  # of one from before
    failed_without_reason(logs)
    for record in logs.records:
        if record.time_ms < from_ms and record.topic == ORDER_VALIDATIONS.name:
            logs.drop(record)

    settings = await topics.write(kafka, logs.records)
    report = await audit(settings, since=datetime.fromtimestamp(from_ms / 1000, UTC))

    assert [(v.kind, v.subject) for v in report.violations] == [(Kind.FAILED_WITHOUT_REASON, "dear")]
    assert report.counts["orders"] == 5
    assert report.counts["began before"] > 0


async def test_an_open_transaction_is_waited_for(kafka, day):
    settings = await topics.write(kafka, day.records)
    writer = kafka_writer(settings)
    await writer.start()
    try:
        await writer.begin_transaction()
        await writer.send_and_wait(settings.topic_prefix + ORDER_VALIDATIONS.name, b"?", b"?", partition=0)
        with pytest.raises(AuditError, match="order-validations partition 0"):
            await audit(settings, patience=timedelta(seconds=5))
        waiting = asyncio.create_task(audit(settings))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await writer.abort_transaction()
        assert (await waiting).violations == []
    finally:
        await writer.stop()


async def test_what_is_written_in_one_transaction_is_seen_together(kafka, day, monkeypatch):
    """Its first record is there when the ends are looked for, its second one comes after that."""
    settings = await topics.write(kafka, day.records)
    looking = asyncio.Event()
    log_ends = aiokafka_internals.log_ends

    async def told(consumer, partitions, *, committed):
        if committed:  # the ends are found: it waits until they are stable
            looking.set()
        return await log_ends(consumer, partitions, committed=committed)

    monkeypatch.setattr(aiokafka_internals, "log_ends", told)
    logs = day.copy()
    final = final_of(logs, "open").saying(state=OrderState.FAILED)
    [row] = logs.of(Source.VIEW, "open")[-1:]
    row = row.saying(order=final.message)
    writer = kafka_writer(settings)
    await writer.start()
    try:
        await writer.begin_transaction()
        for first, record in ((True, final), (False, row)):
            name = settings.topic_prefix + record.topic
            await writer.send_and_wait(name, record.value, record.key, partition=record.partition)
            if first:
                waiting = asyncio.create_task(audit(settings))
                await looking.wait()
        await writer.commit_transaction()
        report = await waiting
    finally:
        await writer.stop()
    assert report.violations == []
    assert report.counts["moving"] == 1


async def test_while_orders_are_decided_nothing_is_mistaken_for_a_violation(deployment):
    workers = await deployment.start_core(apart=False, orders=2)
    await deployment.send(WAREHOUSE_INVENTORY, *[StockLevel(product=f"P{n}", count=300) for n in range(3)])
    stop = asyncio.Event()

    async def client(number):
        count = 0
        while not stop.is_set():
            body = {"customerId": count, "product": f"P{count % 3}", "quantity": count % 3, "price": count % 5 * 500}
            status, _ = await deployment.post(workers[count % 2], id=f"{number}-{count}", **body)
            assert status in {200, 201}
            count += 1
            await asyncio.sleep(0.05)
        return count

    kafka = [asyncio.create_task(client(number)) for number in range(4)]
    try:
        for _ in range(4):
            # With grace: a FAILED order's pieces may have to be given back by the other worker.
            report = await audit(deployment.settings())
            assert report.violations == []
    finally:
        stop.set()
        counts = await asyncio.gather(*kafka)
    await deployment.caught_up("details+fraud+inventory+orders")

    async def settled():
        report = await audit(deployment.settings(), grace=AT_ONCE)
        return report if report.open == 0 else None

    report = await until(settled, "nothing open")
    assert report.violations == []
    assert report.counts["orders"] == sum(counts)


async def test_the_command(kafka, day, monkeypatch):
    logs = day.copy()
    sound = await topics.write(kafka, logs.records)
    two_finals(logs)
    doctored = await topics.write(kafka, logs.records)

    async def run(*arguments, prefix):
        monkeypatch.setenv("TOPIC_PREFIX", prefix)
        return await asyncio.to_thread(CliRunner().invoke, main, ["audit", "--bootstrap", kafka, *arguments])

    result = await run(prefix=sound.topic_prefix)
    assert result.exit_code == 0
    assert "13  orders posted" in result.output
    assert "No violation." in result.output

    result = await run(prefix=doctored.topic_prefix)
    assert result.exit_code == 1
    assert "two-final-states  order grinder: VALIDATED and then FAILED" in result.output
    assert "1 violations: 1 two-final-states" in result.output

    result = await run("--json", prefix=doctored.topic_prefix)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["counts"]["orders"] == 13
    [violation] = found["violations"]
    assert violation["order"] == "grinder"
    assert [r["topic"] for r in violation["records"]] == ["orders", "orders"]
    assert violation["records"][1]["says"].startswith("FAILED customer")

    result = await run(prefix="t-nothing-")
    assert result.exit_code == 2
    assert "there is no topic 't-nothing-orders'" in result.output


def kafka_writer(settings):
    patient = settings.model_copy(update={"transaction_timeout_s": 600})
    return clients.transactional_producer(patient, f"{settings.topic_prefix}test-{time.time_ns()}")
