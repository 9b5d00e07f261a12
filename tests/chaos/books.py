"""The books: what the topics say of every order, held against what clients were told; and the project's own audit."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

from aiokafka import TopicPartition as Physical

from ecosystem.audit import ViolationKind, audit
from runtime.common.settings import Guarantee
from runtime.kafka import aiokafka_internals
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS
from tests.chaos.load import Load
from tests.workers import Deployment
from validators.inventory.state import STOCK

STUCK_S = 180.0
"""Seconds without a decided order, after all faults are healed, until open orders count as stuck."""

_AT_LEAST_ONCE = {ViolationKind.STUCK, ViolationKind.NEVER_POSTED, ViolationKind.UNREADABLE_ROW}
"""What must not be though nobody is fenced: a worker that was paused may write state over what its successor wrote."""


@dataclass
class Violations:
    """Broken promises, by order id or as sentences."""

    lost: list[str] = field(default_factory=list)
    """Acknowledged, but not in the topic `orders`."""
    doubled: list[str] = field(default_factory=list)
    """Decided more than once."""
    stuck: list[str] = field(default_factory=list)
    """In the topic `orders`, but not decided."""
    wrong: list[str] = field(default_factory=list)
    """Anything else."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.stuck or self.wrong)


class Books:
    """The contents of the topics, read incrementally."""

    def __init__(self, deployment: Deployment, guarantee: Guarantee = Guarantee.EXACTLY_ONCE) -> None:
        self._deployment = deployment
        self._guarantee = guarantee
        self._created: dict[str, Order] = {}
        self._finals: dict[str, list[Order]] = {}

    async def __aenter__(self) -> Self:
        self._context = self._deployment.consumer()
        self._consumer = await self._context.__aenter__()
        self._tps = [Physical(self._deployment.prefix + ORDERS.name, p) for p in range(4)]
        self._consumer.assign(self._tps)
        await self._consumer.seek_to_beginning(*self._tps)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._context.__aexit__(kind, error, trace)

    async def audit(self, load: Load) -> Violations:
        """Waits for what is under way, and says what does not hold. For a moment when nothing is sent."""
        await self._settle(load.acknowledged.keys())
        found = Violations(
            lost=[id_ for id_ in load.acknowledged if id_ not in self._created],
            stuck=[id_ for id_ in self._created if id_ not in self._finals],
            wrong=list(load.wrong),
        )
        if self._guarantee is Guarantee.EXACTLY_ONCE:
            found.doubled = [f"{id_} ({_states(all_)})" for id_, all_ in self._finals.items() if not _once(all_)]
            found.wrong += await _until_none(self._stock)
            found.wrong += [
                f"{id_}: shown as {', '.join(states)}, is {_states(self._finals.get(id_, []))}"
                for id_, states in load.told.items()
                if not states <= {order.state for order in self._finals.get(id_, [])}
            ]
            found.wrong += load.wrong_cancels({id_: [o.state for o in all_] for id_, all_ in self._finals.items()})
        found.wrong += await _until_none(self._audit)
        return found

    async def _settle(self, acknowledged: Collection[str]) -> None:
        since = monotonic()
        while monotonic() - since < STUCK_S:
            if await self._read_on():
                since = monotonic()
            elif self._finals.keys() >= {*acknowledged, *self._created}:
                return

    async def _read_on(self) -> int:
        """Reads to the last stable offsets. Returns the number of messages."""
        count = 0
        ends = await aiokafka_internals.log_ends(self._consumer, self._tps, committed=True)
        while any([await self._consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    count += 1
                    order = Order.from_json(record.value)
                    if order.state is OrderState.CREATED:
                        self._created[order.id] = order
                    else:
                        self._finals.setdefault(order.id, []).append(order)
        await asyncio.sleep(0.1)
        return count

    async def _audit(self) -> list[str]:
        settings = self._deployment.settings(processing_guarantee=self._guarantee)
        report = await audit(settings, grace=timedelta(0))
        return [
            f"audit: {violation.subject_type} {violation.subject}: {violation.text}"
            for violation in report.violations
            if self._guarantee is Guarantee.EXACTLY_ONCE or violation.kind in _AT_LEAST_ONCE
        ]

    async def _stock(self) -> list[str]:
        wanted: Counter[str] = Counter()
        for orders in self._finals.values():
            if orders[-1].state is OrderState.VALIDATED:
                wanted[orders[0].product] += orders[0].quantity
        found = []
        for product, row in (await self._deployment.rows(STOCK)).items():
            if row.reserved != wanted[product]:
                found.append(f"{product}: {row.reserved} reserved, validated orders hold {wanted[product]}")
            if row.reserved > (row.count or 0):
                found.append(f"{product}: {row.reserved} reserved of {row.count}")
        return found


def _once(announced: list[Order]) -> bool:
    """Whether an order was decided once, or cancelled once, be it after it was validated."""
    validated, cancelled = OrderState.VALIDATED, OrderState.CANCELLED
    return len(announced) == 1 or [order.state for order in announced] == [validated, cancelled]


def _states(orders: list[Order]) -> str:
    return ", ".join(order.state for order in orders)


async def _until_none(faults: Callable[[], Any]) -> list[str]:
    """What is still wrong after a while: a reservation is given back a moment after its order failed."""
    since = monotonic()
    while found := await faults():
        if monotonic() - since > STUCK_S:
            return list(found)
        await asyncio.sleep(0.5)
    return []
