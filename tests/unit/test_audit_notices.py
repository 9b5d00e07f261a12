"""What the audit makes of letters about products."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging import notices
from ecosystem.audit.report import Rules, ViolationKind
from ecosystem.audit.sources import TOPICS, Source
from schemas.messages import BuiltInCheck

NOW_MS = 1_000_000_000
TO = "shop@example.org"
ASKED, DONE, REFUSED = (Source.NOTICES, b"{}"), (Source.NOTICES, None), (Source.NOTICES_REJECTED, b"{}")
MAIL = (Source.NOTICES_DELIVERED, None)
TOLD = (Source.NOTIFIABLE_EVENTS, b"{}")
RULES = Rules(
    required=frozenset(BuiltInCheck),
    deadline=timedelta(seconds=60),
    grace=timedelta(seconds=30),
    exactly_once=True,
    now_ms=NOW_MS,
    notified=(TO,),
    seen=frozenset(TOPICS) | {Source.NOTICES_DELIVERED},
)


def judged(*records, rules=RULES, ago_s=100, late=False):
    counts = Counter()
    facts = [
        Fact(source, 0, n, NOW_MS - 1000 * ago_s, late, value, "" if source is Source.NOTIFIABLE_EVENTS else TO)
        for n, (source, value) in enumerate(records)
    ]
    return [v.kind for v in notices.judge("e1", facts, rules, counts)], counts


@pytest.mark.parametrize(
    ("records", "kinds"),
    [
        ((TOLD, ASKED, DONE, MAIL), []),
        ((TOLD, ASKED), []),  # the mail server may be away
        ((TOLD, ASKED, DONE, REFUSED), []),
        ((TOLD, ASKED, DONE, REFUSED, ASKED, DONE, MAIL), []),  # redriven
        ((TOLD, ASKED, DONE, MAIL, MAIL), []),
        ((TOLD, MAIL), []),  # its rows are no longer kept
        ((TOLD,), [ViolationKind.NOTICE_MISSING]),
        ((TOLD, ASKED, DONE, ASKED, DONE, MAIL), [ViolationKind.NOTICE_TWICE]),
        ((ASKED, DONE, MAIL), [ViolationKind.NOTICE_WRONG]),
        ((MAIL,), [ViolationKind.NOTICE_WRONG]),
        ((TOLD, ASKED, DONE), [ViolationKind.NOTICE_LOST]),
    ],
)
def test_each_event_is_written_about_once_to_each_address(records, kinds):
    assert judged(*records)[0] == kinds


def test_at_least_once_a_letter_may_be_asked_for_twice_and_none_be_missing():
    rules = replace(RULES, exactly_once=False)
    found, counts = judged(TOLD, ASKED, DONE, ASKED, DONE, MAIL, rules=rules)
    assert (found, counts["notices enqueued again"]) == ([], 1)
    for records, kind in (((TOLD,), ViolationKind.NOTICE_MISSING), ((TOLD, ASKED, DONE), ViolationKind.NOTICE_LOST)):
        assert judged(*records, rules=rules)[0] == [kind]


def test_what_came_twice_is_counted():
    counts = judged(TOLD, ASKED, DONE, MAIL, MAIL)[1]
    assert (counts["notices"], counts["notices delivered"], counts["notices delivered again"]) == (1, 1, 1)


def test_a_letter_may_still_come():
    found, counts = judged(TOLD, ago_s=29)
    assert (found, counts["notices due"]) == ([], 1)
    assert judged(TOLD, late=True)[0] == []
    assert judged(ASKED, DONE, MAIL, late=True)[0] == []


def test_nothing_is_said_of_what_is_not_known():
    assert judged(TOLD, ASKED, DONE, rules=replace(RULES, seen=frozenset(TOPICS)))[0] == []
    assert judged(TOLD, rules=replace(RULES, seen=RULES.seen - {Source.NOTICES}))[0] == []
    assert judged(TOLD, rules=replace(RULES, notified=()))[0] == []
    assert judged(MAIL, rules=replace(RULES, from_ms={Source.CHANGES: {0: 1}}))[0] == []
    found, counts = judged(TOLD, ago_s=25 * 3600, rules=replace(RULES, seen=frozenset(TOPICS)))
    assert (found, counts["unchecked emails"]) == ([], 1)
