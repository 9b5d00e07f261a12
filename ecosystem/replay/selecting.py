"""Adds the selected records of the history to a plan."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, NotADeadLetter
from ecosystem.replay import redeciding
from ecosystem.replay.database import HistoryReader, KnownOrder, KnownRecord
from ecosystem.replay.plan import Plan
from ecosystem.replay.records import Resubmission, mark_of
from ecosystem.replay.resubmitting import (
    SUBJECTS,
    cancelled_by_client,
    place_of,
    requested_cancellation,
    resubmission,
)
from ecosystem.replay.selection import Selection
from history_service.filters import Filters
from history_service.stages import TOPIC_STAGES, Stage
from runtime.model.records import Record
from schemas.messages import OrderState

MOST_EXAMPLES = 5
"""Orders that are named of each reason for which some are left out."""


@dataclass(slots=True)
class LeftOut:
    """What was asked for, and is not sent: how many of each reason, and the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    replays: int = 0
    """Records that are replays, or follow from one. They are left out of any replay, so nothing is said to be wrong."""

    def add(self, reason: str, order_id: str) -> None:
        """Adds an order."""
        self.counts[reason] += 1
        known = self.examples.setdefault(reason, [])
        if len(known) < MOST_EXAMPLES:
            known.append(order_id)


class Selector:
    """Reads the history, and fills a plan.

    Arguments:
        reader: of the history.
        selection: what is wanted.
        plan: is filled.
        clock: the time, UTC: that of a new decision.
        progress: called with the number of records that were added since the last call.
    """

    def __init__(
        self,
        reader: HistoryReader,
        selection: Selection,
        plan: Plan,
        clock: Callable[[], datetime],
        progress: Callable[[int], None] = lambda records: None,
    ) -> None:
        self.left_out = LeftOut()
        self._reader = reader
        self._selection = selection
        self._plan = plan
        self._clock = clock
        self._progress = progress

    async def run(self) -> LeftOut:
        """Adds everything that is selected."""
        selection = self._selection
        if selection.of_orders:
            ids = list(dict.fromkeys(selection.ids))
            pages = self._reader.orders_by_id(ids) if ids else self._reader.orders(selection.filters)
            found: set[str] = set()
            async for page in pages:
                found.update(order.id for order in page if ids)
                await self._add_orders(page)
            for order_id in ids:
                if order_id not in found:
                    self.left_out.add("is not in the history", order_id)
        for stage in selection.of_no_order:
            await self._add_about_no_order(stage)
        return self.left_out

    async def _add_orders(self, page: Sequence[KnownOrder]) -> None:
        orders = {order.id: order for order in await self._failed(page)}
        if not orders:
            return
        stages = {*self._selection.of_orders}
        if self._selection.cancelled_by_clients:
            stages.add(Stage.CANCELLED)
        by_order: dict[str, list[KnownRecord]] = {order_id: [] for order_id in orders}
        for record in await self._reader.records_of_orders([*orders], stages):
            if record.order_id is not None:
                by_order[record.order_id].append(record)
                self._count(record)
        for order_id, records in by_order.items():
            self._add_order(orders[order_id], records)
            self._progress(len(records))

    def _add_order(self, order: KnownOrder, records: Sequence[KnownRecord]) -> None:
        if self._selection.redecide:
            self._add_redecided(order, records)
            return
        asked = {requested_cancellation(r) for r in records if r.stored.stage == Stage.CANCELLATION}
        for record in records:
            if not self._is_wanted(record):
                continue
            if record.stored.stage in self._selection.stages:
                self._add(record, resubmission(record, order))
            elif record.stored.stage == Stage.CANCELLED and self._selection.cancelled_by_clients:
                cancelled = cancelled_by_client(record, order, asked)
                if cancelled is not None:
                    self._add(record, cancelled)

    def _add_redecided(self, order: KnownOrder, records: Sequence[KnownRecord]) -> None:
        if order.state != OrderState.FAILED:
            self.left_out.add(redeciding.obstacle(order.state), order.id)
            return
        created = [record for record in records if record.stored.stage == Stage.CREATED]
        known = resubmission(created[-1], order) if created else None
        again = redeciding.redecided(known, order.attempt + 1, self._clock()) if known else None
        if again is None:
            self.left_out.add("has no record CREATED that can be read", order.id)
        else:
            self._add(created[-1], again)

    async def _add_about_no_order(self, stage: Stage) -> None:
        filters = self._selection.filters
        wanted, key = _key(stage, filters)
        if not wanted:
            return
        for name, kind in TOPIC_STAGES.items():
            if kind.stage is stage:
                async for page in self._reader.records_about_no_order(name, stage, filters, key):
                    for record in page:
                        self._count(record)
                        if self._is_wanted(record):
                            self._add(record, resubmission(record, None))
                    self._progress(len(page))

    async def _failed(self, page: Sequence[KnownOrder]) -> Iterable[KnownOrder]:
        failed = self._selection.failed
        if failed is None or not page:
            return page
        letters = await self._reader.dead_letters([order.id for order in page])
        named = {letter.order_id for letter in letters if failed.name in _services(letter)}
        return [order for order in page if order.id in named or failed.check in order.failed_checks]

    def _is_wanted(self, record: KnownRecord) -> bool:
        """Whether a record may be sent. What is itself a replay, or follows from one, is not sent unless asked for."""
        if self._selection.replays_too or mark_of(record.stored.header_pairs) is None:
            return True
        if record.stored.stage in self._selection.stages:
            self.left_out.replays += 1
        return False

    def _count(self, record: KnownRecord) -> None:
        """Adds what a record says of the replays of its original, and of its own."""
        mark = mark_of(record.stored.header_pairs)
        if mark is not None:
            self._plan.count(mark)
            self._plan.count(mark._replace(place=place_of(record)))

    def _add(self, record: KnownRecord, sent: Resubmission) -> None:
        self._plan.add(record.stored.log, record.timestamp_ms, sent)


def _key(stage: Stage, filters: Filters) -> tuple[bool, str | None]:
    """Whether records of a stage are wanted, and their key; `None`: all. Of a product there is no customer."""
    customer = None if filters.customer_id is None else str(filters.customer_id)
    subject = SUBJECTS.get(stage)
    key, other = {"product": (filters.product, customer), "customer": (customer, filters.product)}.get(
        subject or "", (None, filters.product or customer)
    )
    return key is not None or other is None, key


def _services(letter: KnownRecord) -> Sequence[str]:
    """The services that failed on a dead letter."""
    stored = letter.stored
    record = Record(
        stored.topic,
        stored.partition,
        stored.offset,
        letter.timestamp_ms,
        stored.key,
        stored.value,
        stored.header_pairs,
    )
    try:
        return DeadLetter.of(record).service.split(",")
    except NotADeadLetter:
        return ()
