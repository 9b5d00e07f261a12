"""The order in which records were processed, as far as the history proves it, and the waves that keep it.

The processors run over the history in memory, as in `orders what-if`: verdicts prove in which order a validator
read what bears on a key (decision 42). Where nothing is proven, records go by their times.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

from ecosystem.replay.plan import Plan
from ecosystem.replay.records import Place
from ecosystem.replay.waves import Waves
from ecosystem.what_if import changes, run, sources
from ecosystem.what_if.keyed_inputs import HeldInput, Judgement
from ecosystem.what_if.recorded import read_entries
from ecosystem.what_if.replay import RANKS, NotDivisible, Replay
from ecosystem.what_if.spool import read_merged, read_topics
from ecosystem.what_if.variant import Variant
from history_service.stages import Stage
from orders_service.settings import OrdersSettings
from runtime.common.settings import Settings
from runtime.model.records import Record
from schemas.messages import Order, OrderState

_REPORT_EVERY = 1000

_TRIGGERS = {
    OrderState.CANCELLED: (Stage.CANCELLATION,),
    OrderState.SHIPPED: (Stage.PAYMENT, Stage.CHECK_IN),
}
"""The last record of these stages makes an order change into a state. One that fails does so by itself."""

Progress = Callable[[str, int, int | None], None]


async def order(plan: Plan, url: str, before: datetime | None, folder: Path, progress: Progress) -> str | None:
    """Puts a plan into the order of processing, and into waves. Returns why nothing is proven; `None` if it is.

    Arguments:
        plan: the records, by their times.
        url: database of the history.
        before: the first time at which no order was created that is in the plan.
        folder: for temporary files.
        progress: of the work.
    """
    spooled = folder / "history"
    spooled.mkdir()
    until_ms = run.Question(spooled, 0, {}, *run.range_ms(None, before)).until_ms
    unproven, proved = None, list[tuple[int, int]]()
    try:
        partitions, records = await sources.spool_history(
            url, run.topics(), spooled, until_ms, lambda read: progress("reading the order", read, None)
        )
        proof = Proof(plan)
        proof.run(spooled, partitions, until_ms, lambda read: progress("proving the order", read, records))
        proved = proof.pairs
    except (sources.NoRecords, NotDivisible) as error:
        unproven = str(error)
    arrange(plan, proved)
    return unproven


def arrange(plan: Plan, proved: Iterable[tuple[int, int]]) -> None:
    """Puts a plan into an order that agrees with what is proven, else with the times, and into waves.

    Arguments:
        plan: the records, by their times.
        proved: numbers of records, the first of which was processed before the second.
    """
    # What is moved takes along what came after it for the same order, or the same stock.
    numbers = sort(plan.ids(), [*proved, *plan.pairs(Stage.CREATED, Stage.CANCELLATION), *plan.chained()])
    waves = Waves()
    plan.reorder([(number, waves.assign(plan.record(number))) for number in numbers])


class Proof:
    """Finds in which order the validators processed the records of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.pairs: list[tuple[int, int]] = []
        """Numbers of records, the first of which was processed before the second."""
        self._plan = plan

    def run(self, folder: Path, partitions: int, until_ms: int, progress: Callable[[int], None]) -> None:
        """Replays a spooled history in memory under the settings of the environment. Raises `NotDivisible`."""
        settings = Settings()
        variant = Variant(changes.build(settings), partitions)
        entries = read_entries(partial(read_topics, folder), lambda _: True, until_ms)
        deadline_ms = settings.of(OrdersSettings).validation_deadline_s * 1000
        replay = Replay([variant], partitions, entries, deadline_ms, proved=self._add)
        ranks = {topic: RANKS.get(topic, 0) for topic in variant.topics}
        replay.run(_counted(read_merged(folder, ranks), progress), until_ms)

    def _add(self, first: HeldInput | Judgement, second: HeldInput | Judgement) -> None:
        before, after = self._number(first), self._number(second)
        if before is not None and after is not None and before != after:
            self.pairs.append((before, after))

    def _number(self, processed: HeldInput | Judgement) -> int | None:
        """The number of the record that made the validator process something; `None` if it is not in the plan."""
        subject = processed.message.subject
        if isinstance(processed, Judgement):
            return self._plan.id_of_stage(processed.recorded.order_id, Stage.CREATED)
        if isinstance(subject, Order):
            last: Sequence[Stage] = _TRIGGERS.get(subject.state, ())
            return self._plan.id_of_stage(subject.id, *last, last=True) if last else None
        topic, partition, offset = processed.id
        return self._plan.id_of(Place(topic, int(partition), offset))


def sort(numbers: Sequence[int], chains: Iterable[Sequence[int]]) -> list[int]:
    """Sorts so that each chain keeps its order. Where chains contradict each other, the given order decides.

    Arguments:
        numbers: in the order that counts where no chain says otherwise.
        chains: parts of the numbers, in their order.

    >>> sort([1, 2, 3, 4], [[3, 1], [4, 2]])
    [3, 1, 4, 2]
    >>> sort([1, 2, 3], [[2, 1], [1, 2]])
    [3, 1, 2]
    """
    rank = {number: position for position, number in enumerate(numbers)}
    followers: dict[int, list[int]] = {}
    waits = dict.fromkeys(numbers, 0)
    for chain in chains:
        for before, after in pairwise(chain):
            if before != after:
                followers.setdefault(before, []).append(after)
                waits[after] += 1
    ready = [rank[number] for number in numbers if not waits[number]]
    heapq.heapify(ready)
    result: list[int] = []
    done: set[int] = set()
    rest = iter(numbers)
    while len(result) < len(numbers):
        if ready:
            number = numbers[heapq.heappop(ready)]
            if number in done:
                continue
        else:
            number = next(number for number in rest if number not in done)
        done.add(number)
        result.append(number)
        for after in followers.get(number, ()):
            waits[after] -= 1
            if not waits[after] and after not in done:
                heapq.heappush(ready, rank[after])
    return result


def _counted(records: Iterable[Record], progress: Callable[[int], None]) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        if number % _REPORT_EVERY == 0:
            progress(number)
        yield record
