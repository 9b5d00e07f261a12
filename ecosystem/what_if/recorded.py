"""What the topics say about the end of each order. Read before the replay, which takes it as evidence of timing."""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from pydantic_core import from_json

from ecosystem.what_if.outcomes import OPEN, Outcome, missing_checks
from ecosystem.what_if.runner import NEVER
from runtime.model.records import Record
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS

_RANKS = {OrderState.CREATED: 0, OrderState.VALIDATED: 1}
_LAST = 2
_UNPAID = re.compile(r"not paid within [0-9.e+]+ s")
"""Reason of an order that fulfilment asked to cancel. All others are cancelled from outside."""
_CREATED = b'"state":"CREATED"'


class Entry:
    """An order: what is recorded of it, and how it ends in each variant.

    `recorded` is its recorded outcome. It left CREATED at `decided_ms`, and got its last state at `final_ms`; `missing`
    are the checks without verdict that failed it, with their deadline. `cancelled`: somebody outside cancelled it.
    """

    __slots__ = (
        "cancelled",
        "created_ms",
        "decided_ms",
        "final_ms",
        "judged",
        "missing",
        "order",
        "outcomes",
        "partition",
        "queue",
        "recorded",
        "value",
    )

    def __init__(self) -> None:
        self.created_ms = NEVER
        self.partition = 0
        self.order: Order | None = None
        self.value = Decimal()
        self.recorded = OPEN
        self.decided_ms = NEVER
        self.final_ms = NEVER
        self.missing: dict[str, float] | None = None
        self.cancelled = False
        self.judged: frozenset[str] = frozenset()
        self.queue: list[Any] | None = None
        self.outcomes: tuple[Outcome, Outcome] = (OPEN, OPEN)

    def end(self, state: OrderState, reasons: list[str], ms: int) -> None:
        """Adds a recorded state, unless it cannot follow the one before: a repetition, or a late one."""
        before, after = _RANKS.get(self.recorded.state, _LAST), _RANKS.get(state, _LAST)
        if after <= before or (before == 1 and state is OrderState.FAILED):
            return
        if before == 0 and state is not OrderState.CANCELLED:
            self.decided_ms = ms
            self.missing = missing_checks(reasons) or None
        self.cancelled = state is OrderState.CANCELLED and not any(map(_UNPAID.fullmatch, reasons))
        self.final_ms = ms
        self.recorded = Outcome.of(state, reasons)


def read_entries(
    records: Callable[[Iterable[str]], Iterator[Record]], is_own: Callable[[str], bool], until_ms: int
) -> dict[str, Entry]:
    """Returns the orders whose product `is_own`, by id, with what is recorded of them.

    Arguments:
        records: returns the records of topics, by partition.
        is_own: whether an order of a product is wanted.
        until_ms: the records from then on are ignored.
    """
    entries: dict[str, Entry] = {}
    for record in records([ORDERS.name]):
        if record.timestamp_ms >= until_ms or record.value is None or record.key is None:
            continue
        order_id = record.key.decode(errors="replace")
        entry = entries.get(order_id)
        if entry is not None and _CREATED in record.value:
            continue
        said = _content(record)
        if said is None:
            continue
        if entry is None:
            if not is_own(str(said.get("product"))):
                continue
            entry = entries[order_id] = Entry()
        try:
            state = OrderState(said.get("state", OrderState.CREATED))
        except ValueError:
            continue
        reasons = [str(reason) for reason in said.get("reasons") or ()]
        entry.end(state, reasons, record.timestamp_ms)
    return entries


def _content(record: Record) -> dict[str, Any] | None:
    try:
        content = from_json(record.value or b"")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
