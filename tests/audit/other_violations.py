"""Violations of the promises of fulfilment, check-in, e-mail and product services. Each function writes one kind."""

from decimal import Decimal

from ecosystem.audit import ViolationKind
from ecosystem.audit.sources import TOPICS, Source
from product_subscribers.monitoring.processors import ALL
from schemas.api import CheckinState
from schemas.messages import CheckinRejected, OrderEnriched, Payment, Refund
from schemas.payments import PaymentTotals
from tests.audit import topics
from tests.audit.day import customer_of
from tests.audit.topics import copy, post_of


def paid_and_refunded(logs, *refunds):
    """As if the cancelled order had been paid 5 EUR, and these amounts refunded."""
    paid = Payment(id="late", order_id="regret", ccy="EUR", amount=Decimal(5))
    row = logs.of(Source.PROGRESS, "regret")[-1]
    logs.add(topics.stored(Source.PAYMENTS, "late", paid, row.time_ms))
    logs.change(row, received=PaymentTotals().plus(paid, "EUR"))
    for amount in refunds:
        refund = Refund(refund_id="regret", order_id="regret", ccy="EUR", amount=Decimal(amount))
        logs.add(topics.stored(Source.REFUNDS, "regret", refund, row.time_ms))


def never_refunded(logs):
    paid_and_refunded(logs)


def refunded_twice(logs):
    paid_and_refunded(logs, 5, 5)


def refunded_too_much(logs):
    paid_and_refunded(logs, 6)


def refunded_though_not_cancelled(logs):
    [payment] = logs.of(Source.PAYMENTS, "p2")
    refund = Refund(refund_id="paid", order_id="paid", ccy="EUR", amount=Decimal(5))
    logs.add(topics.stored(Source.REFUNDS, "paid", refund, payment.time_ms))


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
    """As if fulfilment had ignored the currency of a payment."""
    [payment] = logs.of(Source.PAYMENTS, "p0")
    logs.change(payment, ccy="IDR")


def confirmed_too_early(logs):
    """The confirmation was sent although the order was never paid in full."""
    [payment] = logs.of(Source.PAYMENTS, "p2")
    part = payment.message.model_copy(update={"amount": Decimal("0.5")})
    logs.change(payment, amount=part.amount)
    logs.change(logs.of(Source.PROGRESS, "paid")[-1], received=PaymentTotals().plus(part, "EUR"))


def never_fulfilled(logs):
    """All prerequisites are met, and the progress row says so."""
    [check_in] = logs.of(Source.CHECK_INS, "mug-0")
    logs.add(topics.stored(Source.CHECK_INS, "paid", copy(check_in, order_no="paid", event_id="c"), check_in.time_ms))
    logs.change(logs.of(Source.PROGRESS, "paid")[-1], checked_in=True)
    [shown] = logs.of(Source.PORTAL, "mug-0")[-1:]
    of_other = tuple(c.model_copy(update={"event_id": "c"}) for c in shown.message.check_ins)
    row = copy(shown, order_no="paid", check_ins=of_other)
    logs.add(topics.stored(Source.PORTAL, "paid", row, shown.time_ms))


def never_shipped(logs):
    """As if the orders service had not read the fulfilment."""
    last = (Source.ORDERS, Source.VIEW, Source.RESERVATIONS, Source.PROGRESS)
    logs.drop(*[logs.of(source, "shipped")[-1] for source in last], logs.of(Source.STOCK, "TAMPER")[-1])
    logs.drop(*logs.of(Source.EMAILS, "shipped/shipped"))


def payment_not_in_the_row(logs):
    [payment] = logs.of(Source.PAYMENTS, "p0")
    logs.change(logs.of(Source.PROGRESS, "shipped")[-1], received=PaymentTotals().plus(payment.message, "EUR"))


def no_row_of_a_payment(logs):
    logs.drop(*logs.of(Source.PROGRESS, "paid"))


def announced_otherwise(logs):
    [check_in] = logs.of(Source.CHECK_INS, "mug-0")
    logs.add(check_in.with_fields(staff_code="another"))


def not_rejected(order_id):
    def violate(logs):
        logs.drop(*logs.of(Source.REJECTIONS, order_id))
        [row] = logs.of(Source.PORTAL, order_id)[-1:]
        told = {"status": CheckinState.CREATED}
        logs.change(row, check_ins=tuple(c.model_copy(update=told) for c in row.message.check_ins))

    return violate


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
    logs.add(topics.stored(Source.REJECTIONS, order_id, rejection, at_ms))
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
    logs.add(topics.stored(Source.ENRICHED, "dear", enriched, post_of(logs, "dear").time_ms))


def enriched_with_another_customer(logs):
    logs.change(logs.of(Source.ENRICHED, "paid")[0], customer_id=customer_of("dear"))


def level_of_another_topic(logs):
    [gold] = logs.of(Source.GOLD, "shipped")
    logs.drop(gold)
    logs.add(topics.stored(Source.SILVER, "shipped", gold.message, gold.time_ms))


def level_topic_twice(logs):
    logs.add(*logs.of(Source.GOLD, "shipped"))


def level_topic_never(logs):
    logs.drop(*logs.of(Source.GOLD, "shipped"))


def level_of_nobody(logs):
    for source in (Source.GOLD, Source.ENRICHED):
        logs.change(logs.of(source, "shipped")[0], customer_level="platinum")
    [customer] = logs.of(Source.CUSTOMERS, str(customer_of("shipped")))
    long_ago = topics.StoredRecord(
        customer.topic, customer.partition, customer.time_ms - 3_600_000, customer.key, customer.value
    )
    logs.records[logs.records.index(customer)] = long_ago
    [gold] = logs.of(Source.GOLD, "shipped")
    logs.drop(gold)
    logs.add(topics.stored(Source.PLATINUM, "shipped", gold.message, gold.time_ms))


def letter_missing(kind, order_id):
    return lambda logs: logs.drop(*logs.of(Source.EMAILS, f"{order_id}/{kind}"))


def letter_twice(logs):
    logs.add(*logs.of(Source.EMAILS, "dear/failed"))


def letter_of_another_state(logs):
    rows = logs.of(Source.EMAILS, "dear/failed")
    logs.add(*[topics.stored(Source.EMAILS, "paid/failed", row.message, row.time_ms) for row in rows])


def change_missing(logs):
    change = logs.of(Source.CHANGES, "PRESS")[1]
    logs.drop(change, *notices_of(logs, change))
    [totals] = logs.of(Source.TOTALS, ALL)[-1:]
    logs.change(totals, updated=totals.message.updated - 1, gaps=1)


def change_again_as_it_was_not(logs):
    logs.add(logs.of(Source.CHANGES, "FILTER")[0].with_fields(price=1))


def not_heard(logs):
    logs.drop(*logs.of(Source.DETAILS_OFFERS, "FILTER"))


def alert_twice(logs):
    logs.add(*logs.of(Source.ALERTS, "PRESS"))


def alert_missing(logs):
    [alert] = logs.of(Source.ALERTS, "PRESS")
    logs.drop(alert, *notices_of(logs, alert))


def totals_differ(logs):
    [totals] = logs.of(Source.TOTALS, ALL)[-1:]
    logs.change(totals, updated=totals.message.updated + 1)


def notices_of(logs, event):
    """The records of e-mails about a change or an alert."""
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
    logs.add(*[topics.stored(Source.NOTICES, key, row.message, row.time_ms) for row in notices_of(logs, change)])
    return "none"


OTHER_VIOLATIONS = [
    (stock_not_reduced, "TAMPER", {ViolationKind.COUNT_DIFFERS}),
    (fulfilled_twice, "shipped", {ViolationKind.FULFILLED_TWICE}),
    (shipped_by_nobody, "shipped", {ViolationKind.SHIPPED_WITHOUT}),
    (shipped_without_a_check_in, "shipped", {ViolationKind.SHIPPED_WITHOUT}),
    (shipped_without_enough, "shipped", {ViolationKind.SHIPPED_WITHOUT, ViolationKind.CONFIRMED_UNPAID}),
    (
        shipped_for_another_currency,
        "shipped",
        {ViolationKind.SHIPPED_WITHOUT, ViolationKind.CONFIRMED_UNPAID, ViolationKind.PROGRESS_DIFFERS},
    ),
    (confirmed_too_early, "paid", {ViolationKind.CONFIRMED_UNPAID}),
    (never_fulfilled, "paid", {ViolationKind.NOT_FULFILLED}),
    (never_shipped, "shipped", {ViolationKind.NOT_SHIPPED}),
    (payment_not_in_the_row, "shipped", {ViolationKind.PROGRESS_DIFFERS}),
    (no_row_of_a_payment, "paid", {ViolationKind.PROGRESS_DIFFERS}),
    (never_refunded, "regret", {ViolationKind.REFUND_MISSING}),
    (refunded_twice, "regret", {ViolationKind.REFUND_TWICE}),
    (refunded_too_much, "regret", {ViolationKind.REFUND_WRONG}),
    (refunded_though_not_cancelled, "paid", {ViolationKind.REFUND_WRONG}),
    (announced_otherwise, "mug-0", {ViolationKind.CHECKIN_DIFFERS}),
    (not_rejected("dear"), "dear", {ViolationKind.NOT_REJECTED}),
    (not_rejected("nowhere"), "nowhere", {ViolationKind.NOT_REJECTED}),
    (rejected_twice, "nowhere", {ViolationKind.REJECTED_TWICE}),
    (rejected_wrongly, "mug-0", {ViolationKind.REJECTED_WRONGLY}),
    (rejected_unknown, "dear", {ViolationKind.REJECTED_WRONGLY}),
    (not_at_the_portal, "mug-0", {ViolationKind.PORTAL_DIFFERS}),
    (not_enriched, "paid", {ViolationKind.NOT_ENRICHED}),
    (enriched_twice, "paid", {ViolationKind.ENRICHED_TWICE}),
    (enriched_though_failed, "dear", {ViolationKind.ENRICHED_WRONGLY}),
    (enriched_with_another_customer, "paid", {ViolationKind.ENRICHED_WRONGLY}),
    (level_of_another_topic, "shipped", {ViolationKind.LEVEL_DIFFERS}),
    (level_topic_twice, "shipped", {ViolationKind.LEVEL_DIFFERS}),
    (level_topic_never, "shipped", {ViolationKind.LEVEL_DIFFERS}),
    (level_of_nobody, "shipped", {ViolationKind.LEVEL_DIFFERS}),
    (letter_missing("validated", "paid"), "paid", {ViolationKind.EMAIL_MISSING}),
    (letter_missing("failed", "dear"), "dear", {ViolationKind.EMAIL_MISSING}),
    (letter_missing("shipped", "shipped"), "shipped", {ViolationKind.EMAIL_MISSING}),
    (letter_twice, "dear", {ViolationKind.EMAIL_TWICE}),
    (letter_of_another_state, "paid", {ViolationKind.EMAIL_WRONG}),
    (change_missing, "PRESS", {ViolationKind.VERSIONS_DIFFER, ViolationKind.ALERT_DIFFERS}),
    (change_again_as_it_was_not, "FILTER", {ViolationKind.CHANGE_DIFFERS}),
    (not_heard, "FILTER", {ViolationKind.SUBSCRIBER_DIFFERS}),
    (alert_twice, "PRESS", {ViolationKind.ALERT_TWICE}),
    (alert_missing, "PRESS", {ViolationKind.ALERT_DIFFERS}),
    (totals_differ, ALL, {ViolationKind.TOTALS_DIFFER}),
]

PRODUCT_EMAIL_VIOLATIONS = [
    (notice_missing, ViolationKind.NOTICE_MISSING),
    (notice_twice, ViolationKind.NOTICE_TWICE),
    (notice_wrong, ViolationKind.NOTICE_WRONG),
]
