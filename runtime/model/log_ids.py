"""Identifies the log of an offset: a recreated topic has the same name and other records. Pure.

A log id is `<cluster>/<topic id>` (KIP-516). A group commits it in the metadata of every offset, with hashes of the log
ids of all its inputs and changelogs. So a recreated topic is detected, however long it is by now; also where the broker
has deleted the committed offsets, as it does when a topic is deleted.
"""

import base64
from collections.abc import Mapping
from typing import NamedTuple
from zlib import crc32

from runtime.model.records import TopicPartition

LogIds = Mapping[str, str]
"""Log ids by logical topic name. Brokers before Kafka 2.8 have none."""

_FORMAT = "1"
_SHORT = 3
"""Bytes of the hashes in a note: enough to tell a hundred logs apart, with notes below 1 KiB."""


class Commit(NamedTuple):
    """A committed offset with its metadata."""

    offset: int
    note: str = ""


def differ(known: str | None, now: str | None) -> bool:
    """Whether two log ids differ. Ids of different clusters are not compared: a log may have been copied."""
    return bool(known and now) and known != now and _cluster(known) == _cluster(now)


class Note(NamedTuple):
    """The metadata that a group commits with an offset.

    `turn` counts the restores of a partition: an idle input keeps an old note. `log` is the log id of the input,
    `others` are pairs of hashes: topic name and log id.
    """

    turn: int
    log: str
    others: frozenset[tuple[bytes, bytes]] = frozenset()

    @classmethod
    def of(cls, turn: int, topic: str, ids: LogIds) -> "Note":
        """The note of an input; `ids` are the log ids of all inputs and changelogs of the group."""
        return cls(turn, ids[topic], frozenset((_short(name), _short(id_)) for name, id_ in ids.items()))

    @classmethod
    def read(cls, text: str) -> "Note | None":
        """Parses committed metadata; `None` for other metadata, or none."""
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
        """Whether the input was recreated since."""
        return differ(self.log, ids.get(topic))

    def made_anew(self, ids: LogIds) -> set[str]:
        """The topics that were recreated since this note; not those that are new."""
        known = dict(self.others)
        return {
            name
            for name, id_ in ids.items()
            if _cluster(id_) == _cluster(self.log) and known.get(_short(name), _short(id_)) != _short(id_)
        }


def latest(notes: Mapping[TopicPartition, Note]) -> dict[int, list[Note]]:
    """By partition: the notes of the last restore that committed any."""
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
