"""Promise: every check-in is stored and published, and rejected once unless its order is valid."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta

from ecosystem.audit.database_rows import CheckinRow
from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed, OrderHistory, by_id, facts_of, written_twice
from ecosystem.audit.report import SKEW_MS, Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source
from portal_service.processors import MAX_SHOWN
from schemas.api import CheckinState
from schemas.messages import CheckinRejected, HomeCheckin, OrderState

_CheckIns = Mapping[str, list[Observed[HomeCheckin]]]
_Rejections = Mapping[str, list[Observed[CheckinRejected]]]


def judge(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Judges check-ins by rejections, the database and the portal."""
    if Source.CHECK_INS not in rules.seen:
        return
    published: _CheckIns = by_id(order.of(Source.CHECK_INS), lambda check_in: check_in.event_id)
    rejected: _Rejections = by_id(order.of(Source.REJECTIONS), lambda rejection: rejection.event_id)
    counts["check-ins"] += len(published)
    counts["check-ins rejected"] += len(rejected)
    yield from _repeats(order, published, rejected, rules, counts)
    if order.moving:
        return
    if {Source.PROGRESS, Source.REJECTIONS} <= rules.seen:
        yield from _rejections(order, published, rejected, rules, counts)
    yield from _database(order, published, rejected, rules, counts)
    if Source.PORTAL in rules.seen and (fault := _portal_difference(order, published, rejected, rules)) is not None:
        yield Violation(ViolationKind.PORTAL_DIFFERS, order.id, fault, _evidence(order, Source.PORTAL))


def _repeats(
    order: OrderHistory, published: _CheckIns, rejected: _Rejections, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """An outbox may publish a message again unchanged: its readers recognise the id."""
    for id_, check_ins in published.items():
        counts["check-ins published again"] += len(check_ins) - 1
        if any(seen.message != check_ins[0].message for seen in check_ins):
            text = f"check-in {id_} was published with different contents"
            yield Violation(ViolationKind.CHECKIN_DIFFERS, order.id, text, facts_of(check_ins))
    for id_, rejections in rejected.items():
        if len(rejections) > 1:
            counts["check-ins rejected again"] += len(rejections) - 1
            if rules.exactly_once and written_twice(rejections):
                text = f"check-in {id_} was rejected {len(rejections)} times"
                yield Violation(ViolationKind.REJECTED_TWICE, order.id, text, facts_of(rejections))


def _rejections(
    order: OrderHistory, published: _CheckIns, rejected: _Rejections, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    for id_, rejections in rejected.items():
        first = rejections[0]
        if (why := _wrong_rejection(order, first, rules)) is not None:
            text = f"check-in {id_} was rejected, {why}"
            yield Violation(ViolationKind.REJECTED_WRONGLY, order.id, text, _evidence(order))
        elif id_ not in published and rules.complete(Source.CHECK_INS, first.fact.time_ms, first.fact.partition):
            text = f"check-in {id_} was rejected, and does not exist"
            yield Violation(ViolationKind.REJECTED_WRONGLY, order.id, text, _evidence(order))
    for id_ in published.keys() - rejected.keys():
        due_ms = _rejection_due_ms(order, published[id_][0].fact, rules)
        if due_ms is None:
            continue
        if rules.overdue(due_ms):
            state = order.finals[-1].message.state if order.finals else "unknown"
            text = f"check-in {id_} of an order that is {state} was not rejected"
            yield Violation(ViolationKind.NOT_REJECTED, order.id, text, _evidence(order))
        else:
            counts["to be rejected"] += 1


def _wrong_rejection(order: OrderHistory, rejection: Observed[CheckinRejected], rules: Rules) -> str | None:
    """Says why a rejection is wrong; `None` if it is right, or unknown."""
    if {OrderState.FAILED, OrderState.CANCELLED} & order.states or order.posted is None:
        return None
    # The order may have come at the end of the time that its check-in waited for it.
    known_ms = order.posted.fact.time_ms + max(rules.grace / timedelta(milliseconds=1), SKEW_MS)
    return (
        "although its order existed, and neither failed nor was cancelled"
        if rejection.fact.time_ms > known_ms
        else None
    )


def _rejection_due_ms(order: OrderHistory, check_in: Fact, rules: Rules) -> int | None:
    """Returns when a rejection was due; `None` if none was, or it is unknown."""
    if not rules.complete(Source.REJECTIONS, check_in.time_ms, check_in.partition):
        return None
    if order.states in ({OrderState.FAILED}, {OrderState.CANCELLED}):
        return max(check_in.time_ms, order.finals[0].fact.time_ms)
    cancelled = order.first_in(OrderState.CANCELLED)
    if cancelled is not None and order.is_consistent:
        # Fulfilment may have read the check-in first, and accepted it: the topics have no common order.
        read_ms = cancelled.fact.time_ms + max(rules.grace / timedelta(milliseconds=1), SKEW_MS)
        return check_in.time_ms if check_in.time_ms > read_ms else None
    if order.posted is None and not order.finals and not rules.partial:
        return check_in.time_ms + int(rules.patience / timedelta(milliseconds=1))
    return None


def _database(
    order: OrderHistory, published: _CheckIns, rejected: _Rejections, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """Rows read before the end offsets must be published; published check-ins must be among the rows read after."""
    if Source.CHECK_IN_ROWS_AFTER not in rules.seen:
        return
    for seen in order.of(Source.CHECK_IN_ROWS_BEFORE):
        yield from _row_published(order, seen, published, rejected, rules, counts)
    rows: dict[str, Observed[CheckinRow]] = {
        seen.message.event_id: seen for seen in order.of(Source.CHECK_IN_ROWS_AFTER)
    }
    counts["check-ins stored"] += len(rows)
    for id_, check_ins in published.items():
        row = rows.get(id_)
        if row is None:
            text = f"check-in {id_} was published, and is not in the database"
            yield Violation(ViolationKind.CHECKIN_UNKNOWN, order.id, text, facts_of(check_ins))
        elif not _same(row.message, check_ins[0].message):
            text = f"check-in {id_} was published with other content than in the database"
            yield Violation(ViolationKind.CHECKIN_DIFFERS, order.id, text, facts_of(check_ins, [row]))
    for id_, rejections in rejected.items():
        row = rows.get(id_)
        if row is not None and row.message.status is not CheckinState.REJECTED:
            if rules.overdue(rejections[0].fact.time_ms):
                text = f"check-in {id_} was rejected, and is {row.message.status} in the database"
                yield Violation(ViolationKind.CHECKIN_STATUS, order.id, text, facts_of(rejections, [row]))
            else:
                counts["to be rejected"] += 1


def _row_published(
    order: OrderHistory,
    seen: Observed[CheckinRow],
    published: _CheckIns,
    rejected: _Rejections,
    rules: Rules,
    counts: Counter[str],
) -> Iterator[Violation]:
    row, stored_ms = seen.message, seen.fact.time_ms
    if not rules.complete(Source.CHECK_INS, stored_ms):
        return
    if row.event_id not in published:
        if row.published or rules.overdue(stored_ms):
            how = "its message is marked as published" if row.published else "its message is still in the outbox"
            text = f"check-in {row.event_id} is in the database and was not published: {how}"
            yield Violation(ViolationKind.CHECKIN_LOST, order.id, text, [seen.fact])
        else:
            counts["to be published"] += 1
    if row.status is CheckinState.REJECTED and row.event_id not in rejected:
        text = f"check-in {row.event_id} is REJECTED in the database, and no rejection was published"
        yield Violation(ViolationKind.CHECKIN_STATUS, order.id, text, [seen.fact])


def _same(row: CheckinRow, message: HomeCheckin) -> bool:
    return message == message.model_copy(update={n: v for n, v in row if n in HomeCheckin.model_fields})


def _portal_difference(order: OrderHistory, published: _CheckIns, rejected: _Rejections, rules: Rules) -> str | None:
    """Returns what is wrong with the row of the portal."""
    if len(published) > MAX_SHOWN:
        return None
    row = order.row(Source.PORTAL)
    shown = {c.event_id: c.status for c in row.check_ins} if row else {}
    for id_, check_ins in published.items():
        wanted = CheckinState.REJECTED if id_ in rejected else CheckinState.CREATED
        last = (rejected.get(id_) or check_ins)[0].fact
        if shown.get(id_) != wanted and rules.overdue(last.time_ms):
            return f"check-in {id_} is {wanted}, and the portal shows {shown.get(id_, 'none')}"
    return None


def _evidence(order: OrderHistory, *also: Source) -> list[Fact]:
    topics = (order.of(s) for s in (Source.CHECK_INS, Source.REJECTIONS))
    return facts_of(order.posts[:1], order.finals, *topics, *(order.of(source)[-1:] for source in also))
