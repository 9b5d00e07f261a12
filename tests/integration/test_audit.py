"""The audit on a real Kafka: nothing to find after a day's work, and each kind of violation once a topic holds it."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from ecosystem.audit import AuditError, Kind, audit
from ecosystem.audit.facts import Source
from ecosystem.cli import main
from runtime import internals, kafka
from runtime.settings import Guarantee
from schemas.messages import CheckType, OrderState, StockLevel, ValidationResult
from schemas.topics import ORDER_VALIDATIONS, WAREHOUSE_INVENTORY
from tests import topics
from tests.workers import Deployment, until

FRAUD = CheckType.FRAUD_CHECK
AT_ONCE = timedelta(0)


@pytest.fixture(scope="module")
async def day(kafka, tmp_path_factory):
    """What services apart wrote in a day: orders that passed, failed in every way, came late, or are still open."""
    async with Deployment(kafka, "t-audit-day-", tmp_path_factory.mktemp("day")) as deployment:
        [worker] = await deployment.start_core(apart=True)
        await deployment.stock(MUG=10, KETTLE=1000, GRINDER=9, SCALES=5)
        for n in range(6):
            await order(deployment, worker, f"mug-{n}", product="MUG", quantity=2)  # the last one finds none left
        await order(deployment, worker, "grinder", product="GRINDER")
        await order(deployment, worker, "scales", product="SCALES", quantity=5)
        await deployment.stock(SCALES=1)  # below what is reserved: the warehouse's right
        await order(deployment, worker, "dear", product="KETTLE", quantity=50, price=60)
        await order(deployment, worker, "none", product="KETTLE", quantity=0)
        await deployment.caught_up("orders", "fraud", "inventory", "details")
        await deployment.stop(next(w for w in deployment.workers if w.settings.state_dir.name == "fraud"))
        await deployment.post(worker, id="open", customerId=7, product="KETTLE", quantity=1, price=1)
        await deployment.caught_up("orders", "inventory", "details")
        for worker in list(deployment.workers):
            await deployment.stop(worker)
        yield await topics.read(deployment)


async def order(deployment, worker, id_, **content):
    body = {"id": id_, "customerId": len(id_) + ord(id_[-1]), "quantity": 1, "price": 1, **content}
    assert (await deployment.post(worker, **body))[0] == 201
    return await deployment.outcome(worker, id_)


async def test_a_day_is_found_sound(kafka, day):
    report = await audit(await topics.write(kafka, day.records), grace=AT_ONCE)

    assert report.violations == []
    assert {
        name: report.counts[name] for name in ("orders", "VALIDATED", "FAILED", "open", "products", "reserved")
    } == {
        "orders": 11,
        "VALIDATED": 7,
        "FAILED": 3,
        "open": 1,
        "products": 4,
        "reserved": 10 + 1 + 5 + 1,
    }
    assert report.counts["late verdicts"] >= 1
    assert not report.counts["unchecked products"]
    assert not report.missing


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
    shipped = final_of(logs, "grinder").saying(state=OrderState.SHIPPED)
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.add(shipped, row.saying(order=shipped.message))


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
    (shipped_holds, "grinder", {Kind.SHIPPED_HOLDS}),
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


@pytest.mark.parametrize(("doctor", "subject", "kinds"), DOCTORED, ids=[d[0].__name__ for d in DOCTORED])
async def test_each_kind_of_violation_is_found_and_no_other(kafka, day, doctor, subject, kinds):
    logs = day.copy()
    doctor(logs)

    report = await audit(await topics.write(kafka, logs.records), grace=AT_ONCE)

    assert {v.kind: v.subject for v in report.violations} == dict.fromkeys(kinds, subject), report.violations
    assert all(v.records for v in report.violations)


def test_every_kind_is_tried():
    assert {kind for _, _, kinds in DOCTORED for kind in kinds} == set(Kind)


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
    assert report.counts["orders"] == 3
    assert report.counts["began before"] > 0


async def test_an_open_transaction_is_waited_for(kafka, day):
    settings = await topics.write(kafka, day.records)
    writer = kafka_writer(settings)
    await writer.start()
    try:
        await writer.begin_transaction()
        await writer.send_and_wait(settings.topic_prefix + ORDER_VALIDATIONS.name, b"?", b"?", partition=0)
        with pytest.raises(AuditError, match="order-validations partition 0"):
            await audit(settings, patience=timedelta(seconds=1))
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
    log_ends = internals.log_ends

    async def told(consumer, partitions, *, committed):
        if committed:  # the ends are found: it waits until they are stable
            looking.set()
        return await log_ends(consumer, partitions, committed=committed)

    monkeypatch.setattr(internals, "log_ends", told)
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
            assert status == 201
            count += 1
            await asyncio.sleep(0.05)
        return count

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    try:
        for _ in range(4):
            # With grace: a FAILED order's pieces may have to be given back by the other worker.
            report = await audit(deployment.settings())
            assert report.violations == []
    finally:
        stop.set()
        counts = await asyncio.gather(*clients)
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
    assert "11  orders posted" in result.output
    assert "No violation." in result.output

    result = await run(prefix=doctored.topic_prefix)
    assert result.exit_code == 1
    assert "two-final-states  order grinder: VALIDATED and then FAILED" in result.output
    assert "1 violations: 1 two-final-states" in result.output

    result = await run("--json", prefix=doctored.topic_prefix)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["counts"]["orders"] == 11
    [violation] = found["violations"]
    assert violation["order"] == "grinder"
    assert [r["topic"] for r in violation["records"]] == ["orders", "orders"]
    assert violation["records"][1]["says"].startswith("FAILED customer")

    result = await run(prefix="t-nothing-")
    assert result.exit_code == 2
    assert "there is no topic 't-nothing-orders'" in result.output


def kafka_writer(settings):
    return kafka.transactional_producer(settings, f"{settings.topic_prefix}test-{time.time_ns()}")
