"""Differences between topics and databases: a function that changes the topics, or SQL that changes the database."""

from ecosystem.audit import ViolationKind
from ecosystem.audit.sources import SUBSCRIBERS, Source
from product_subscribers.monitoring.processors import ALL
from tests.audit import topics
from tests.audit.other_violations import notices_of
from tests.audit.topics import copy


def check_in_lost(logs):
    logs.drop(*logs.of(Source.CHECK_INS, "mug-0"))


def check_in_of_no_row(logs):
    [check_in] = logs.of(Source.CHECK_INS, "mug-0")
    logs.add(topics.stored(Source.CHECK_INS, "mug-0", copy(check_in, event_id="c"), check_in.time_ms))
    [shown] = logs.of(Source.PORTAL, "mug-0")[-1:]
    also = tuple(c.model_copy(update={"event_id": "c"}) for c in shown.message.check_ins)
    logs.change(shown, check_ins=shown.message.check_ins + also)


def change_lost(logs):
    """Removes a change and everything that subscribers did with it."""
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

CHECKIN_DATABASE_VIOLATIONS = [
    (check_in_lost, (), "mug-0", {ViolationKind.CHECKIN_LOST}, "marked as published"),
    (
        check_in_lost,
        (PUBLISHED.format("NULL", "mug-0"), PUBLISHED.format("now()", "mug-0")),
        "mug-0",
        {ViolationKind.CHECKIN_LOST},
        "still in the outbox",
    ),
    (check_in_of_no_row, (), "mug-0", {ViolationKind.CHECKIN_UNKNOWN}, "is not in the database"),
    (
        None,
        (STATUS.format("CREATED", "dear"), STATUS.format("REJECTED", "dear")),
        "dear",
        {ViolationKind.CHECKIN_STATUS},
        "was rejected, and",
    ),
    (
        None,
        (STATUS.format("REJECTED", "shipped"), STATUS.format("CREATED", "shipped")),
        "shipped",
        {ViolationKind.CHECKIN_STATUS},
        "no rejection was published",
    ),
    (
        None,
        (STAFF.format("x", "dear"), STAFF.format("s", "dear")),
        "dear",
        {ViolationKind.CHECKIN_DIFFERS},
        "with other content",
    ),
]

PRICE = "UPDATE products SET price = {} WHERE code = 'FILTER'"

VERSION = "UPDATE products SET version = {} WHERE code = 'FILTER'"

LOGGED = (
    "ALTER TABLE product_log DISABLE TRIGGER append_only; UPDATE product_log SET price = {} WHERE code = 'FILTER'; "
    "ALTER TABLE product_log ENABLE ALWAYS TRIGGER append_only"
)

PRODUCT_DATABASE_VIOLATIONS = [
    ("products", change_lost, (), {ViolationKind.CHANGE_LOST}, "marked as published"),
    ("products", None, (VERSION.format(0), VERSION.format(1)), {ViolationKind.CHANGE_UNKNOWN}, "the database has 0"),
    ("products", None, (PRICE.format(1), PRICE.format(3)), {ViolationKind.CHANGE_DIFFERS}, "with other content"),
    (
        "product_log",
        None,
        (LOGGED.format(1), LOGGED.format(3)),
        {ViolationKind.LOG_DIFFERS},
        "has other content in the log",
    ),
]
