"""What the audit makes of one order, and of one product: the edges between a violation and what is right or unknown."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ecosystem.audit.facts import Fact, pack, unpack
from ecosystem.audit.judging import orders
from ecosystem.audit.judging.stock import judge as judge_stock
from ecosystem.audit.reading.fact_store import FactStore
from ecosystem.audit.report import Report, Rules, Violation, ViolationKind
from ecosystem.audit.sources import CORE, TOPICS, Source
from fulfilment_service.state import Progress
from orders_service.state import OrderView
from runtime.model.service import PendingSideEffect, ScheduledTimer
from schemas.api import CheckinState, PortalCheckin, PortalCheckins, Verdict
from schemas.messages import (
    BuiltInCheck,
    CheckinRejected,
    Customer,
    Fulfilled,
    Need,
    OrderEnriched,
    OrderState,
    Payment,
    StockLevel,
    ValidationResult,
)
from schemas.payments import PaymentTotals
from tests.samples import DETAILS, FRAUD, INVENTORY, checked_in, order, verdict
from validators.inventory.state import Reservation, Stock

NOW_MS = 1_000_000_000
RULES = Rules(
    required=frozenset(BuiltInCheck),
    deadline=timedelta(seconds=60),
    grace=timedelta(seconds=30),
    exactly_once=True,
    now_ms=NOW_MS,
    seen=frozenset(CORE),
)
PASSES = tuple(Verdict(check_type=c, validation_result=ValidationResult.PASS) for c in (FRAUD, INVENTORY, DETAILS))


class Log:
    """Facts, each behind the one before."""

    def __init__(self):
        self.facts = []

    def add(self, source, message, ago_s=1.0, late=False):
        raw = None if message is None else message.to_json()
        self.facts.append(Fact(source, 0, len(self.facts), NOW_MS - int(ago_s * 1000), late, raw))
        return self

    def order(self, state="CREATED", ago_s=1.0, **content):
        return self.add(Source.ORDERS, order(state=OrderState(state), **content), ago_s)

    def verdicts(self, *checks, result="PASS", ago_s=1.0):
        for check in checks:
            self.add(Source.VERDICTS, verdict(check, result), ago_s)
        return self

    def view(self, state, *verdicts, reasons=(), ago_s=1.0):
        row = OrderView(order=order(state=OrderState(state)), verdicts=verdicts, reasons=reasons)
        return self.add(Source.VIEW, row, ago_s)

    def judge(self, rules=RULES, customer=()):
        counts, held = Counter(), []
        facts = sorted(self.facts, key=lambda fact: fact.source)

        def changed(source, product, fact, by):
            if source is Source.HOLDINGS:
                held.append((product, by))

        found = orders.judge("o1", facts, rules, counts, changed, lambda _: customer)
        return [v.kind for v in found], +counts, held


def validated(ago_s=1.0):
    log = Log().order(ago_s=ago_s).verdicts(FRAUD, INVENTORY, DETAILS, ago_s=ago_s).order("VALIDATED", ago_s=ago_s)
    log.view("VALIDATED", *PASSES, ago_s=ago_s)
    return log.add(Source.RESERVATIONS, Reservation(product="JUMPERS", held=1), ago_s)


def test_an_order_that_passed():
    found, counts, held = validated().judge()
    assert found == []
    assert counts == {"orders": 1, "VALIDATED": 1, "verdicts": 3}
    assert held == [("JUMPERS", 1)]


def waiting(at_ago_s, posted_ago_s=100.0):
    log = Log().order(ago_s=posted_ago_s).view("CREATED", ago_s=posted_ago_s)
    return log.add(Source.TIMERS, ScheduledTimer(at=datetime.fromtimestamp(NOW_MS / 1000 - at_ago_s, UTC)))


@pytest.mark.parametrize(
    ("log", "kinds"),
    [
        (waiting(at_ago_s=29), []),
        (waiting(at_ago_s=31), [ViolationKind.STUCK]),
        (waiting(at_ago_s=-3600, posted_ago_s=7200), []),  # seen late, after an outage: it has its whole time
        (Log().order(ago_s=89), []),
        (Log().order(ago_s=91), [ViolationKind.STUCK]),
        (Log().order(ago_s=50).view("CREATED", ago_s=50).add(Source.TIMERS, None), [ViolationKind.STUCK]),
    ],
)
def test_how_long_an_order_may_wait(log, kinds):
    found, counts, _ = log.judge()
    assert found == kinds
    assert counts["open"] == (not kinds)


def test_an_order_that_moves_is_judged_by_what_one_topic_tells():
    log = Log().order(ago_s=1000)
    log.add(Source.ORDERS, order(state=OrderState.VALIDATED), late=True)
    assert log.judge()[0] == []
    log.add(Source.ORDERS, order(state=OrderState.FAILED), late=True)
    assert log.judge()[0] == [ViolationKind.TWO_FINALS]


def test_shipped_follows_validated_and_the_view_may_be_a_moment_late():
    log = validated().order("SHIPPED", ago_s=10)
    assert log.judge()[:2] == (
        [],
        Counter(orders=1, VALIDATED=1, SHIPPED=1, verdicts=3) + Counter({"to be released": 1}),
    )
    late = validated(ago_s=100).order("SHIPPED", ago_s=31)
    assert late.judge()[0] == [ViolationKind.VIEW_DIFFERS, ViolationKind.SHIPPED_HOLDS]
    late.view("SHIPPED", *PASSES).add(Source.RESERVATIONS, Reservation(product="JUMPERS"))
    assert late.judge()[0] == []
    assert log.order("VALIDATED").judge()[0] == [ViolationKind.PUBLISHED_TWICE]


@pytest.mark.parametrize(("missing_since", "kinds"), [(0, [ViolationKind.VIEW_DIFFERS]), (NOW_MS - 1_000, [])])
def test_verdicts_that_are_no_longer_kept_are_not_missed(missing_since, kinds):
    log = validated(ago_s=100)
    log.facts = [fact for fact in log.facts if fact.source is not Source.VERDICTS]
    assert log.judge(replace(RULES, from_ms={Source.VERDICTS: {0: missing_since}}))[0] == kinds


def test_without_a_view_the_verdicts_themselves_count_if_they_are_kept():
    log = Log().order(ago_s=100).verdicts(FRAUD, INVENTORY, ago_s=100).order("VALIDATED", ago_s=100)
    log.add(Source.RESERVATIONS, Reservation(product="JUMPERS", held=1))
    unseen = replace(RULES, seen=RULES.seen - {Source.VIEW})
    assert log.judge(unseen)[0] == [ViolationKind.VALIDATED_WITHOUT]
    found, counts, _ = log.judge(replace(unseen, from_ms={Source.VERDICTS: {0: NOW_MS}}))
    assert found == []
    assert counts["unchecked verdicts"] == 1


def out_of_time(after_s, reasons, heard=PASSES[:2]):
    log = Log().order(ago_s=200).verdicts(FRAUD, INVENTORY, ago_s=200).order("FAILED", ago_s=200 - after_s)
    return log.view("FAILED", *heard, reasons=reasons).add(Source.RESERVATIONS, Reservation(product="JUMPERS"))


@pytest.mark.parametrize(
    ("log", "kinds"),
    [
        (out_of_time(60, ("ORDER_DETAILS_CHECK: no verdict within 60 s",)), []),
        (out_of_time(10, ("ORDER_DETAILS_CHECK: no verdict within 10 s",)), []),  # another setting then
        (out_of_time(10, ("ORDER_DETAILS_CHECK: no verdict within 60 s",)), [ViolationKind.FAILED_WITHOUT_REASON]),
        (out_of_time(60, ("FRAUD_CHECK: no verdict within 60 s",)), [ViolationKind.FAILED_WITHOUT_REASON]),
        (out_of_time(60, ()), [ViolationKind.FAILED_WITHOUT_REASON]),
    ],
)
def test_a_deadline_is_known_by_its_reasons_and_its_time(log, kinds):
    assert log.judge()[0] == kinds


def test_a_check_that_has_forgotten_an_order_may_judge_it_anew():
    week = timedelta(days=7).total_seconds()
    rules = replace(RULES, now_ms=NOW_MS)
    assert validated(week + 1).verdicts(FRAUD, result="FAIL", ago_s=0).judge(rules)[0] == []
    assert validated(week - 9).verdicts(FRAUD, result="FAIL", ago_s=0).judge(rules)[0] == [ViolationKind.CONTRADICTION]


def test_at_least_once_a_view_that_is_ahead_is_given_time():
    log = Log().order(ago_s=20).verdicts(FRAUD, INVENTORY, DETAILS).view("VALIDATED", *PASSES, ago_s=20)
    assert log.judge()[0] == [ViolationKind.NOT_PUBLISHED]
    at_least_once = replace(RULES, exactly_once=False)
    found, counts, _ = log.judge(at_least_once)
    assert (found, counts["open"]) == ([], 1)
    assert log.judge(replace(at_least_once, grace=timedelta(seconds=10)))[0] == [ViolationKind.NOT_PUBLISHED]


def test_what_began_before_is_only_counted():
    log = Log().order("SHIPPED").view("SHIPPED").add(Source.RESERVATIONS, Reservation(product="JUMPERS", held=1))
    assert log.judge(replace(RULES, partial=True))[0] == []
    assert ViolationKind.NEVER_POSTED in log.judge()[0]


def test_what_is_unreadable_is_counted_and_an_order_under_another_key_is_none():
    log = validated().order("FAILED", id="o2").add(Source.ORDERS, None)
    found, counts, _ = log.judge()
    assert (found, counts["unreadable"]) == ([], 2)


# Products


def stream(source, *messages):
    return [Fact(source, 0, n, NOW_MS - 1000 + n, False, m and m.to_json()) for n, m in enumerate(messages)]


def rows(*counted):
    return stream(Source.STOCK, *[Stock(count=count, reserved=reserved) for count, reserved in counted])


def changes(*by):
    return [Fact(Source.HOLDINGS, 0, n, NOW_MS, False, b"%d" % change) for n, change in enumerate(by)]


def judged(stock, held, warehouse=()):
    levels = stream(Source.WAREHOUSE, *[StockLevel(product="P", count=c) for c in warehouse])
    counts = Counter()
    return [v.kind for v in judge_stock("P", levels, stock, held, RULES, counts)], counts


@pytest.mark.parametrize(
    ("stock", "held", "warehouse", "kinds"),
    [
        (rows((9, 0), (9, 2), (9, 5), (9, 3)), changes(2, 3, -2), (9,), []),
        (rows((9, 0), (9, 3)), changes(2, 3, -2), (9,), []),  # one batch shows as one row
        (rows((9, 0), (9, 2), (9, 5)), changes(2), (9,), [ViolationKind.SUM_DIFFERS]),
        (rows((9, 0), (9, 2), (9, 1), (9, 2)), changes(2), (9,), [ViolationKind.SUM_DIFFERS]),
        (rows((9, 0), (9, 2), (9, -2)), changes(2, -2), (9,), [ViolationKind.NEGATIVE, ViolationKind.SUM_DIFFERS]),
        (rows((9, 5), (3, 5)), changes(5), (9, 3), []),  # lowered below what is reserved
        (rows((3, 2), (3, 4)), changes(2, 2), (3,), [ViolationKind.OVERSOLD]),
        (rows((3, 2), (3, 4)), changes(2, 2), (3, 9, 3), []),  # raised and lowered within the batch
        (rows((9, 2), (3, 2), (3, 4)), changes(2, 2), (9, 3), [ViolationKind.OVERSOLD]),
        ([], changes(2), (), [ViolationKind.SUM_DIFFERS]),
        ([], [], (9,), []),
    ],
)
def test_the_stock_of_a_product(stock, held, warehouse, kinds):
    assert judged(stock, held, warehouse)[0] == kinds


def test_where_pieces_may_have_been_held_unseen_nobody_is_accused():
    found, counts = judged(rows((9, 2), (9, 5), (9, 2)), changes(2, 0))
    assert found == []
    assert counts["unchecked products"] == 1


def test_a_product_that_changes_meanwhile_is_compared_at_any_moment_of_that():
    stock, held = rows((9, 2), (9, 5)), changes(2, 3)
    assert judged(stock[:1], [held[0], held[1]._replace(late=True)])[0] == []
    assert judged([stock[0], stock[1]._replace(late=True)], held[:1])[0] == []
    assert judged(rows((9, 4)), [held[0], held[1]._replace(late=True)])[0] == [ViolationKind.SUM_DIFFERS]


LONG_AGO = 3600.0


def counted(stock, shipped_ago_s=(), announced_ago_s=LONG_AGO):
    """What is found of a product of which the warehouse announced 9 pieces, and one after the other was shipped."""
    at_ms = NOW_MS - int(announced_ago_s * 1000)
    level = Fact(Source.WAREHOUSE, 0, 0, at_ms, False, StockLevel(product="P", count=9).to_json())
    sent = [Fact(Source.SHIPPED_PIECES, 0, n, NOW_MS - int(s * 1000), False, b"1") for n, s in enumerate(shipped_ago_s)]
    row = Fact(Source.STOCK, 0, 0, NOW_MS - 1, False, Stock(count=stock).to_json())
    return [v.kind for v in judge_stock("P", [level], [row], [], RULES, Counter(), sent)]


@pytest.mark.parametrize(
    ("stock", "shipped_ago_s", "announced_ago_s", "sound"),
    [
        (7, (300, 200), LONG_AGO, True),
        (8, (300, 200), LONG_AGO, False),  # one was not taken off
        (6, (300, 200), LONG_AGO, False),  # one was taken off twice
        (0, range(100, 112), LONG_AGO, True),  # more than there were
        (9, (5000, 4000), LONG_AGO, True),  # the warehouse has counted since then
        (8, (LONG_AGO,), LONG_AGO, True),  # whichever came first
        (9, (LONG_AGO,), LONG_AGO, True),
        (9, (10,), LONG_AGO, True),  # the inventory may not have heard of it
        (8, (10,), LONG_AGO, True),
        (3, (), 10, True),  # nor of the count
        (3, (), LONG_AGO, False),
    ],
)
def test_what_is_in_stock_is_what_was_announced_less_what_was_shipped(stock, shipped_ago_s, announced_ago_s, sound):
    assert counted(stock, shipped_ago_s, announced_ago_s) == ([] if sound else [ViolationKind.COUNT_DIFFERS])


@pytest.mark.parametrize("moving", [False, True])
def test_what_was_shipped_of_an_order_that_is_moving_may_be_in_the_count_or_not(moving):
    log = fulfilled(300, shipped=True)
    log.add(Source.CHECK_INS, CHECK_IN, 1, late=moving)
    sent = []

    def changed(source, product, fact, by):
        if source is Source.SHIPPED_PIECES:
            sent.append((product, fact.late, by))

    facts = sorted(log.facts, key=lambda fact: fact.source)
    list(orders.judge("o1", facts, RULES, Counter(), changed, lambda _: ()))
    assert sent == [("JUMPERS", moving, 1)]


# What follows from an order


AROUND = replace(RULES, seen=frozenset(TOPICS))


def fulfilled(ago_s, *, announced=True, shipped=False):
    """An order that is paid and checked in."""
    log = validated(100).add(Source.PAYMENTS, PAYMENT, 90).add(Source.CHECK_INS, CHECK_IN, ago_s)
    told = PortalCheckin(event_id="c1", status=CheckinState.CREATED)
    log.add(Source.PORTAL, PortalCheckins(order_no="o1", check_ins=(told,)), ago_s)
    row = {"value": 5, "paid": {"p1": 5}, "checked_in": True}
    state = OrderState.SHIPPED if shipped else OrderState.VALIDATED
    log.add(Source.PROGRESS, Progress(state=state, fulfilled=announced, **row), ago_s)
    if announced:
        log.add(Source.FULFILMENTS, Fulfilled(order_id="o1"), ago_s)
    if shipped:
        log.order("SHIPPED", ago_s).view("SHIPPED", *PASSES)
        log.add(Source.RESERVATIONS, Reservation(product="JUMPERS"), ago_s)
    return log


PAYMENT = Payment(id="p1", order_id="o1", ccy="EUR", amount=5)
CHECK_IN = checked_in()
REJECTION = CheckinRejected(event_id="c1", order_no="o1", reason="there is no such order")


@pytest.mark.parametrize(
    ("log", "kinds", "to_come"),
    [
        (fulfilled(29, announced=False), [], 1),
        (fulfilled(31, announced=False), [ViolationKind.NOT_FULFILLED], 0),
        (fulfilled(29), [], 1),
        (fulfilled(31), [ViolationKind.NOT_SHIPPED], 0),
        (fulfilled(31, shipped=True), [], 0),
        (
            fulfilled(31, shipped=True).add(Source.FULFILMENTS, Fulfilled(order_id="o1")),
            [ViolationKind.FULFILLED_TWICE],
            0,
        ),
    ],
)
def test_how_long_a_shipment_may_take(log, kinds, to_come):
    found, counts, _ = log.judge(AROUND)
    assert (found, counts["to be shipped"]) == (kinds, to_come)


def test_the_prerequisites_are_a_setting():
    log = validated(100)
    assert log.judge(replace(AROUND, needs=(Need.VALIDATED,)))[0] == [ViolationKind.NOT_FULFILLED]
    assert log.judge(AROUND)[0] == []


def test_payments_and_check_ins_that_are_no_longer_kept_are_not_missed():
    log = fulfilled(31, shipped=True)
    log.facts = [f for f in log.facts if f.source not in {Source.PAYMENTS, Source.CHECK_INS, Source.FULFILMENTS}]
    assert log.judge(AROUND)[0] == [ViolationKind.SHIPPED_WITHOUT, ViolationKind.PROGRESS_DIFFERS]
    sources = (Source.PAYMENTS, Source.CHECK_INS, Source.FULFILMENTS)
    assert log.judge(replace(AROUND, from_ms={source: {0: NOW_MS - 50} for source in sources}))[0] == []


@pytest.mark.parametrize(
    ("checked_in_ago_s", "rules", "kinds"),
    [
        (89, AROUND, []),  # its patience and the grace
        (91, AROUND, [ViolationKind.NOT_REJECTED]),
        (91, replace(AROUND, patience=timedelta(hours=1)), []),
        (91, replace(AROUND, partial=True), []),
        (91, replace(AROUND, from_ms={Source.REJECTIONS: {0: NOW_MS}}), []),
        (91, RULES, []),  # there is no fulfilment service
    ],
)
def test_how_long_a_check_in_waits_for_its_order(checked_in_ago_s, rules, kinds):
    told = PortalCheckins(order_no="o1", check_ins=(PortalCheckin(event_id="c1", status=CheckinState.CREATED),))
    log = Log().add(Source.CHECK_INS, CHECK_IN, checked_in_ago_s).add(Source.PORTAL, told)
    assert log.judge(rules)[0] == kinds


@pytest.mark.parametrize(("posted_ago_s", "kinds"), [(40, []), (60, [ViolationKind.REJECTED_WRONGLY])])
def test_an_order_that_came_as_its_check_in_was_rejected(posted_ago_s, kinds):
    told = PortalCheckins(order_no="o1", check_ins=(PortalCheckin(event_id="c1", status=CheckinState.REJECTED),))
    log = validated(posted_ago_s).add(Source.CHECK_INS, CHECK_IN, 80).add(Source.REJECTIONS, REJECTION, 20)
    assert log.add(Source.PORTAL, told).judge(AROUND)[0] == kinds


def letters(ago_s, paid_ago_s, customer_ago_s, **changes):
    """What is found of a VALIDATED and perhaps paid order, of which the email service has done nothing."""
    log = validated(ago_s).add(Source.PROGRESS, Progress(state=OrderState.VALIDATED, value=5, paid={"p1": 5}))
    log.add(Source.PAYMENTS, PAYMENT, paid_ago_s)
    facts = []
    if customer_ago_s is not None:
        said = {"first_name": "F", "last_name": "K", "email": "f@example.org", "address": "Praha"}
        raw = Customer(id=1, **said).to_json()
        facts = [Fact(Source.CUSTOMERS, 0, 0, NOW_MS - int(customer_ago_s * 1000), False, raw)]
    return log.judge(replace(AROUND, **changes), facts)[0]


@pytest.mark.parametrize(
    ("ago_s", "paid_ago_s", "customer_ago_s", "kinds"),
    [
        (100, 100, 1000, [ViolationKind.NOT_ENRICHED, ViolationKind.EMAIL_MISSING]),
        (20, 20, 1000, []),  # in time still
        (100, 46, 1000, [ViolationKind.NOT_ENRICHED, ViolationKind.EMAIL_MISSING]),
        (100, 38, 1000, [ViolationKind.NOT_ENRICHED, ViolationKind.EMAIL_MISSING]),  # however far apart
        (100, 165, 1000, [ViolationKind.NOT_ENRICHED, ViolationKind.EMAIL_MISSING]),
        (
            100,
            100,
            46,
            [ViolationKind.NOT_ENRICHED, ViolationKind.EMAIL_MISSING],
        ),  # a customer who came later, but in time
        (100, 100, 38, []),
        (100, 100, None, []),
    ],
)
def test_which_letters_are_due(ago_s, paid_ago_s, customer_ago_s, kinds):
    assert letters(ago_s, paid_ago_s, customer_ago_s) == kinds
    assert letters(ago_s, paid_ago_s, customer_ago_s, seen=frozenset(CORE)) == []


@pytest.mark.parametrize(
    ("payments", "confirmed", "kinds"),
    [
        ([(1, "EUR")], True, [ViolationKind.CONFIRMED_UNPAID]),
        ([(1, "EUR")], False, []),
        ([(1, "EUR"), (23, "IDR")], True, [ViolationKind.CONFIRMED_UNPAID]),
        ([(1, "EUR"), (4, "EUR")], True, []),
        ([(1, "EUR"), (4, "EUR")], False, [ViolationKind.EMAIL_MISSING]),
        ([], True, [ViolationKind.EMAIL_WRONG]),
        ([(9, "EUR"), (-5, "EUR")], True, []),  # it may have been enough for a while
    ],
)
def test_an_order_is_confirmed_if_it_is_paid_in_its_currency(payments, confirmed, kinds):
    log, paid = validated(100), PaymentTotals()
    for n, (amount, ccy) in enumerate(payments):
        payment = Payment(id=f"p{n}", order_id="o1", ccy=ccy, amount=amount)
        log.add(Source.PAYMENTS, payment, 90)
        paid = paid.plus(payment, "EUR")
    log.add(Source.PROGRESS, Progress(state=OrderState.VALIDATED, value=5, received=paid))
    enriched = OrderEnriched(id="o1", customer_id=1, customer_level="bronze")
    log.add(Source.ENRICHED, enriched).add(Source.BRONZE, enriched)
    if confirmed:
        log.add(Source.EMAILS, PendingSideEffect(effect="letter", payload=b""), 80)
        log.facts[-1] = log.facts[-1]._replace(about="validated")
    said = {"first_name": "F", "last_name": "K", "email": "f@example.org", "address": "Praha"}
    facts = [Fact(Source.CUSTOMERS, 0, 0, NOW_MS - 1_000_000, False, Customer(id=1, **said).to_json())]
    assert log.judge(AROUND, facts)[0] == kinds


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        ({"received": PaymentTotals(sums={"EUR": 5, "IDR": 9}, counted=1, ignored=1)}, []),
        (
            {"received": PaymentTotals(sums={"EUR": 4, "IDR": 9}, counted=1, ignored=1)},
            [ViolationKind.PROGRESS_DIFFERS],
        ),
        (
            {"received": PaymentTotals(sums={"EUR": 5, "IDR": 8}, counted=1, ignored=1)},
            [ViolationKind.PROGRESS_DIFFERS],
        ),
        (
            {"received": PaymentTotals(sums={"EUR": 14}, counted=2)},
            [ViolationKind.PROGRESS_DIFFERS],
        ),  # all of it taken for euros
    ],
)
def test_sums_of_payments_are_those_of_their_currencies(row, kinds):
    log = validated(100).add(Source.PAYMENTS, PAYMENT, 90)
    log.add(Source.PAYMENTS, PAYMENT.model_copy(update={"id": "p2", "ccy": "IDR", "amount": 9}), 90)
    log.add(Source.PROGRESS, Progress(state=OrderState.VALIDATED, value=5, **row))
    assert log.judge(replace(AROUND, seen=AROUND.seen - {Source.EMAILS}))[0] == kinds


def test_an_order_that_is_not_paid_in_its_currency_must_not_be_shipped():
    log = fulfilled(31, shipped=True)
    [payment] = [n for n, fact in enumerate(log.facts) if fact.source is Source.PAYMENTS]
    idr = PAYMENT.model_copy(update={"ccy": "IDR"}).to_json()
    log.facts[payment] = log.facts[payment]._replace(value=idr)
    assert log.judge(AROUND)[0] == [ViolationKind.SHIPPED_WITHOUT, ViolationKind.PROGRESS_DIFFERS]


# What stands under it


@pytest.mark.parametrize("value", [None, b"", b"{}"])
def test_a_fact_is_kept_as_it_is(value):
    fact = Fact(Source.VIEW, 3, 2**40, 1_700_000_000_000, True, value)
    assert unpack(*pack(fact)) == fact


def test_facts_come_back_by_order_and_in_the_order_of_their_logs(tmp_path):
    with FactStore(tmp_path) as facts:
        for key, source, offset in [("b", 1, 5), ("a\0", 0, 1), ("a", 2, 0), ("b", 0, 300), ("b", 0, 2), ("a", 0, 7)]:
            facts.add(key.encode(), Fact(Source(source), 0, offset, 0, False, b""))
        facts.add(b"b", Fact(Source.STOCK, 0, 0, 0, False, b""))
        found = {key: [(f.source, f.offset) for f in of_order] for key, of_order in facts.orders()}
        assert list(facts.products()) == ["b"]
    assert found == {"a": [(0, 7), (2, 0)], "a\0": [(0, 1)], "b": [(0, 2), (0, 300), (1, 5)]}
    assert list(tmp_path.iterdir()) == []


def test_a_report_keeps_some_of_a_kind_and_counts_all():
    report = Report(max_kept=2)
    for n in range(5):
        report.add(Violation(ViolationKind.STUCK, f"o{n}", ""))
    report.add(Violation(ViolationKind.OVERSOLD, "P", ""))
    assert len(report.violations) == 3
    assert report.found == {ViolationKind.STUCK: 5, ViolationKind.OVERSOLD: 1}
    assert [v.subject_type for v in report.violations] == ["order", "order", "product"]
    assert not report.ok
