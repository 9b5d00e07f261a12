"""Violations of the core's promises. Each function writes one kind into the recorded topics of a sound day."""

from datetime import UTC, datetime, timedelta

from ecosystem.audit import ViolationKind
from ecosystem.audit.sources import Source
from schemas.messages import BuiltInCheck, OrderState, ValidationResult
from tests.audit import topics
from tests.audit.topics import final_of, post_of

FRAUD = BuiltInCheck.FRAUD_CHECK


def stuck(logs):
    [timer] = logs.of(Source.TIMERS, "open")[-1:]
    logs.change(timer, at=datetime.now(UTC) - timedelta(minutes=10))


def stuck_without_a_timer(logs):
    logs.drop(*logs.of(Source.TIMERS, "open"))


def never_seen(logs):
    post = topics.stored(Source.ORDERS, "lost", post_of(logs, "open").message.model_copy(update={"id": "lost"}), 1)
    logs.add(post)


def two_finals(logs):
    logs.add(final_of(logs, "grinder").with_fields(state=OrderState.FAILED))


def shipped_though_failed(logs):
    logs.add(final_of(logs, "dear").with_fields(state=OrderState.SHIPPED))


def shipped_though_cancelled(logs):
    logs.add(final_of(logs, "regret").with_fields(state=OrderState.SHIPPED))


def view_changed_back(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.add(row.with_fields(order=post_of(logs, "grinder").message), row)


def announced_twice(logs):
    logs.add(final_of(logs, "grinder"))


def never_posted(logs):
    final = final_of(logs, "grinder").message.model_copy(update={"id": "ghost"})
    logs.add(topics.stored(Source.ORDERS, "ghost", final, 1))


def decided_before_it_was_posted(logs):
    post = post_of(logs, "grinder")
    logs.drop(post)
    logs.add(post)


def content_differs(logs):
    logs.change(final_of(logs, "grinder"), quantity=3)


def check_missing(logs):
    for verdict in logs.of(Source.VERDICTS, "grinder"):
        if verdict.message.check_type == FRAUD:
            logs.drop(verdict)
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.change(row, verdicts=tuple(v for v in row.message.verdicts if v.check_type != FRAUD))


def validated_against(result):
    return lambda logs: judge_anew(logs, "grinder", result)


def failed_without_reason(logs):
    judge_anew(logs, "dear", ValidationResult.PASS)


def failed_too_early(logs):
    """The reason names the deadline, which had not passed."""
    [verdict] = [v for v in logs.of(Source.VERDICTS, "dear") if v.message.check_type == FRAUD]
    logs.drop(verdict)
    [row] = logs.of(Source.VIEW, "dear")[-1:]
    heard = tuple(v for v in row.message.verdicts if v.check_type != FRAUD)
    missing = [check for check in BuiltInCheck if check not in {v.check_type for v in heard}]
    logs.change(row, verdicts=heard, reasons=tuple(f"{check}: no verdict within 60 s" for check in missing))


def judged_by_other_checks(logs):
    """The row names fewer checks than were ever required."""
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.change(row, required=(BuiltInCheck.INVENTORY_CHECK,))


def contradiction(logs):
    [verdict] = [v for v in logs.of(Source.VERDICTS, "grinder") if v.message.check_type == FRAUD]
    logs.add(verdict.with_fields(validation_result=ValidationResult.FAIL))


def view_of_another_content(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.change(row, order=row.message.order.model_copy(update={"quantity": 3}))


def view_of_another_state(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.change(row, order=row.message.order.model_copy(update={"state": OrderState.FAILED}))


def not_in_the_view(logs):
    logs.drop(*logs.of(Source.VIEW, "grinder"))


def verdict_only_in_the_view(logs):
    logs.drop(*[v for v in logs.of(Source.VERDICTS, "grinder") if v.message.check_type == FRAUD])


def shipped_holds(logs):
    """The reservation and the stock are not reduced."""
    logs.drop(logs.of(Source.RESERVATIONS, "shipped")[-1], logs.of(Source.STOCK, "TAMPER")[-1])


def cancelled_holds(logs):
    """The reservation is not released, nor the stock."""
    logs.drop(logs.of(Source.RESERVATIONS, "regret")[-1], logs.of(Source.STOCK, "VASE")[-1])


def not_announced(logs):
    logs.drop(final_of(logs, "grinder"))


def holds_another_quantity(logs):
    logs.change(logs.of(Source.RESERVATIONS, "grinder")[0], held=2)
    logs.change(logs.of(Source.STOCK, "GRINDER")[-1], reserved=2)


def reserved_never_posted(logs):
    row = logs.of(Source.RESERVATIONS, "none")[-1].message
    logs.add(topics.stored(Source.RESERVATIONS, "ghost", row, 1, by="KETTLE"))


def failed_holds(logs):
    """The reservation is never released, in reservations and stock alike."""
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
    logs.add(row.with_fields(reserved=0))


def wrong_for_a_while(logs):
    [row] = logs.of(Source.STOCK, "MUG")[-1:]
    logs.add(row.with_fields(reserved=5), row)


def oversold(logs):
    for record in [*logs.of(Source.WAREHOUSE, "GRINDER"), *logs.of(Source.STOCK, "GRINDER")]:
        logs.change(record, count=0)


def negative(logs):
    [row] = logs.of(Source.STOCK, "GRINDER")[-1:]
    logs.add(row.with_fields(reserved=-1))


def unreadable(logs):
    [row] = logs.of(Source.VIEW, "grinder")[-1:]
    logs.records.insert(0, topics.StoredRecord(row.topic, row.partition, row.time_ms, row.key, b"{"))


def judge_anew(logs, id_, result):
    """Changes the verdict of the fraud check, in its topic and in the view."""
    [verdict] = [v for v in logs.of(Source.VERDICTS, id_) if v.message.check_type == FRAUD]
    logs.change(verdict, validation_result=result, reason=None)
    [row] = logs.of(Source.VIEW, id_)[-1:]
    heard = [
        v.model_copy(update={"validation_result": result, "reason": None}) if v.check_type == FRAUD else v
        for v in row.message.verdicts
    ]
    logs.change(row, verdicts=tuple(heard))


CORE_VIOLATIONS = [
    (stuck, "open", {ViolationKind.STUCK}),
    (stuck_without_a_timer, "open", {ViolationKind.STUCK}),
    (never_seen, "lost", {ViolationKind.STUCK}),
    (two_finals, "grinder", {ViolationKind.TWO_FINALS}),
    (shipped_though_failed, "dear", {ViolationKind.CHANGED_BACK}),
    (shipped_though_cancelled, "regret", {ViolationKind.TWO_FINALS}),
    (view_changed_back, "grinder", {ViolationKind.CHANGED_BACK}),
    (announced_twice, "grinder", {ViolationKind.PUBLISHED_TWICE}),
    (never_posted, "ghost", {ViolationKind.NEVER_POSTED}),
    (decided_before_it_was_posted, "grinder", {ViolationKind.NEVER_POSTED}),
    (content_differs, "grinder", {ViolationKind.CONTENT_DIFFERS}),
    (check_missing, "grinder", {ViolationKind.VALIDATED_WITHOUT}),
    (validated_against(ValidationResult.FAIL), "grinder", {ViolationKind.VALIDATED_WITHOUT}),
    (validated_against(ValidationResult.ERROR), "grinder", {ViolationKind.VALIDATED_WITHOUT}),
    (failed_without_reason, "dear", {ViolationKind.FAILED_WITHOUT_REASON}),
    (failed_too_early, "dear", {ViolationKind.FAILED_WITHOUT_REASON}),
    (judged_by_other_checks, "grinder", {ViolationKind.CHECKS_DIFFER}),
    (contradiction, "grinder", {ViolationKind.CONTRADICTION}),
    (view_of_another_content, "grinder", {ViolationKind.VIEW_DIFFERS}),
    (view_of_another_state, "grinder", {ViolationKind.VIEW_DIFFERS}),
    (not_in_the_view, "grinder", {ViolationKind.VIEW_DIFFERS}),
    (verdict_only_in_the_view, "grinder", {ViolationKind.VIEW_DIFFERS}),
    (not_announced, "grinder", {ViolationKind.NOT_PUBLISHED}),
    (holds_another_quantity, "grinder", {ViolationKind.RESERVATION_DIFFERS}),
    (reserved_never_posted, "ghost", {ViolationKind.RESERVED_NEVER_POSTED}),
    (failed_holds, "dear", {ViolationKind.FAILED_HOLDS}),
    (shipped_holds, "shipped", {ViolationKind.SHIPPED_HOLDS}),
    (cancelled_holds, "regret", {ViolationKind.CANCELLED_HOLDS}),
    (validated_holds_nothing, "grinder", {ViolationKind.VALIDATED_HOLDS_NOTHING}),
    (taken_twice, "dear", {ViolationKind.RESERVED_TWICE}),
    (taken_twice_in_a_row, "grinder", {ViolationKind.RESERVED_TWICE}),
    (given_back_twice, "dear", {ViolationKind.RELEASED_TWICE}),
    (given_back_twice_by_the_stock, "SCALES", {ViolationKind.SUM_DIFFERS}),
    (wrong_for_a_while, "MUG", {ViolationKind.SUM_DIFFERS}),
    (oversold, "GRINDER", {ViolationKind.OVERSOLD}),
    (negative, "GRINDER", {ViolationKind.NEGATIVE, ViolationKind.SUM_DIFFERS}),
    (unreadable, "grinder", {ViolationKind.UNREADABLE_ROW}),
]
