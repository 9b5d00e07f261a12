"""What the audit makes of cancelled orders."""

from dataclasses import replace

import pytest

from ecosystem.audit.report import ViolationKind
from ecosystem.audit.sources import TOPICS, Source
from fulfilment_service.state import Progress
from runtime.model.service import PendingSideEffect
from schemas.api import CheckinState, PortalCheckin, PortalCheckins
from schemas.messages import CheckinRejected, Fulfilled, OrderState, Payment, Refund
from schemas.payments import PaymentTotals
from tests.samples import FRAUD, checked_in
from tests.unit.test_audit import PASSES, RULES, Log, validated
from validators.inventory.state import Reservation

ALL = replace(RULES, seen=frozenset(TOPICS))
REASON = ("cancelled by the client",)


def cancelled(ago_s=100.0, *, released=True):
    """A validated order that was cancelled."""
    log = validated(ago_s + 100).order("CANCELLED", ago_s).view("CANCELLED", *PASSES, reasons=REASON, ago_s=ago_s)
    return log.add(Source.RESERVATIONS, Reservation(product="JUMPERS"), ago_s) if released else log


def with_row(log, ago_s=100.0, **row):
    return log.add(Source.PROGRESS, Progress(state=OrderState.CANCELLED, value=5, **row), ago_s)


def test_a_cancelled_order_keeps_every_promise():
    found, counts, held = cancelled().judge()
    assert found == []
    assert (counts["VALIDATED"], counts["CANCELLED"]) == (1, 1)
    assert held == [("JUMPERS", 1), ("JUMPERS", -1)]


def test_an_undecided_order_may_be_cancelled_whatever_its_verdicts():
    log = Log().order(ago_s=100).verdicts(FRAUD, ago_s=100).order("CANCELLED", 100)
    log.view("CANCELLED", PASSES[0], reasons=REASON, ago_s=100)
    assert log.judge()[0] == []


@pytest.mark.parametrize(
    ("log", "kinds"),
    [
        (cancelled(released=False), [ViolationKind.CANCELLED_HOLDS]),
        (cancelled(ago_s=29, released=False), []),  # released just now
        (cancelled().order("SHIPPED"), [ViolationKind.TWO_FINALS]),
        (cancelled().order("FAILED"), [ViolationKind.TWO_FINALS]),
        (cancelled().order("CANCELLED"), [ViolationKind.PUBLISHED_TWICE]),
        (cancelled().view("VALIDATED", *PASSES), [ViolationKind.CHANGED_BACK]),
        (validated(200).order("CANCELLED", 100), [ViolationKind.VIEW_DIFFERS, ViolationKind.CANCELLED_HOLDS]),
    ],
)
def test_what_breaks_a_promise(log, kinds):
    found = log.judge()[0]
    assert [kind for kind in found if kind is not ViolationKind.VIEW_DIFFERS or kind in kinds] == kinds


def checked_in_order(ago_s, *, rejected):
    """A cancelled order with a check-in `ago_s` seconds ago; it was cancelled 100 s ago."""
    log = cancelled().add(Source.CHECK_INS, checked_in(), ago_s)
    status = CheckinState.REJECTED if rejected else CheckinState.CREATED
    log.add(Source.PORTAL, PortalCheckins(order_no="o1", check_ins=(PortalCheckin(event_id="c1", status=status),)))
    if rejected:
        reason = "the order was cancelled"
        log.add(Source.REJECTIONS, CheckinRejected(event_id="c1", order_no="o1", reason=reason), ago_s)
    return with_row(log, checked_in=not rejected)


@pytest.mark.parametrize(
    ("ago_s", "rejected", "kinds"),
    [
        (150, False, []),  # accepted before
        (90, False, []),  # fulfilment may have read it before the cancellation
        (32, False, [ViolationKind.NOT_REJECTED]),
        (32, True, []),
        (150, True, []),  # waited for the verdicts, or was read late
    ],
)
def test_check_ins_after_the_cancellation_are_rejected(ago_s, rejected, kinds):
    assert checked_in_order(ago_s, rejected=rejected).judge(ALL)[0] == kinds


def test_a_fulfilment_that_came_after_the_cancellation_ships_nothing():
    paid = PaymentTotals().plus(payment := Payment(id="p1", order_id="o1", ccy="EUR", amount=5), "EUR")
    log = cancelled().add(Source.PAYMENTS, payment, 150).add(Source.CHECK_INS, checked_in(), 150)
    log.add(Source.PORTAL, PortalCheckins(order_no="o1", check_ins=(PortalCheckin(event_id="c1", status="CREATED"),)))
    log.add(Source.FULFILMENTS, Fulfilled(order_id="o1"), 150)
    log.add(Source.REFUNDS, Refund(refund_id="o1", order_id="o1", ccy="EUR", amount=5), 100)
    assert with_row(log, received=paid, checked_in=True, fulfilled=True).judge(ALL)[0] == []


@pytest.mark.parametrize(
    ("payments", "refunds", "kinds"),
    [
        ([], [], []),
        ([5], [5], []),
        ([5, 2], [5, 2], []),
        ([5, 2], [7], []),
        ([5, 2], [5], [ViolationKind.REFUND_MISSING]),
        ([5], [], [ViolationKind.REFUND_MISSING]),
        ([5], [6], [ViolationKind.REFUND_WRONG]),
        ([], [1], [ViolationKind.REFUND_WRONG]),
        ([5, -5], [5], []),  # the second one carries the refund out
        ([5, -5], [], []),  # or gave the money back before the order was cancelled
        ([5, -2], [2], [ViolationKind.REFUND_MISSING]),
        ([-5], [], []),
    ],
)
def test_refunds_are_what_was_paid(payments, refunds, kinds):
    log, received = cancelled(), PaymentTotals()
    for number, amount in enumerate(payments):
        payment = Payment(id=f"p{number}", order_id="o1", ccy="EUR", amount=amount)
        received = received.plus(payment, "EUR")
        log.add(Source.PAYMENTS, payment, 150)
    for number, amount in enumerate(refunds):
        log.add(Source.REFUNDS, Refund(refund_id=f"r{number}", order_id="o1", ccy="EUR", amount=amount), 90)
    assert with_row(log, received=received).judge(ALL)[0] == kinds


@pytest.mark.parametrize(("exactly_once", "kinds"), [(True, [ViolationKind.REFUND_TWICE]), (False, [])])
def test_a_refund_is_announced_once(exactly_once, kinds):
    paid = Payment(id="p1", order_id="o1", ccy="EUR", amount=5)
    log = with_row(cancelled().add(Source.PAYMENTS, paid, 150), received=PaymentTotals().plus(paid, "EUR"))
    for _ in range(2):
        log.add(Source.REFUNDS, Refund(refund_id="o1", order_id="o1", ccy="EUR", amount=5), 90)
    assert log.judge(replace(ALL, exactly_once=exactly_once))[0] == kinds


def test_a_refund_is_due_within_the_grace():
    paid = Payment(id="p1", order_id="o1", ccy="EUR", amount=5)
    log = with_row(cancelled().add(Source.PAYMENTS, paid, 1), received=PaymentTotals().plus(paid, "EUR"))
    found, counts, _ = log.judge(ALL)
    assert (found, counts["to be refunded"]) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "state", "found"),
    [("cancelled", "CANCELLED", []), ("cancelled", "VALIDATED", [ViolationKind.EMAIL_WRONG])],
)
def test_the_e_mail_about_the_cancellation_needs_one(kind, state, found):
    log = with_row(cancelled()) if state == "CANCELLED" else validated(100)
    if state == "VALIDATED":
        log.add(Source.PROGRESS, Progress(state=OrderState.VALIDATED, value=5), 100)
    log.add(Source.EMAILS, PendingSideEffect(effect="letter", payload=b""), 80)
    log.facts[-1] = log.facts[-1]._replace(about=kind)
    assert log.judge(ALL)[0] == found
