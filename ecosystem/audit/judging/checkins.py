"""The promise about check-ins: kept, announced, and rejected once if their order is none that can be shipped."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta

from ecosystem.audit.database_rows import CheckinRow
from ecosystem.audit.facts import Fact, Source
from ecosystem.audit.judging.history import History, Observed, facts_of
from ecosystem.audit.report import SKEW_MS, Kind, Rules, Violation
from portal_service.view import MAX_SHOWN
from schemas.api import CheckinState
from schemas.messages import CheckinRejected, HomeCheckin, OrderState

_By = Mapping[str, list[Observed[HomeCheckin]]]
_Rejections = Mapping[str, list[Observed[CheckinRejected]]]


def judge(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Holds check-ins against rejections, the database and the portal."""
    if Source.CHECK_INS not in rules.seen:
        return
    said: dict[str, list[Observed[HomeCheckin]]] = defaultdict(list)
    for check_in in order.of(Source.CHECK_INS):
        said[check_in.message.event_id].append(check_in)
    rejected: dict[str, list[Observed[CheckinRejected]]] = defaultdict(list)
    for rejection in order.of(Source.REJECTIONS):
        rejected[rejection.message.event_id].append(rejection)
    counts["check-ins"] += len(said)
    counts["check-ins rejected"] += len(rejected)
    yield from _repeats(order, said, rejected, rules, counts)
    if order.moving:
        return
    if {Source.PROGRESS, Source.REJECTIONS} <= rules.seen:
        yield from _rejections(order, said, rejected, rules, counts)
    yield from _database(order, said, rejected, rules, counts)
    if Source.PORTAL in rules.seen and (fault := _portal(order, said, rejected, rules)) is not None:
        yield Violation(Kind.PORTAL_DIFFERS, order.id, fault, _evidence(order, Source.PORTAL))


def _repeats(
    order: History, said: _By, rejected: _Rejections, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """A message of an outbox may be written again as it was: its readers know it by its id."""
    for id_, check_ins in said.items():
        counts["check-ins announced again"] += len(check_ins) - 1
        if any(seen.message != check_ins[0].message for seen in check_ins):
            says = f"check-in {id_} was announced in two ways"
            yield Violation(Kind.CHECKIN_DIFFERS, order.id, says, facts_of(check_ins))
    for id_, rejections in rejected.items():
        if len(rejections) > 1:
            counts["check-ins rejected again"] += len(rejections) - 1
            if rules.exactly_once:
                says = f"check-in {id_} was rejected {len(rejections)} times"
                yield Violation(Kind.REJECTED_TWICE, order.id, says, facts_of(rejections))


def _rejections(
    order: History, said: _By, rejected: _Rejections, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    for id_, rejections in rejected.items():
        first = rejections[0]
        if (why := _wrong(order, first, rules)) is not None:
            yield Violation(Kind.REJECTED_WRONGLY, order.id, f"check-in {id_} was rejected, {why}", _evidence(order))
        elif id_ not in said and rules.complete(Source.CHECK_INS, first.fact.time_ms, first.fact.partition):
            says = f"check-in {id_} was rejected, and there is none"
            yield Violation(Kind.REJECTED_WRONGLY, order.id, says, _evidence(order))
    for id_ in said.keys() - rejected.keys():
        due_ms = _to_be_rejected(order, said[id_][0].fact, rules)
        if due_ms is None:
            continue
        if rules.overdue(due_ms):
            state = OrderState.FAILED if order.posts else "unknown"
            says = f"check-in {id_} of an order that is {state} was not rejected"
            yield Violation(Kind.NOT_REJECTED, order.id, says, _evidence(order))
        else:
            counts["to be rejected"] += 1


def _wrong(order: History, rejection: Observed[CheckinRejected], rules: Rules) -> str | None:
    """Why there was no reason to reject; `None` if there was, or nobody can tell."""
    if OrderState.FAILED in order.states or order.posted is None:
        return None
    # The order may have come just as the patience of its check-in was at its end.
    known_ms = order.posted.fact.time_ms + max(rules.grace / timedelta(milliseconds=1), SKEW_MS)
    return "though its order was there and did not fail" if rejection.fact.time_ms > known_ms else None


def _to_be_rejected(order: History, check_in: Fact, rules: Rules) -> int | None:
    """From when on it was to be rejected; `None` if it was not, or nobody can tell."""
    if not rules.complete(Source.REJECTIONS, check_in.time_ms, check_in.partition):
        return None
    if order.states == {OrderState.FAILED}:
        return max(check_in.time_ms, order.finals[0].fact.time_ms)
    if order.posted is None and not order.finals and not rules.partial:
        return check_in.time_ms + int(rules.patience / timedelta(milliseconds=1))
    return None


def _database(
    order: History, said: _By, rejected: _Rejections, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """The rows as they were before the ends of the topics were found must be announced; what is announced must be
    among the rows as they were after that."""
    if Source.ROWS_AFTER not in rules.seen:
        return
    for seen in order.of(Source.ROWS_BEFORE):
        yield from _announced(order, seen, said, rejected, rules, counts)
    rows: dict[str, Observed[CheckinRow]] = {seen.message.event_id: seen for seen in order.of(Source.ROWS_AFTER)}
    counts["check-ins kept"] += len(rows)
    for id_, check_ins in said.items():
        row = rows.get(id_)
        if row is None:
            says = f"check-in {id_} was announced, and the database does not have it"
            yield Violation(Kind.CHECKIN_UNKNOWN, order.id, says, facts_of(check_ins))
        elif not _same(row.message, check_ins[0].message):
            says = f"check-in {id_} was announced otherwise than the database has it"
            yield Violation(Kind.CHECKIN_DIFFERS, order.id, says, facts_of(check_ins, [row]))
    for id_, rejections in rejected.items():
        row = rows.get(id_)
        if row is not None and row.message.status is not CheckinState.REJECTED:
            if rules.overdue(rejections[0].fact.time_ms):
                says = f"check-in {id_} was rejected, and the database has it as {row.message.status}"
                yield Violation(Kind.CHECKIN_STATUS, order.id, says, facts_of(rejections, [row]))
            else:
                counts["to be rejected"] += 1


def _announced(
    order: History, seen: Observed[CheckinRow], said: _By, rejected: _Rejections, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    row, kept_ms = seen.message, seen.fact.time_ms
    if not rules.complete(Source.CHECK_INS, kept_ms):
        return
    if row.event_id not in said:
        if row.published or rules.overdue(kept_ms):
            how = "its message is marked as published" if row.published else "its message still waits in the outbox"
            says = f"check-in {row.event_id} was taken and not announced: {how}"
            yield Violation(Kind.CHECKIN_LOST, order.id, says, [seen.fact])
        else:
            counts["to be announced"] += 1
    if row.status is CheckinState.REJECTED and row.event_id not in rejected:
        says = f"the database has check-in {row.event_id} as REJECTED, which nobody said"
        yield Violation(Kind.CHECKIN_STATUS, order.id, says, [seen.fact])


def _same(row: CheckinRow, message: HomeCheckin) -> bool:
    return message == message.model_copy(update={n: v for n, v in row if n in HomeCheckin.model_fields})


def _portal(order: History, said: _By, rejected: _Rejections, rules: Rules) -> str | None:
    """What is wrong with what the portal shows."""
    if len(said) > MAX_SHOWN:
        return None
    row = order.row(Source.PORTAL)
    shown = {c.event_id: c.status for c in row.check_ins} if row else {}
    for id_, check_ins in said.items():
        wanted = CheckinState.REJECTED if id_ in rejected else CheckinState.CREATED
        last = (rejected.get(id_) or check_ins)[0].fact
        if shown.get(id_) != wanted and rules.overdue(last.time_ms):
            return f"check-in {id_} is {wanted}, and the portal shows {shown.get(id_, 'none')}"
    return None


def _evidence(order: History, *also: Source) -> list[Fact]:
    around = (order.of(s) for s in (Source.CHECK_INS, Source.REJECTIONS))
    return facts_of(order.posts[:1], order.finals, *around, *(order.of(source)[-1:] for source in also))
