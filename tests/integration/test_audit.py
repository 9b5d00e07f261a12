"""The audit on a real Kafka: a sound day has no violation, and each violation written into its topics is found."""

import asyncio
import json
import secrets
import shutil
import time
from datetime import UTC, datetime, timedelta
from email import message_from_bytes

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner
from pydantic import SecretStr

from ecosystem.audit import AuditError, ViolationKind, audit
from ecosystem.audit.sources import TOPICS, Source
from ecosystem.cli.main import main
from ecosystem.embedded.mail_server import MailSink
from ecosystem.services import DATABASES
from runtime.common.settings import Guarantee
from runtime.data_loss.losses import Loss, LossCause, LossPath
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.topics import ensure_topics
from runtime.model.dead_letters import LOST_UNTIL, dead_letter
from runtime.model.records import Record
from schemas.messages import (
    OrderState,
    StockLevel,
)
from schemas.topics import ORDER_VALIDATIONS, WAREHOUSE_INVENTORY
from tests.audit import topics
from tests.audit.core_violations import (
    CORE_VIOLATIONS,
    announced_twice,
    failed_holds,
    failed_without_reason,
    stuck,
    two_finals,
)
from tests.audit.database_violations import CHECKIN_DATABASE_VIOLATIONS, PRODUCT_DATABASE_VIOLATIONS
from tests.audit.day import OTHER_SERVICES, PATIENCE, WINDOW, change_products, sell
from tests.audit.other_violations import OTHER_VIOLATIONS, PRODUCT_EMAIL_VIOLATIONS
from tests.audit.topics import final_of, post_of
from tests.workers import Deployment, until

AT_ONCE = timedelta(0)


@pytest.fixture(scope="module")
async def day(kafka, tmp_path_factory, databases, mail):
    """The records of a day: orders that passed, failed in every way, came late, were shipped, or are still open;
    accepted and rejected check-ins; e-mails."""
    with MailSink(mail) as sink:
        async with Deployment(kafka, f"t-{secrets.token_hex(4)}-", tmp_path_factory.mktemp("day")) as deployment:
            settings = {
                "validation_deadline_s": 3600,  # longer than the tests: the open order stays open
                "smtp_port": sink.port,
                **databases,
                "checkin_patience_s": PATIENCE.total_seconds(),
                "email_window_s": WINDOW.total_seconds(),
                "product_notifications_to": ",".join(topics.NOTIFIED),
            }
            [worker] = await deployment.start_core(apart=True, **settings)
            others = await deployment.start(*OTHER_SERVICES, name="others", **settings)
            await sell(deployment, worker, others, mail, settings)
            await change_products(deployment, others)
            for each in list(deployment.workers):
                await deployment.stop(each)
            yield await topics.read(deployment)


@pytest.fixture(scope="module")
def databases(postgres):
    """Database URLs by setting name."""
    names = {url.lower(): f"t_audit_{service.replace('-', '_')}" for service, url in DATABASES.items()}
    yield {setting: postgres.database(name) for setting, name in names.items()}
    for name in names.values():
        postgres.drop(name)


@pytest.fixture(scope="module")
def mail(tmp_path_factory):
    """The maildir of the day."""
    return tmp_path_factory.mktemp("emails") / "mail"


async def write_copy(kafka, logs, **settings):
    """Writes a copy of the topics. Returns settings with its prefix."""
    own = {
        "checkin_patience_s": PATIENCE.total_seconds(),
        "email_window_s": WINDOW.total_seconds(),
        "product_notifications_to": topics.NOTIFIED,
    }
    settings = {**own, **settings}
    return (await topics.write(kafka, logs.records, TOPICS.values())).model_copy(update=settings)


def secret(databases):
    return {name: SecretStr(url) for name, url in databases.items()}


def names_of(violations):
    return [violate.__name__ for violate, *_ in violations]


async def test_the_records_of_a_working_day_have_no_violation(kafka, day, databases, mail):
    settings = await write_copy(kafka, day, **secret(databases))
    report = await audit(settings, grace=AT_ONCE, mail=mail)

    assert report.violations == []
    wanted = {
        "orders": 14,
        "VALIDATED": 10,
        "CANCELLED": 1,
        "FAILED": 3,
        "SHIPPED": 1,
        "open": 1,
        "products": 6,
        "reserved": 10 + 1 + 5 + 1 + 1,
        "check-ins": 4,
        "check-ins stored": 4,
        "check-ins rejected": 2,
        "enriched": 2,
        "emails": 4,
        "emails delivered": 4,
        "changes": 4,
        "products stored": 2,
        "changes logged": 4,
        "alerts": 1,
        "notices": 5,
        "notices delivered": 5,
    }
    assert {name: report.counts[name] for name in wanted} == wanted
    assert report.counts["late verdicts"] >= 1
    assert not report.counts["unchecked products"]
    assert (report.open, report.missing_topics, report.absent_services, report.not_compared) == (1, (), (), ())


@pytest.mark.parametrize(("violate", "subject", "kinds"), CORE_VIOLATIONS, ids=names_of(CORE_VIOLATIONS))
async def test_each_violation_of_the_core_is_found_and_no_other(kafka, day, violate, subject, kinds):
    logs = day.copy()
    violate(logs)

    report = await audit(await topics.write(kafka, logs.records), grace=AT_ONCE)

    assert {v.kind: v.subject for v in report.violations} == dict.fromkeys(kinds, subject), report.violations
    assert all(v.records for v in report.violations)


async def test_the_same_records_judged_in_memory_have_no_violation(day):
    report = await topics.audit_in_memory(day, patience=PATIENCE, window=WINDOW)
    assert report.violations == []
    assert report.counts["SHIPPED"] == 1


@pytest.mark.parametrize(("violate", "subject", "kinds"), OTHER_VIOLATIONS, ids=names_of(OTHER_VIOLATIONS))
async def test_each_violation_of_other_services_is_found_and_no_other(day, violate, subject, kinds):
    logs = day.copy()
    violate(logs)

    report = await topics.audit_in_memory(logs, patience=PATIENCE, window=WINDOW)

    assert {v.kind: v.subject for v in report.violations} == dict.fromkeys(kinds, subject), report.violations
    assert all(v.records for v in report.violations)


@pytest.mark.parametrize(("violate", "kind"), PRODUCT_EMAIL_VIOLATIONS, ids=names_of(PRODUCT_EMAIL_VIOLATIONS))
async def test_each_violation_of_product_emails_is_found_and_no_other(day, violate, kind):
    logs = day.copy()
    subject = violate(logs)

    report = await topics.audit_in_memory(logs, patience=PATIENCE, window=WINDOW)

    assert [(v.kind, v.subject) for v in report.violations] == [(kind, subject)]
    assert all(v.records for v in report.violations)


@pytest.mark.parametrize(("violate", "changes", "subject", "kinds", "says"), CHECKIN_DATABASE_VIOLATIONS)
async def test_check_ins_are_compared_with_their_database(
    kafka, day, databases, violate, changes, subject, kinds, says
):
    await compared(kafka, day, databases, "checkin", violate, changes, subject, kinds, says)


@pytest.mark.parametrize(("service", "violate", "changes", "kinds", "says"), PRODUCT_DATABASE_VIOLATIONS)
async def test_products_are_compared_with_their_databases(
    kafka, day, databases, service, violate, changes, kinds, says
):
    await compared(kafka, day, databases, service, violate, changes, "FILTER", kinds, says)


async def compared(kafka, day, databases, service, violate, changes, subject, kinds, says):
    logs, name = day.copy(), f"{service}_database_url"
    if violate:
        violate(logs)
    settings = await write_copy(kafka, logs, **secret({name: databases[name]}))
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
    assert says in report.violations[0].text


async def test_an_undelivered_email_is_a_violation_and_a_duplicate_is_counted(kafka, day, mail, tmp_path):
    settings = await write_copy(kafka, day)
    shutil.copytree(mail, tmp_path / "mail")
    letters = {message_from_bytes(path.read_bytes())["Subject"]: path for path in (tmp_path / "mail/new").iterdir()}
    refused = letters["Your order dear could not be accepted"]
    shutil.copy2(refused, refused.with_name("again"))
    (tmp_path / "mail/new/other").write_text("Subject: Hello")

    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert report.violations == []
    counted = ("emails delivered", "emails delivered again", "other emails")
    assert [report.counts[name] for name in counted] == [4, 1, 1]

    letters["Your order shipped is on its way"].unlink()
    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert [(v.kind, v.subject) for v in report.violations] == [(ViolationKind.EMAIL_LOST, "shipped")]


async def test_an_undelivered_product_email_is_a_violation_and_a_duplicate_is_counted(kafka, day, mail, tmp_path):
    settings = await write_copy(kafka, day)
    shutil.copytree(mail, tmp_path / "mail")
    [change] = day.of(Source.CHANGES, "FILTER")
    about = {message_from_bytes(path.read_bytes())["X-Event-Id"]: path for path in (tmp_path / "mail/new").iterdir()}
    shutil.copy2(about[change.message.event_id], about[change.message.event_id].with_name("again"))
    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert (report.violations, report.counts["notices delivered again"]) == ([], 1)

    about[change.message.event_id].with_name("again").unlink()
    about[change.message.event_id].unlink()
    report = await audit(settings, grace=AT_ONCE, mail=tmp_path / "mail")
    assert [(v.kind, v.subject) for v in report.violations] == [(ViolationKind.NOTICE_LOST, change.message.event_id)]


async def test_foreign_records_among_dead_lettered_emails_count_as_unreadable(kafka, day):
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
    assert report.counts["emails rejected"] == before["emails rejected"]


async def test_lost_records_are_found_once_and_named_as_a_possible_cause_of_others(kafka, day):
    logs = day.copy()
    stuck(logs)
    settings = await topics.write(kafka, logs.records)
    [order, *_] = logs.of(Source.ORDERS, "open")
    loss = Loss("order-validations", order.partition, 5, 9, LossPath.INPUT, LossCause.REMOVED)
    gone = dead_letter(loss.record(), "orders", loss.description, datetime.now(UTC))
    other = Record("order-validations", order.partition, 3, 0, b"k", b"v", ((LOST_UNTIL, b"4"),))
    await ensure_topics(settings, {gone.topic: {}})
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        # At-least-once may write it twice. A foreign record with that header is not a lost range.
        for letter in (gone, gone, dead_letter(other, "orders", "it is broken", datetime.now(UTC))):
            topic, headers = settings.topic_prefix + letter.topic, list(letter.headers)
            await producer.send_and_wait(topic, letter.value, letter.key, partition=letter.partition, headers=headers)

    report = await audit(settings, grace=AT_ONCE)

    [lost, missed] = report.violations
    assert (lost.kind, lost.subject_type, lost.subject) == (
        ViolationKind.RECORDS_LOST,
        "partition",
        f"order-validations[{order.partition}]",
    )
    assert "records 5 to 8 were removed" in lost.text
    assert "4 offsets; reported by orders" in lost.text
    assert (missed.kind, missed.subject) == (ViolationKind.STUCK, "open")
    assert missed.text.endswith("records of its partition were lost, see records-lost")


def test_every_kind_of_violation_has_a_test():
    tried = {kind for _, _, kinds in CORE_VIOLATIONS + OTHER_VIOLATIONS for kind in kinds}
    tried |= {
        ViolationKind.EMAIL_LOST,
        ViolationKind.NOTICE_LOST,
        ViolationKind.RECORDS_LOST,
        *(kind for _, kind in PRODUCT_EMAIL_VIOLATIONS),
    }
    tried |= {ViolationKind.UNREADABLE_RECORD}  # in tests/integration/test_unreadable.py
    tried |= {kind for *_, kinds, _ in [*CHECKIN_DATABASE_VIOLATIONS, *PRODUCT_DATABASE_VIOLATIONS] for kind in kinds}
    assert tried == set(ViolationKind)


async def test_at_least_once_counts_duplicates_and_finds_another_final_state(kafka, day):
    logs = day.copy()
    announced_twice(logs)
    report = await audit(await topics.write(kafka, logs.records), guarantee=Guarantee.AT_LEAST_ONCE)
    assert report.violations == []
    assert report.counts["published again"] == 1

    two_finals(logs)
    report = await audit(await topics.write(kafka, logs.records), guarantee=Guarantee.AT_LEAST_ONCE)
    assert set(report.found) == {ViolationKind.TWO_FINALS}


async def test_within_the_grace_period_nothing_is_missing(kafka, day):
    logs = day.copy()
    failed_holds(logs)
    report = await audit(await topics.write(kafka, logs.records), grace=timedelta(hours=1))
    assert report.violations == []
    assert report.counts["to be released"] == 1
    assert report.open == 2


async def test_orders_from_before_since_are_not_judged(kafka, day):
    from_ms = post_of(day, "dear").time_ms
    logs = day.copy()
    two_finals(logs)  # of an order from before `since`
    failed_without_reason(logs)
    for record in logs.records:
        if record.time_ms < from_ms and record.topic == ORDER_VALIDATIONS.name:
            logs.drop(record)

    settings = await topics.write(kafka, logs.records)
    report = await audit(settings, since=datetime.fromtimestamp(from_ms / 1000, UTC))

    assert [(v.kind, v.subject) for v in report.violations] == [(ViolationKind.FAILED_WITHOUT_REASON, "dear")]
    assert report.counts["orders"] == 6
    assert report.counts["posted before"] > 0


async def test_the_audit_waits_for_open_transactions(kafka, day):
    settings = await topics.write(kafka, day.records)
    writer = kafka_writer(settings)
    await writer.start()
    try:
        await writer.begin_transaction()
        await writer.send_and_wait(settings.topic_prefix + ORDER_VALIDATIONS.name, b"?", b"?", partition=0)
        with pytest.raises(AuditError, match="order-validations partition 0"):
            await audit(settings, transaction_wait=timedelta(seconds=5))
        waiting = asyncio.create_task(audit(settings))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await writer.abort_transaction()
        assert (await waiting).violations == []
    finally:
        await writer.stop()


async def test_records_of_one_transaction_are_read_together(kafka, day, monkeypatch):
    """The first record is written before the audit reads the end offsets, the second one after."""
    settings = await topics.write(kafka, day.records)
    looking = asyncio.Event()
    log_ends = aiokafka_internals.log_ends

    async def told(consumer, partitions, *, committed):
        if committed:  # the end offsets are known: the audit waits until they are stable
            looking.set()
        return await log_ends(consumer, partitions, committed=committed)

    monkeypatch.setattr(aiokafka_internals, "log_ends", told)
    logs = day.copy()
    final = final_of(logs, "open").with_fields(state=OrderState.FAILED)
    [row] = logs.of(Source.VIEW, "open")[-1:]
    row = row.with_fields(order=final.message)
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


async def test_an_audit_under_load_finds_no_violation(deployment: Deployment):
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
            # With grace: the other worker may still have to release the reservation of a FAILED order.
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


async def test_the_command_reports_violations_as_text_and_json(kafka, day, monkeypatch):
    logs = day.copy()
    sound = await topics.write(kafka, logs.records)
    two_finals(logs)
    violated = await topics.write(kafka, logs.records)

    async def run(*arguments, prefix):
        monkeypatch.setenv("TOPIC_PREFIX", prefix)
        return await asyncio.to_thread(CliRunner().invoke, main, ["audit", "--bootstrap", kafka, *arguments])

    result = await run(prefix=sound.topic_prefix)
    assert result.exit_code == 0
    assert "14  orders posted" in result.output
    assert "No violation." in result.output

    result = await run(prefix=violated.topic_prefix)
    assert result.exit_code == 1
    assert "two-final-states  order grinder: VALIDATED and then FAILED" in result.output
    assert "1 violations: 1 two-final-states" in result.output

    result = await run("--json", prefix=violated.topic_prefix)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["counts"]["orders"] == 14
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
