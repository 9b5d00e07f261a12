"""The records of an order in causal order, and its state at a time. Pure."""

import base64
import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from history_service.projection import project
from history_service.stages import Stage
from runtime.model.sink import SinkRecord
from schemas.history import RecordHeader, StageRecord
from schemas.messages import Order
from schemas.topics import ORDERS

_CAUSES: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.VERDICT: (Stage.CREATED,),
    Stage.VALIDATED: (Stage.CREATED,),
    Stage.FAILED: (Stage.CREATED,),
    Stage.CANCELLED: (Stage.CREATED,),
    Stage.LEVEL: (Stage.ENRICHED,),
    Stage.CHECK_IN_REJECTED: (Stage.CHECK_IN,),
    Stage.FULFILLED: (Stage.VALIDATED, Stage.PAYMENT, Stage.CHECK_IN),
    Stage.SHIPPED: (Stage.FULFILLED,),
}
"""Stages whose first record comes before the records of a stage, whatever the clocks of their writers say."""

_RANKS = {stage.value: rank for rank, stage in enumerate(Stage)}


class StoredRecord(NamedTuple):
    """A row of `records`.

    Arguments:
        topic: logical name.
        log: number of the log: offsets of a topic that was made anew begin again.
        headers: name, value, name, value.
    """

    produced_at: datetime
    stored_at: datetime
    offset: int
    log: int
    partition: int
    stage: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[bytes | None] | None

    @property
    def header_pairs(self) -> tuple[tuple[str, bytes | None], ...]:
        """Names and values of the headers."""
        parts = self.headers or ()
        names = ((name or b"").decode(errors="surrogateescape") for name in parts[::2])
        return tuple(zip(names, parts[1::2], strict=True))


def timeline(records: Iterable[StoredRecord]) -> tuple[StageRecord, ...]:
    """The records of an order, causes before their consequences."""
    seen: set[tuple[str, bytes | None, bytes | None]] = set()
    result = []
    before: datetime | None = None
    for record in in_causal_order(list(records)):
        content = (record.topic, record.key, record.value)
        since = None if before is None else (record.produced_at - before).total_seconds()
        result.append(_described(record, since, content in seen))
        seen.add(content)
        before = record.produced_at
    return tuple(result)


def in_causal_order(records: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Sorts records by the times at which they were produced, but never a cause behind its consequence.

    Known causes: the records before in a partition, and the first record of each stage in `_CAUSES`. Stages decide
    between equal times.
    """
    order = sorted(range(len(records)), key=lambda n: _priority(records[n]))
    rank = {number: position for position, number in enumerate(order)}
    consequences, waits = _edges(records)
    ready = [rank[n] for n in order if not waits[n]]
    heapq.heapify(ready)
    result: list[int] = []
    done = [False] * len(records)
    rest = iter(order)
    while len(result) < len(records):
        if ready:
            number = order[heapq.heappop(ready)]
        else:  # records that contradict each other: the earliest goes first
            number = next(n for n in rest if not done[n])
        if done[number]:
            continue
        done[number] = True
        result.append(number)
        for consequence in consequences[number]:
            waits[consequence] -= 1
            if not waits[consequence]:
                heapq.heappush(ready, rank[consequence])
    return [records[number] for number in result]


def _edges(records: Sequence[StoredRecord]) -> tuple[list[list[int]], list[int]]:
    """Of each record: the numbers of its direct consequences, and how many causes it has."""
    consequences: list[list[int]] = [[] for _ in records]
    waits = [0] * len(records)

    def add(cause: int, consequence: int) -> None:
        consequences[cause].append(consequence)
        waits[consequence] += 1

    first: dict[str, int] = {}
    for number in sorted(range(len(records)), key=lambda n: _priority(records[n])):
        first.setdefault(records[number].stage, number)
    by_place = sorted(range(len(records)), key=lambda n: _place(records[n]))
    for before, number in pairwise(by_place):
        if _place(records[before])[:2] == _place(records[number])[:2]:
            add(before, number)
    for number, record in enumerate(records):
        causes = _CAUSES.get(Stage(record.stage), ()) if record.stage in _RANKS else ()
        for cause in causes:
            if (known := first.get(cause.value)) is not None and known != number:
                add(known, number)
    return consequences, waits


def order_at(order_id: str, records: Iterable[StoredRecord], at: datetime) -> Order | None:
    """The order as its records in `orders` that were produced until a time say; `None` before the first."""
    known = [_sink_record(r) for r in records if r.topic == ORDERS.name and r.produced_at <= at]
    change = project(known, lambda: at).changes.get(order_id)
    return None if change is None or change.counting is None else change.counting.order


def _sink_record(r: StoredRecord) -> SinkRecord:
    milliseconds = int(r.produced_at.timestamp() * 1000)
    return SinkRecord(r.topic, r.partition, r.log, r.offset, milliseconds, r.key, r.value, r.header_pairs, None, None)


def _priority(r: StoredRecord) -> tuple[Any, ...]:
    return (r.produced_at, _RANKS.get(r.stage, len(_RANKS)), r.topic, *_place(r))


def _place(r: StoredRecord) -> tuple[int, int, int]:
    return r.log, r.partition, r.offset


def _described(r: StoredRecord, since: float | None, repeated: bool) -> StageRecord:
    payload, raw = _payload(r.value)
    return StageRecord(
        stage=r.stage,
        topic=r.topic,
        partition=r.partition,
        offset=r.offset,
        produced_at=r.produced_at.astimezone(UTC),
        stored_at=r.stored_at.astimezone(UTC),
        seconds_since_previous=since,
        repeated=repeated,
        headers=tuple(_header(name, value) for name, value in r.header_pairs),
        payload=payload,
        payload_base64=raw,
    )


def _header(name: str, value: bytes | None) -> RecordHeader:
    name = name.encode(errors="surrogateescape").decode(errors="replace")
    if value is None:
        return RecordHeader(name=name)
    try:
        return RecordHeader(name=name, value=value.decode())
    except UnicodeDecodeError:
        return RecordHeader(name=name, base64=base64.b64encode(value).decode())


def _payload(value: bytes | None) -> tuple[Any, str | None]:
    """A value as JSON, or in base64 if it is none, or none that can be written again."""
    if value is None:
        return None, None
    try:
        payload = from_json(value, allow_inf_nan=False)
        if (
            payload is not None
            and from_json(to_json(payload, inf_nan_mode="constants"), allow_inf_nan=False) == payload
        ):
            return payload, None
    except ValueError:
        pass
    return None, base64.b64encode(value).decode()
