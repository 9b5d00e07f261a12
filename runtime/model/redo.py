"""Redo records: what a batch changes and sends, written ahead of it, so that a restore can redo a half-written batch.

At least once, rows and output records of a batch become durable one by one. So a redo record is written first, for
each unit: a service and a partition. It is a set of pieces in the service's redo table; a set that lacks a piece counts
as not written. Pure.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from runtime.model.records import Write
from schemas.wire import Message

PIECE_BYTES = 500_000
"""Bytes of a redo record in a piece at most: brokers accept messages of a megabyte, and producers send batches of
half a mebibyte."""

OWNER = b"owner"
"""Key of the token of the last restore. Pieces under another token are of a worker that owns the partition no more."""


class Unit(NamedTuple):
    """A service in a partition: what a redo record covers."""

    service: str
    partition: int


class RedoPiece(Message):
    """The first line of a piece. What follows is a part of the redo record."""

    batch: str
    piece: int
    pieces: int


@dataclass(slots=True)
class Sent:
    """A record that a unit sent. Its position among all that its batch sent keeps the order of a redone batch."""

    position: int
    write: Write
    _encoded: tuple[str, bytes] | None = field(default=None, compare=False, repr=False)

    def encoded(self) -> tuple[str, bytes]:
        """Position, names and lengths in JSON, and the bytes that they are of. The units that it caused share it."""
        if self._encoded is None:
            topic, partition, key, value, headers = self.write
            sizes = ",".join([f"[{_quoted(name)},{_size(text)}]" for name, text in headers]) if headers else ""
            line = f"[{self.position},{_quoted(topic)},{partition},{_size(key)},{_size(value)},[{sizes}]]"
            self._encoded = line, b"".join(filter(None, (key, value, *[text for _, text in headers])))
        return self._encoded


@dataclass(slots=True, eq=False)
class Call:
    """A call of a processor in a batch.

    Arguments:
        unit: where it changed rows.
        cause: the call whose message was fused to it; `None` for the first one.
        sent: what it sent, fused records included.
    """

    unit: Unit
    cause: "Call | None" = None
    sent: list[Sent] = field(default_factory=list)


@dataclass(slots=True)
class RedoRecord:
    """All rows that a batch changes in a unit, and all records that it sends there, fused ones included.

    And all records that the causes of its calls sent in other units: their redo records may get lost while this one is
    durable. Their inputs are then processed again, perhaps after consequences of these records, and are not sure to
    send them again.

    Arguments:
        rows: changed rows by table; `None` deletes.
        sent: the sent records. A fused one lacks the header `consumed-by`: its receiver may have to process it anew.
    """

    rows: Mapping[str, Mapping[bytes, bytes | None]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    @property
    def needed(self) -> bool:
        """Whether the batch can be half-written.

        Without rows its input is processed again from scratch. A single row without records is written or not.
        """
        count = sum(len(changed) for changed in self.rows.values())
        return count > 1 or (count == 1 and bool(self.sent))

    def pieces(self, token: str, batch: str) -> dict[bytes, bytes]:
        """The rows of the redo table: pieces by key.

        Arguments:
            token: of the restore since which the worker owns the partition.
            batch: name of the batch, the same in all units.
        """
        raw = self.to_bytes()
        parts = [raw[at : at + PIECE_BYTES] for at in range(0, len(raw), PIECE_BYTES)]
        return {
            piece_key(token, n): RedoPiece(batch=batch, piece=n, pieces=len(parts)).to_json() + b"\n" + part
            for n, part in enumerate(parts)
        }

    def to_bytes(self) -> bytes:
        """A line of JSON with names and lengths, and the bytes that they are of."""
        blobs: list[bytes | None] = []
        tables, sent = list[str](), list[str]()
        for table, changed in self.rows.items():
            sizes = ",".join([f"[{len(k)},{'null' if v is None else len(v)}]" for k, v in changed.items()])
            tables.append(f"{_quoted(table)}:[{sizes}]")
            for row in changed.items():
                blobs += row
        for record in self.sent:
            described, blob = record.encoded()
            sent.append(described)
            blobs.append(blob)
        line = f'{{"rows":{{{",".join(tables)}}},"sent":[{",".join(sent)}]}}'
        return b"".join((line.encode(), b"\n", *filter(None, blobs)))

    @classmethod
    def from_bytes(cls, raw: bytes) -> "RedoRecord":
        line, blobs = raw.split(b"\n", 1)
        described, at = json.loads(line), 0

        def take(size: int | None) -> bytes | None:
            nonlocal at
            if size is None:
                return None
            at += size
            return blobs[at - size : at]

        changes: dict[str, Mapping[bytes, bytes | None]] = {
            table: {take(key) or b"": take(value) for key, value in rows} for table, rows in described["rows"].items()
        }
        sent = [Sent(sent[0], _write(sent, take)) for sent in described["sent"]]
        return cls(changes, sent)


def records(
    rows: Mapping[Unit, Mapping[str, Mapping[bytes, bytes | None]]], calls: Iterable[Call]
) -> dict[Unit, RedoRecord]:
    """The redo records of a batch that are needed.

    Arguments:
        rows: changed rows by unit and table.
        calls: all calls of the batch.
    """
    found = {unit: RedoRecord(changed) for unit, changed in rows.items()}
    seen: dict[Unit, set[Call]] = {unit: set() for unit in rows}
    for call in calls:
        if (record := found.get(call.unit)) is None:
            continue
        of_unit = seen[call.unit]
        link: Call | None = call
        while link is not None and link not in of_unit:
            of_unit.add(link)
            record.sent += link.sent
            link = link.cause
    return {unit: record for unit, record in found.items() if record.needed}


@lru_cache(1024)
def _quoted(name: str) -> str:
    """A name in JSON. Names of tables, topics and headers recur in every batch."""
    return json.dumps(name)


def _size(blob: bytes | None) -> str:
    return "null" if blob is None else str(len(blob))


def _write(described: Sequence[Any], take: Callable[[int | None], bytes | None]) -> Write:
    _, topic, partition, key, value, headers = described
    return Write(topic, partition, take(key), take(value), tuple((name, take(text)) for name, text in headers))


def piece_key(token: str, number: int) -> bytes:
    """The key of a piece."""
    return f"{token}-{number}".encode()


def left_over(rows: Iterable[tuple[bytes, bytes]]) -> tuple[str, RedoRecord] | None:
    """The complete redo record in a redo table, with the name of its batch; `None` if the last owner left none.

    Arguments:
        rows: the rows of the table.
    """
    known = dict(rows)
    token = known.get(OWNER, b"").decode()
    parts: list[bytes] = []
    first: RedoPiece | None = None
    while first is None or len(parts) < first.pieces:
        value = known.get(piece_key(token, len(parts)))
        if value is None:
            return None
        head, part = value.split(b"\n", 1)
        piece = RedoPiece.from_json(head)
        first = first or piece
        if piece.batch != first.batch:
            return None
        parts.append(part)
    return first.batch, RedoRecord.from_bytes(b"".join(parts))
