"""Which log an offset is of: a topic that was deleted and made anew has the same name, and other records. Pure.

A log's id is `<cluster>/<topic id>` (KIP-516). A group notes it with every offset that it commits, in the commit's
metadata, and with it, in short, the ids of all its inputs and of the changelogs that hold its state. So a topic that
was made anew is told from the one that was read, however long it is by now, on whichever disk; and also where the
broker has forgotten the offsets committed of it, as it does when a topic is deleted.
"""

import base64
from collections.abc import Mapping
from typing import NamedTuple
from zlib import crc32

from runtime.model.records import TopicPartition

LogIds = Mapping[str, str]
"""The id of the log of each topic, by its logical name. Brokers before Kafka 2.8 tell none."""

_FORMAT = "1"
_SHORT = 3
"""Bytes of a name, and of an id, in a note: a hundred logs are told apart, and a note stays below 1 KiB."""


class Commit(NamedTuple):
    """An offset as it was committed, with what was noted."""

    offset: int
    note: str = ""


def differ(known: str | None, now: str | None) -> bool:
    """Whether two ids are of different logs. A log that was copied to another cluster is not compared."""
    return bool(known and now) and known != now and _cluster(known) == _cluster(now)


class Note(NamedTuple):
    """What a group notes with an offset.

    `turn` counts the takeovers of a partition: an input in which nothing happens keeps an old note. `log` is the id of
    the offset's log, `others` are pairs of a topic's name and the id of its log, both in short.
    """

    turn: int
    log: str
    others: frozenset[tuple[bytes, bytes]] = frozenset()

    @classmethod
    def of(cls, turn: int, topic: str, ids: LogIds) -> "Note":
        """The note of an input; `ids` are those of all inputs and changelogs of the group."""
        return cls(turn, ids[topic], frozenset((_short(name), _short(id_)) for name, id_ in ids.items()))

    @classmethod
    def read(cls, text: str) -> "Note | None":
        """The note as it was committed; `None` for somebody else's metadata, or none."""
        try:
            form, turn, log, packed = text.split(" ")
            raw = base64.urlsafe_b64decode(packed)
            if form != _FORMAT or len(raw) % (2 * _SHORT):
                return None
            pairs = (raw[at : at + 2 * _SHORT] for at in range(0, len(raw), 2 * _SHORT))
            return cls(int(turn), log, frozenset((pair[:_SHORT], pair[_SHORT:]) for pair in pairs))
        except ValueError:
            return None

    def __str__(self) -> str:
        packed = base64.urlsafe_b64encode(b"".join(name + id_ for name, id_ in sorted(self.others))).decode()
        return f"{_FORMAT} {self.turn} {self.log} {packed}"

    def anew(self, topic: str, ids: LogIds) -> bool:
        """Whether the input is another log by now."""
        return differ(self.log, ids.get(topic))

    def made_anew(self, ids: LogIds) -> set[str]:
        """The topics that are other logs by now than when this was noted; none that came later."""
        known = dict(self.others)
        return {
            name
            for name, id_ in ids.items()
            if _cluster(id_) == _cluster(self.log) and known.get(_short(name), _short(id_)) != _short(id_)
        }


def latest(notes: Mapping[TopicPartition, Note]) -> dict[int, list[Note]]:
    """By partition, the notes of the last takeover in which any was committed."""
    result: dict[int, list[Note]] = {}
    for tp, note in notes.items():
        found = result.setdefault(tp.partition, [])
        if found and note.turn > found[0].turn:
            found.clear()
        if not found or note.turn == found[0].turn:
            found.append(note)
    return result


def _cluster(log: str | None) -> str:
    return (log or "").partition("/")[0]


def _short(text: str) -> bytes:
    return crc32(text.encode()).to_bytes(4, "big")[-_SHORT:]
