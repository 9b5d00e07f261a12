"""Projects records to rows: each record itself, the latest state of its order, and words to search. Pure.

Records of several topics arrive in any order, and a record may be projected again. So each field of an order merges by
a rule that is idempotent, commutative and associative; `history_service/store.py` has the same rules in SQL.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from history_service.stages import STATE_STAGES, TOPIC_STAGES, Stage, TopicStage
from runtime.model.sink import SinkRecord
from schemas.messages import FIRST_ATTEMPT, Order, OrderState, OrderValidation, Payment, Refund, ValidationResult
from schemas.wire import Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999
"""Milliseconds, the end of the year 9999: Python and the database know no later time."""

_RANKS = {OrderState.CREATED: 0, OrderState.VALIDATED: 1}
_FINAL_RANK = 2

_TIMES = {
    Stage.CREATED: "posted_at",
    Stage.VERDICT: "judged_at",
    Stage.VALIDATED: "validated_at",
    Stage.FAILED: "failed_at",
    Stage.PAYMENT: "paid_at",
    Stage.CHECK_IN: "checked_in_at",
    Stage.FULFILLED: "fulfilled_at",
    Stage.SHIPPED: "shipped_at",
    Stage.CANCELLATION: "cancellation_requested_at",
    Stage.CANCELLED: "cancelled_at",
    Stage.REFUND: "refunded_at",
    Stage.ENRICHED: "enriched_at",
}
TIMES = tuple(_TIMES.values())
"""Columns with the time at which the first record of a stage was produced."""
TIME_COLUMNS = {name: stage.value for stage, name in _TIMES.items()}
"""Stage by column of `TIMES`."""

_RUNTIME_HEADERS = frozenset({"consumed-by", "also-consumed-by", "made-at", "replays", "side-effects"})
"""Headers of the runtime itself: the same in most records."""
_MAX_WORD = 256
"""Characters of a header's value up to which it is searched."""
_MAX_ID = 128
"""Characters of an order id."""


@dataclass(frozen=True, slots=True)
class CountingRecord:
    """The record in `orders` that says what an order is. Of two, the one with the higher `precedence` counts."""

    precedence: tuple[int, int, int, int]
    """Attempt, rank of the state, log, negative offset: of conflicting records the first in the log counts."""
    order: Order

    @property
    def columns(self) -> tuple[Any, ...]:
        """Its part of a row, in the order of `COUNTING`."""
        attempt, rank, log, offset = self.precedence
        o = self.order
        reasons = [_text(reason) for reason in o.reasons] if o.reasons else None
        at = o.created_at
        return (attempt, rank, log, -offset, o.state.value, at, o.customer_id, _text(o.product), o.quantity, o.price,
                o.value, reasons)  # fmt: skip


COUNTING = (
    *("attempt", "state_rank", "state_log", "state_offset", "state", "created_at", "customer_id", "product"),
    *("quantity", "price", "value", "reasons"),
)
"""Columns of the record that counts."""
_NOTHING_COUNTS = (FIRST_ATTEMPT, *[None] * (len(COUNTING) - 1))


@dataclass(slots=True)
class OrderChange:
    """What records of one order say about it."""

    updated_at: datetime
    counting: CountingRecord | None = None
    failed_checks: set[str] = field(default_factory=set)
    times: dict[str, datetime] = field(default_factory=dict)

    def merge(self, other: "OrderChange") -> None:
        """Adds what other records say. The result depends neither on the order of merges, nor on repeated ones."""
        self.updated_at = max(self.updated_at, other.updated_at)
        self.count(other.counting)
        self.failed_checks |= other.failed_checks
        for name, at in other.times.items():
            self.reach(name, at)

    def count(self, record: CountingRecord | None) -> None:
        """Adds a record in `orders`."""
        if record is not None and (self.counting is None or record.precedence > self.counting.precedence):
            self.counting = record

    def reach(self, name: str, at: datetime) -> None:
        """Adds the time of a stage: the earliest counts."""
        known = self.times.get(name)
        if known is None or at < known:
            self.times[name] = at

    @property
    def columns(self) -> tuple[Any, ...]:
        """Its row without the id, in the order of `COLUMNS`."""
        counting = _NOTHING_COUNTS if self.counting is None else self.counting.columns
        checks = sorted(self.failed_checks) or None
        return (*counting, self.updated_at, checks, *map(self.times.get, TIMES))


COLUMNS = (*COUNTING, "updated_at", "failed_checks", *TIMES)
"""Columns of `OrderChange.columns`."""

RECORD_COLUMNS = (
    *("produced_at", "stored_at", "offset", "log", "partition", "stage", "order_id", "key", "value", "headers"),
)


WORD_COLUMNS = ("produced_at", "order_id", "word")


@dataclass(slots=True)
class Rows:
    """Rows of a batch of records.

    Arguments:
        records: in the order of `RECORD_COLUMNS`.
        changes: by order id.
        words: in the order of `WORD_COLUMNS`.
    """

    records: list[tuple[Any, ...]] = field(default_factory=list)
    changes: dict[str, OrderChange] = field(default_factory=dict)
    words: list[tuple[datetime, str, str]] = field(default_factory=list)

    def change(self, order_id: str, at: datetime) -> OrderChange:
        """The change of an order, to be extended by a record that was produced at a time."""
        change = self.changes.get(order_id)
        if change is None:
            change = self.changes[order_id] = OrderChange(at)
        elif at > change.updated_at:
            change.updated_at = at
        return change


def project(records: Iterable[SinkRecord], clock: Callable[[], datetime]) -> Rows:
    """Makes the rows of a batch. Records that are no message of their topic are kept all the same."""
    rows, stored_at = Rows(), clock()
    append = rows.records.append
    for r in records:
        at, kind = _time(r.timestamp_ms), TOPIC_STAGES[r.topic]
        stage, order_id, message = _read(r, kind)
        if order_id is not None:
            change = rows.change(order_id, at)
            words = _header_words(r) if r.headers else []
            if message is not None:
                words += _extend(change, stage, message, r, at)
            rows.words += [(at, order_id, search_text(word)) for word in words]
        append((at, stored_at, r.offset, r.log, r.partition, stage.value, order_id, r.key, r.value, _headers(r)))
    return rows


def project_raw(r: SinkRecord, clock: Callable[[], datetime]) -> Rows:
    """Makes the row of a record whose other rows the database refuses: its bytes, and nothing about an order."""
    row = (_time(r.timestamp_ms), clock(), r.offset, r.log, r.partition, Stage.UNKNOWN.value, None, r.key, r.value)
    return Rows(records=[(*row, _headers(r))])


def _read(r: SinkRecord, kind: TopicStage) -> tuple[Stage, str | None, Message | None]:
    """The stage of a record, the order that it is about, and its message."""
    if kind.order_id is None:
        return kind.stage or Stage.UNKNOWN, None, None
    if kind.stage is Stage.DEAD_LETTER:
        return kind.stage, _order_id_of_dead_letter(r, kind), None
    if r.value is None:
        return kind.stage or Stage.UNKNOWN, _order_id_of_key(r, kind), None
    try:
        message = kind.topic.model.from_json(r.value)
    except ValueError:
        return Stage.UNKNOWN, _order_id_of_key(r, kind), None
    return kind.stage or STATE_STAGES[message.state], kind.order_id(message), message


def _order_id_of_key(r: SinkRecord, kind: TopicStage) -> str | None:
    if not kind.keyed or r.key is None:
        return None
    try:
        order_id = r.key.decode()
    except UnicodeDecodeError:
        return None
    return order_id if 0 < len(order_id) <= _MAX_ID and order_id.isprintable() else None


def _order_id_of_dead_letter(r: SinkRecord, kind: TopicStage) -> str | None:
    """The order of a dead letter: of its message if that can be read, else by its key."""
    if r.value is not None and kind.order_id is not None:
        try:
            return kind.order_id(kind.topic.model.from_json(r.value))
        except ValueError:
            pass
    return _order_id_of_key(r, kind)


def _extend(change: OrderChange, stage: Stage, message: Message, r: SinkRecord, at: datetime) -> Sequence[str]:
    """Extends a change by a message. Returns words to search."""
    if (name := _TIMES.get(stage)) is not None:
        change.reach(name, at)
    extension = _EXTENSIONS.get(type(message))  # `isinstance` of a pydantic model takes as long as all the rest
    return () if extension is None else extension(change, message, r)


def _extend_by_order(change: OrderChange, order: Order, r: SinkRecord) -> Sequence[str]:
    rank = _RANKS.get(order.state, _FINAL_RANK)
    change.count(CountingRecord((order.attempt_number, rank, r.log, -r.offset), order))
    return order.reasons or (() if rank else (order.id,))


def _extend_by_verdict(change: OrderChange, verdict: OrderValidation, _: SinkRecord) -> Sequence[str]:
    if verdict.validation_result is not ValidationResult.PASS:
        change.failed_checks.add(verdict.check_type)
    return ()


_EXTENSIONS: Mapping[type[Message], Callable[[OrderChange, Any, SinkRecord], Sequence[str]]] = {
    Order: _extend_by_order,
    OrderValidation: _extend_by_verdict,
    Payment: lambda _, payment, __: (payment.id,),
    Refund: lambda _, refund, __: (refund.refund_id,),
}


def _header_words(r: SinkRecord) -> list[str]:
    words = []
    for name, value in r.headers:
        if value and len(value) <= _MAX_WORD and name not in _RUNTIME_HEADERS:
            with suppress(UnicodeDecodeError):
                words.append(value.decode())
    return words


def _headers(r: SinkRecord) -> Sequence[bytes | None] | None:
    if not r.headers:
        return None
    return [part for name, value in r.headers for part in (name.encode(errors="surrogateescape"), value)]


def search_text(text: str) -> str:
    """A text as the search sees it: in lower case."""
    return _text(text).lower()


def _text(text: str) -> str:
    """A text without the character that PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


@lru_cache(maxsize=4096)  # the records of a transaction mostly have one time
def _time(timestamp_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(timestamp_ms, 0), _LATEST_MS))
