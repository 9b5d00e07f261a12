"""Detects recreated topics, which have the same name and other records, by the id of the log of an offset. Pure.

A log id is `<cluster>/<topic id>` (KIP-516). A group commits it in the metadata of every offset, with hashes of the log
ids of all its inputs and changelogs. So a recreated topic is detected, however long it is by now; also where the broker
has deleted the committed offsets, as it does when a topic is deleted.
"""

import base64
from collections.abc import Mapping
from typing import NamedTuple
from zlib import crc32

from runtime.model.progress import NOTHING_MORE, ServiceProgress
from runtime.model.records import TopicPartition

LogIds = Mapping[str, str]
"""Log ids by logical topic name. Brokers before Kafka 2.8 have none."""

_FORMAT = "1"
_HASH_BYTES = 3
"""Bytes of a hash: tells a hundred logs apart, and keeps the metadata below 1 KiB; brokers accept 4 KiB."""


class CommittedOffset(NamedTuple):
    """A committed offset with its metadata."""

    offset: int
    metadata: str = ""


def logs_differ(known: str | None, now: str | None) -> bool:
    """Whether two log ids differ. Ids of different clusters are not compared: a log may have been copied."""
    return bool(known and now) and known != now and _cluster(known) == _cluster(now)


class OffsetMetadata(NamedTuple):
    """The metadata that a group commits with an offset.

    Arguments:
        restore: number of the restore that produced it, counted per partition: an idle input keeps older metadata.
        log_id: log id of the input.
        hashes: of topic name and log id, for all inputs and changelogs of the group.
        progress: how far each service has processed the input.
    """

    restore: int
    log_id: str
    hashes: frozenset[tuple[bytes, bytes]] = frozenset()
    progress: ServiceProgress = NOTHING_MORE

    @classmethod
    def of(cls, restore: int, topic: str, ids: LogIds, progress: ServiceProgress = NOTHING_MORE) -> "OffsetMetadata":
        """The metadata of an input; `ids` are the log ids of all inputs and changelogs of the group."""
        hashes = frozenset((_hash(name), _hash(id_)) for name, id_ in ids.items())
        return cls(restore, ids.get(topic, ""), hashes, progress)

    @classmethod
    def parse(cls, text: str) -> "OffsetMetadata | None":
        """Parses committed metadata; `None` for other metadata, or none."""
        try:
            format_, restore, log_id, packed, *more = text.split(" ")
            raw = base64.urlsafe_b64decode(packed)
            if format_ != _FORMAT or len(raw) % (2 * _HASH_BYTES) or len(more) > 1:
                return None
            pairs = (raw[at : at + 2 * _HASH_BYTES] for at in range(0, len(raw), 2 * _HASH_BYTES))
            hashes = frozenset((pair[:_HASH_BYTES], pair[_HASH_BYTES:]) for pair in pairs)
            return cls(int(restore), log_id, hashes, ServiceProgress.parse(*more) if more else NOTHING_MORE)
        except ValueError:
            return None

    def __str__(self) -> str:
        packed = base64.urlsafe_b64encode(b"".join(name + id_ for name, id_ in sorted(self.hashes))).decode()
        more = f" {self.progress}" if any(self.progress) else ""
        return f"{_FORMAT} {self.restore} {self.log_id} {packed}{more}"

    def recreated(self, topic: str, ids: LogIds) -> bool:
        """Whether the input `topic` was recreated since this was committed."""
        return logs_differ(self.log_id, ids.get(topic))

    def recreated_topics(self, ids: LogIds) -> set[str]:
        """The topics that were recreated since this was committed; new topics are not among them."""
        known = dict(self.hashes)
        return {
            name
            for name, id_ in ids.items()
            if _cluster(id_) == _cluster(self.log_id) and known.get(_hash(name), _hash(id_)) != _hash(id_)
        }


def of_last_restore(committed: Mapping[TopicPartition, OffsetMetadata]) -> dict[int, list[OffsetMetadata]]:
    """By partition: the metadata of the last restore after which anything was committed."""
    result: dict[int, list[OffsetMetadata]] = {}
    for tp, metadata in committed.items():
        found = result.setdefault(tp.partition, [])
        if found and metadata.restore > found[0].restore:
            found.clear()
        if not found or metadata.restore == found[0].restore:
            found.append(metadata)
    return result


def _cluster(log_id: str | None) -> str:
    return (log_id or "").partition("/")[0]


def _hash(text: str) -> bytes:
    return crc32(text.encode()).to_bytes(4, "big")[-_HASH_BYTES:]
