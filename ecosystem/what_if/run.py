"""Runs a what-if over spooled records, in several processes."""

import gc
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from time import sleep
from typing import Any
from zlib import crc32

from ecosystem.what_if import changes
from ecosystem.what_if.difference import Difference, compare
from ecosystem.what_if.recorded import read_entries
from ecosystem.what_if.replay import RANKS, NotDivisible, Replay
from ecosystem.what_if.runner import NEVER
from ecosystem.what_if.spool import read_merged, read_topics
from ecosystem.what_if.variant import Variant
from orders_service.settings import OrdersSettings
from runtime.common.settings import Settings
from runtime.model.records import Record

__all__ = ["NotDivisible", "Question", "judge", "judge_in_processes", "range_ms", "topics"]

SETTLE = timedelta(days=1)
"""Time after the end of the range within which its orders may still change: be shipped, or cancelled."""

_REPORT_EVERY = 2000
"""Records between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Arguments:
        folder: the spooled records.
        partitions: of every topic.
        changes: fields of settings and their other values.
        from_ms: start of the range of orders, in milliseconds since 1970.
        to_ms: its end.
        most_cases: orders that are listed of each kind.
    """

    folder: Path
    partitions: int
    changes: Mapping[str, Any]
    from_ms: int = 0
    to_ms: int = NEVER
    most_cases: int = 100

    @property
    def until_ms(self) -> int:
        """Records from then on do not count."""
        return NEVER if self.to_ms == NEVER else self.to_ms + int(SETTLE.total_seconds() * 1000)

    def on(self, partitions: int) -> "Question":
        """Returns the question, asked about topics with a number of partitions."""
        return replace(self, partitions=partitions)


def range_ms(start: datetime | None, end: datetime | None) -> tuple[int, int]:
    """Returns a range of times in milliseconds since 1970."""
    return 0 if start is None else _ms(start), NEVER if end is None else _ms(end)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def topics() -> list[str]:
    """Returns the topics whose records a what-if needs."""
    return Variant(changes.build(Settings()), 1).topics


def judge(
    question: Question, shard: int = 0, shards: int = 1, read: Callable[[int], None] = lambda records: None
) -> Difference:
    """Judges the orders of one shard of the products.

    Arguments:
        question: what is asked.
        shard: number of the shard, from 0.
        shards: number of shards.
        read: called with the number of records read since the last call.
    """
    present = Settings()
    variants = [Variant(changes.build(present), question.partitions)]
    if question.changes:
        variants.append(Variant(changes.build(Settings(**question.changes)), question.partitions))

    def is_own(product: str) -> bool:
        return crc32(product.encode(errors="surrogatepass")) % shards == shard

    entries = read_entries(partial(read_topics, question.folder), is_own, question.until_ms)
    deadline_ms = present.of(OrdersSettings).validation_deadline_s * 1000
    replay = Replay(variants, question.partitions, entries, deadline_ms, is_own if shards > 1 else None)
    ranks = {topic: RANKS.get(topic, 0) for topic in variants[0].topics}
    counted = _Counted(read_merged(question.folder, ranks), read)
    replay.run(counted, question.until_ms)
    difference = compare(entries, question.from_ms, question.to_ms, question.most_cases, changed=bool(question.changes))
    difference.records, difference.rejected = counted.records, replay.rejected
    return difference


def judge_in_processes(
    question: Question, processes: int, progress: Callable[[int], None] = lambda records: None
) -> Difference:
    """Judges all orders in several processes, each with its shard of the products.

    Raises `NotDivisible` if a validator does not allow that.

    Arguments:
        question: what is asked.
        processes: number of processes.
        progress: called now and then with the records that were read, of all processes together.
    """
    if processes == 1:
        total = 0

        def add(records: int) -> None:
            nonlocal total
            total += records
            progress(total)

        return judge(question, read=add)
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    result = Difference(question.most_cases)
    with ProcessPoolExecutor(processes, context, _start, (counter,)) as pool:
        running = [pool.submit(_judge_shard, question, shard, processes) for shard in range(processes)]
        while not all(future.done() for future in running):
            progress(counter.value)
            sleep(0.2)
        for future in running:
            result.merge(future.result())
    return result


_counter: "Synchronized[int] | None" = None


def _start(counter: "Synchronized[int]") -> None:
    global _counter  # noqa: PLW0603  one per process
    _counter = counter
    gc.disable()  # millions of rows and no cycles among them: a collection would only look at them all


def _judge_shard(question: Question, shard: int, shards: int) -> Difference:
    return judge(question, shard, shards, _count)


def _count(records: int) -> None:
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += records


class _Counted:
    """Records, counted as they are read."""

    def __init__(self, records: Iterable[Record], read: Callable[[int], None]) -> None:
        self.records = 0
        self._records = records
        self._read = read

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.records += 1
            if self.records % _REPORT_EVERY == 0:
                self._read(_REPORT_EVERY)
            yield record
        self._read(self.records % _REPORT_EVERY)
