"""The promise about letters on products: for each change and each alert one to each address is asked for and delivered.

As with those on orders, one may be delivered more than once: then each has the same Message-ID.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from ecosystem.audit.facts import Fact, Source
from ecosystem.audit.judging.emails import KEPT_MS
from ecosystem.audit.report import Kind, Rules, Violation


def judge(event_id: str, facts: Sequence[Fact], rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Holds the letters about one event against whether it was announced."""
    if Source.NOTICES not in rules.seen:
        return
    announced = [fact for fact in facts if fact.source is Source.TOLD_OF]
    letters: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.source is not Source.TOLD_OF:
            letters.setdefault(fact.about, []).append(fact)
    moving = any(fact.late for fact in facts)
    for to, of in letters.items():
        yield from _letter(event_id, to, of, announced, moving, rules, counts)
    if not announced or moving:
        return
    due_ms = min(fact.time_ms for fact in announced)
    for to in rules.notified:
        if to in letters:
            continue
        if not rules.overdue(due_ms):
            counts["notices to come"] += 1
        elif rules.now_ms - due_ms < KEPT_MS or Source.NOTICES_MAIL in rules.seen:
            yield Violation(Kind.NOTICE_MISSING, event_id, f"no letter to {to} was asked for", announced)
        else:
            counts["unchecked letters"] += 1


def _letter(
    event_id: str,
    to: str,
    facts: Sequence[Fact],
    announced: Sequence[Fact],
    moving: bool,
    rules: Rules,
    counts: Counter[str],
) -> Iterator[Violation]:
    rows = [fact for fact in facts if fact.source is Source.NOTICES]
    refused = [fact for fact in facts if fact.source is Source.NOTICES_REFUSED]
    mail = [fact for fact in facts if fact.source is Source.NOTICES_MAIL]
    counts["notices"] += 1
    counts["notices delivered"] += bool(mail)
    counts["notices delivered again"] += max(0, len(mail) - 1)
    times = sum(fact.value is not None for fact in rows)
    if times > 1 + len(refused):
        counts["notices asked for again"] += times - 1
        if rules.exactly_once:
            yield Violation(Kind.NOTICE_TWICE, event_id, f"its letter to {to} was asked for {times} times", facts)
    if moving:
        return
    if not announced:
        if not rules.from_ms.get(Source.CHANGES) and not rules.from_ms.get(Source.ALERTS):
            says = f"there is a letter to {to}, and no such change or alert"
            yield Violation(Kind.NOTICE_WRONG, event_id, says, facts)
    elif rows and rows[-1].value is not None:
        counts["notices to come"] += 1
    elif rows and not mail and not refused and Source.NOTICES_MAIL in rules.seen:
        says = f"its letter to {to} is done with, and was not delivered"
        yield Violation(Kind.NOTICE_LOST, event_id, says, facts)
