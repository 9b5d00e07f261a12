"""Checks of the newest records: keys in wrong partitions, and times of writers whose clocks are ahead."""

import time
from collections.abc import Iterable

from aiokafka import TopicPartition

from ecosystem import services
from ecosystem.clients.reader import partitions_of
from ecosystem.doctor.finding import Finding, ok, problem, warning
from runtime.common.partitioning import MisplacedError, check_partition
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients

RECORDS = 200
"""Newest records of each partition that are looked at."""

AHEAD_S = 5.0
"""Seconds that a record may be in our future: clocks of machines that are kept by NTP differ by far less."""

_POLL_MS = 250
_SILENCE_S = 3.0
"""Seconds without a record after which the rest of a partition is taken for transaction markers."""


async def check_records(settings: Settings) -> list[Finding]:
    """Reads the newest records of each input of a service. Joins no group and commits nothing."""
    partitions = await partitions_of(settings, services.topology(settings).consumed)
    misplaced: dict[str, str] = {}
    counts: dict[str, int] = {}
    newest_ms, newest, looked_at = 0, "", 0
    consumer = clients.standalone_consumer(settings, skip_removed=True)
    await consumer.start()
    try:
        ends = await aiokafka_internals.log_ends(consumer, partitions, committed=True)
        starts = await aiokafka_internals.log_starts(consumer, partitions)
        tails = {tp: max(starts[tp], end - RECORDS) for tp, end in ends.items() if end > starts[tp]}
        consumer.assign(list(tails))
        for tp, start in tails.items():
            consumer.seek(tp, start)
        heard = time.monotonic()
        while await _unread(consumer, tails, ends) and time.monotonic() - heard < _SILENCE_S:
            for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                heard = time.monotonic()
                for record in records:
                    looked_at += 1
                    if record.timestamp > newest_ms:
                        newest_ms, newest = record.timestamp, f"{tp.topic} {tp.partition}@{record.offset}"
                    if record.key is None:
                        continue
                    try:
                        check_partition(record.key, tp.partition, settings.partitions)
                    except MisplacedError as error:
                        counts[tp.topic] = counts.get(tp.topic, 0) + 1
                        misplaced.setdefault(tp.topic, f"{tp.partition}@{record.offset}: {error}")
    finally:
        await consumer.stop()
    ahead_s = newest_ms / 1000 - time.time()
    return [*judge_keys(counts, misplaced, looked_at), *judge_clock(ahead_s, newest, looked_at)]


async def _unread(consumer: object, partitions: Iterable[TopicPartition], ends: dict[TopicPartition, int]) -> bool:
    positions = [(await consumer.position(tp), ends[tp]) for tp in partitions]  # type: ignore[attr-defined]
    return any(position < end for position, end in positions)


def judge_keys(counts: dict[str, int], examples: dict[str, str], looked_at: int) -> list[Finding]:
    """Judges misplaced records: their number and an example, by topic."""
    found = [
        problem(
            "keys",
            f"{topic} has {count} of the newest records in wrong partitions, for example {examples[topic]}",
            "Services dead-letter them: a key's owner never sees them.",
            "let their producer place records by murmur2 of the key, as Kafka's Java client does; then "
            f"orders dead-letters redrive {topic} --all",
        )
        for topic, count in counts.items()
    ]
    return found or [ok("keys", f"{looked_at} newest records are in the partitions of their keys")]


def judge_clock(ahead_s: float, where: str, looked_at: int) -> list[Finding]:
    """Judges by how many seconds the newest record is in our future."""
    if looked_at and ahead_s > AHEAD_S:
        return [
            warning(
                "clocks",
                f"the record {where} was written {ahead_s:.0f} s in the future",
                "The clock of its writer, or of this host, is wrong: deadlines and ages are, too.",
                "run NTP on all hosts: timedatectl set-ntp true",
            )
        ]
    return [ok("clocks", "no record is from the future")]
