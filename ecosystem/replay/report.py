"""What a plan would send and change, and what became of it, as text."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecosystem.clients.readable import printable
from ecosystem.clients.wording import counted
from ecosystem.replay.asking import MOST_ASKED
from ecosystem.replay.plan import Plan, PlannedRecord
from ecosystem.replay.run import Prepared
from ecosystem.replay.selection import Selection
from ecosystem.replay.sending import Sent
from ecosystem.replay.stages import EFFECTS
from history_service.stages import Stage
from schemas.messages import OrderState

_MOST_NAMED = 5
"""Records that are named of those that were refused."""

States = Counter[str | None]
"""How many orders are in which state in the target; `None`: it does not know them."""


def print_plan(
    console: Console, prepared: Prepared, selection: Selection, states: States | None, examples: int
) -> None:
    """Prints what would be sent, what it changes, and what is left out."""
    plan, target = prepared.plan, prepared.target
    total = plan.total
    where = f"{target.settings.kafka_bootstrap_servers}{_prefix(target.settings.topic_prefix)}"
    waves = f", in {plan.waves} waves" if selection.in_order else ""
    console.print(Text(f"{counted(total, 'record')} to send to {where}{waves}", "bold"))
    if total:
        table = Table("stage", "topic", "records", "what it changes", box=None, pad_edge=False)
        for part in plan.parts():
            effect = _effect(part.stage, plan, selection, states)
            table.add_row(part.stage, part.topic, str(part.records), Text(effect))
        console.print(table, soft_wrap=not console.is_terminal)
        _print_first(console, plan, examples)
    for line in left_out(prepared, selection):
        console.print(Text(line), soft_wrap=True)


def left_out(prepared: Prepared, selection: Selection) -> Iterator[str]:
    """What was asked for, and is not sent, in lines."""
    if prepared.sent_before:
        yield f"{counted(prepared.sent_before, 'record')} sent before, by the resume file"
    if count := prepared.left_out.replays:
        yield f"{counted(count, 'record')} left out: replays, or made by one (--replays-too)"
    for reason, count in prepared.left_out.counts.items():
        names = prepared.left_out.examples[reason]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        yield f"skipped: {', '.join(map(printable, names))}{more}: {reason}"
    count, found = prepared.plan.exhausted(_MOST_NAMED)
    for place, times in found:
        yield f"refused: {place}: replayed {times} times already, --max-replays is {selection.max_replays}"
    if count > len(found):
        yield f"refused: {count - len(found)} more, for the same reason"
    if prepared.lag_s != 0:
        behind = "an unknown time" if prepared.lag_s is None else f"up to {prepared.lag_s:.0f} s"
        yield f"The history is behind by {behind}: what is newer is not in the plan"
    if prepared.unproven is not None:
        yield f"The order is that of the timestamps alone: {prepared.unproven}"


def print_sent(console: Console, sent: Sent, total: int) -> None:
    """Prints what became of the records."""
    for place, reason in [*sent.refused.items()][:_MOST_NAMED]:
        console.print(Text(f"not sent: {place}: {reason}", "red"), soft_wrap=True)
    if len(sent.refused) > _MOST_NAMED:
        console.print(Text(f"not sent: {len(sent.refused) - _MOST_NAMED} more", "red"))
    console.print(f"{sent.records} of {counted(total, 'record')} sent")


def incomplete(prepared: Prepared, sent: Sent | None = None) -> bool:
    """Whether something that was asked for could not be sent."""
    refused = prepared.plan.exhausted(1)[0]
    return bool(prepared.left_out.counts or refused or (sent is not None and sent.refused))


def _effect(stage: str, plan: Plan, selection: Selection, states: States | None) -> str:
    if selection.redecide:
        return "is decided anew, under the next attempt number"
    if stage != Stage.CREATED:
        return EFFECTS[stage]
    if states is None:
        return "not known: the orders service of the target does not answer (--url)"
    decided = sum(count for state, count in states.items() if state is not None and OrderState(state).decided)
    parts = [f"nothing: {decided} decided"] if decided else []
    if waiting := states[OrderState.CREATED.value]:
        parts.append(f"nothing: {waiting} being decided")
    if unknown := states[None]:
        parts.append(f"{unknown} processed as new")
    orders = len(plan.orders(Stage.CREATED))
    of = f" (of the first {MOST_ASKED} orders)" if orders > MOST_ASKED else ""
    return "; ".join(parts) + of


def _print_first(console: Console, plan: Plan, examples: int) -> None:
    for planned in plan.records(examples):
        console.print(Text(f"  {_described(planned)}"), soft_wrap=True)
    if plan.total > examples > 0:
        console.print(f"  and {plan.total - examples} more")


def _described(planned: PlannedRecord) -> str:
    record = planned.record
    subject = record.order_id or record.product or (None if record.customer_id is None else str(record.customer_id))
    parts: Sequence[str] = [str(record.place), record.stage, printable(subject or "")]
    repeated = f"replay {planned.replays}" if planned.replays > 1 else ""
    return "  ".join(filter(None, [*parts, repeated]))


def _prefix(prefix: str) -> str:
    return f", topics {prefix}…" if prefix else ""
