"""Looks up end offsets such that records written in one transaction are read together."""

import asyncio
from collections.abc import Collection, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Physical

from ecosystem.audit.report import AuditError
from runtime.kafka import aiokafka_internals

_POLL_S = 0.05


class OffsetRange(NamedTuple):
    """Offsets to read: from `start` up to, not including, `end`; those from `late` on are late facts."""

    start: int
    late: int
    end: int


async def offset_ranges(
    consumer: AIOKafkaConsumer, partitions: Collection[Physical], pause_s: float, transaction_wait_s: float
) -> Mapping[Physical, OffsetRange]:
    """Looks up end offsets twice; the second time after all transactions before the first ends are completed.

    So a transaction that has a record before the first ends has all its records before the second ends.

    Arguments:
        consumer: without a group.
        partitions: partitions to read.
        pause_s: seconds between the lookups, for producers without transactions.
        transaction_wait_s: how long to wait for open transactions, in seconds. Raises `AuditError` after that.
    """
    starts = await aiokafka_internals.log_starts(consumer, partitions)
    first = await _completed_ends(consumer, partitions, transaction_wait_s)
    await asyncio.sleep(pause_s)
    second = await _completed_ends(consumer, partitions, transaction_wait_s)
    return {tp: OffsetRange(starts[tp], first[tp], second[tp]) for tp in partitions}


async def _completed_ends(
    consumer: AIOKafkaConsumer, partitions: Collection[Physical], transaction_wait_s: float
) -> Mapping[Physical, int]:
    """Returns log end offsets, once all transactions before them are committed or aborted."""
    ends = await aiokafka_internals.log_ends(consumer, partitions, committed=False)
    pending = list(ends)
    try:
        async with asyncio.timeout(transaction_wait_s):
            while True:
                stable = await aiokafka_internals.log_ends(consumer, pending, committed=True)
                pending = [tp for tp in pending if stable[tp] < ends[tp]]
                if not pending:
                    return ends
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        where = ", ".join(f"{tp.topic} partition {tp.partition}" for tp in pending[:5])
        raise AuditError(
            f"a transaction has been open for {transaction_wait_s:g} s on {where}: its producer hangs, or the broker "
            "does not abort it. Find it by kafka-transactions.sh --find-hanging"
        ) from None
