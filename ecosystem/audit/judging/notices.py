"""Promise: for each change and alert, one e-mail to each recipient is enqueued and delivered at least once.

A repeated delivery has the same Message-ID.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.emails import TOMBSTONE_RETENTION_MS
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source


def judge(event_id: str, facts: Sequence[Fact], rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Judges the e-mails about one event by whether it was published."""
    if Source.NOTICES not in rules.seen:
        return
    published = [fact for fact in facts if fact.source is Source.NOTIFIABLE_EVENTS]
    by_recipient: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.source is not Source.NOTIFIABLE_EVENTS:
            by_recipient.setdefault(fact.about, []).append(fact)
    moving = any(fact.late for fact in facts)
    for recipient, of_recipient in by_recipient.items():
        yield from _email(event_id, recipient, of_recipient, published, moving, rules, counts)
    if not published or moving:
        return
    due_ms = min(fact.time_ms for fact in published)
    for recipient in rules.notified:
        if recipient in by_recipient:
            continue
        if not rules.overdue(due_ms):
            counts["notices due"] += 1
        elif rules.now_ms - due_ms < TOMBSTONE_RETENTION_MS or Source.NOTICES_DELIVERED in rules.seen:
            yield Violation(ViolationKind.NOTICE_MISSING, event_id, f"no e-mail to {recipient} was enqueued", published)
        else:
            counts["unchecked emails"] += 1


def _email(
    event_id: str,
    recipient: str,
    facts: Sequence[Fact],
    published: Sequence[Fact],
    moving: bool,
    rules: Rules,
    counts: Counter[str],
) -> Iterator[Violation]:
    rows = [fact for fact in facts if fact.source is Source.NOTICES]
    rejected = [fact for fact in facts if fact.source is Source.NOTICES_REJECTED]
    delivered = [fact for fact in facts if fact.source is Source.NOTICES_DELIVERED]
    counts["notices"] += 1
    counts["notices delivered"] += bool(delivered)
    counts["notices delivered again"] += max(0, len(delivered) - 1)
    times = sum(fact.value is not None for fact in rows)
    if times > 1 + len(rejected):
        counts["notices enqueued again"] += times - 1
        if rules.exactly_once:
            text = f"its e-mail to {recipient} was enqueued {times} times"
            yield Violation(ViolationKind.NOTICE_TWICE, event_id, text, facts)
    if moving:
        return
    if not published:
        if not rules.from_ms.get(Source.CHANGES) and not rules.from_ms.get(Source.ALERTS):
            text = f"an e-mail to {recipient} was enqueued, and there is no such change or alert"
            yield Violation(ViolationKind.NOTICE_WRONG, event_id, text, facts)
    elif rows and rows[-1].value is not None:
        counts["notices due"] += 1
    elif rows and not delivered and not rejected and Source.NOTICES_DELIVERED in rules.seen:
        text = f"its e-mail to {recipient} is acknowledged, and was not delivered"
        yield Violation(ViolationKind.NOTICE_LOST, event_id, text, facts)
