"""Where to stop reading topics that go on: such that what was written together is seen together."""

import asyncio
from collections.abc import Collection, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Physical

from ecosystem.audit.report import AuditError
from runtime.kafka import aiokafka_internals

_POLL_S = 0.05


class Span(NamedTuple):
    """What is read of a partition: offsets from `start` up to, not including, `end`. From `late` on they came while the
    ends were being found."""

    start: int
    late: int
    end: int


async def spans(
    consumer: AIOKafkaConsumer, partitions: Collection[Physical], pause_s: float, patience_s: float
) -> Mapping[Physical, Span]:
    """Finds the ends twice. The first time they are those of the logs as they are, each at a slightly different moment.

    Once no transaction is open before any of them they are found again. Whatever was written in one transaction with a
    record before the first ends lies before the second ones: it was complete by then.

    Arguments:
        consumer: of no group.
        partitions: those whose ends are wanted.
        pause_s: seconds between the two, for writers without transactions.
        patience_s: how long to wait for transactions that are open. Raises `AuditError` after that.
    """
    starts = await aiokafka_internals.log_starts(consumer, partitions)
    first = await _stable_ends(consumer, partitions, patience_s)
    await asyncio.sleep(pause_s)
    second = await _stable_ends(consumer, partitions, patience_s)
    return {tp: Span(starts[tp], first[tp], second[tp]) for tp in partitions}


async def _stable_ends(
    consumer: AIOKafkaConsumer, partitions: Collection[Physical], patience_s: float
) -> Mapping[Physical, int]:
    """The ends of the logs, once everything before them is committed or aborted."""
    ends = await aiokafka_internals.log_ends(consumer, partitions, committed=False)
    unstable = list(ends)
    try:
        async with asyncio.timeout(patience_s):
            while True:
                stable = await aiokafka_internals.log_ends(consumer, unstable, committed=True)
                unstable = [tp for tp in unstable if stable[tp] < ends[tp]]
                if not unstable:
                    return ends
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        where = ", ".join(f"{tp.topic} partition {tp.partition}" for tp in unstable[:5])
        raise AuditError(
            f"a transaction has been open for {patience_s:g} s on {where}: its writer hangs, or the broker does not "
            "end it (kafka-transactions.sh --find-hanging)"
        ) from None
