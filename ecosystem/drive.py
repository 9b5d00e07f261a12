"""Posts orders at a steady rate and checks what can be read back: a client that trusts nobody."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from ecosystem import sample
from ecosystem.api import OrdersApi, Refusal, Unreachable
from ecosystem.writer import Writer
from schemas.api import NewOrder, OrderOutcome
from schemas.messages import Order, OrderState, ValidationResult
from schemas.topics import PAYMENTS

T = TypeVar("T")

_PATIENCE_S = 60.0
"""For one request in all, repeated while workers restart or partitions move. After that it counts as a mismatch."""
_MOST_IN_FLIGHT = 1000
_KEPT_TIMES = 10_000


class Mismatch(Exception):
    """What was read is not what was written, or did not come."""


@dataclass(slots=True)
class Tally:
    """What has come of the orders so far."""

    posted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)
    repeated: int = 0
    seconds: list[float] = field(default_factory=list)
    """From the first POST to the outcome; the latest ones."""

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items())) or "none decided yet"
        times = sorted(self.seconds)
        quantiles = f"; p50 {_ms(times, 0.5)}, p99 {_ms(times, 0.99)} ms" if times else ""
        repeated = f"; {self.repeated} requests repeated" if self.repeated else ""
        return f"{self.posted} posted: {states}; {len(self.mismatches)} mismatches{quantiles}{repeated}"


class Driver:
    """Posts sample orders to `apis` in turn, and reads each back from the next one.

    Arguments:
        writer: announces a payment for each order; `None` for no payments.
        complain: told of every mismatch.
    """

    def __init__(
        self, apis: Sequence[OrdersApi], writer: Writer | None, random: Random, complain: Callable[[str], None]
    ) -> None:
        self.tally = Tally()
        self._apis = apis
        self._writer = writer
        self._random = random
        self._complain = complain

    async def run(self, rate: float, count: int | None, stop: asyncio.Event) -> None:
        """Posts `rate` orders a second, `count` in all or until `stop`; returns when all of them are read back."""
        room = asyncio.Semaphore(_MOST_IN_FLIGHT)
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set() and (count is None or self.tally.posted < count):
                await _sleep_until(started + self.tally.posted / rate, stop)
                if stop.is_set():
                    break
                await room.acquire()
                number, new = self.tally.posted, sample.order(self._random)
                self.tally.posted += 1
                tasks.create_task(self._follow(number, new)).add_done_callback(lambda _: room.release())

    async def _follow(self, number: int, new: NewOrder) -> None:
        began = time.monotonic()
        try:
            outcome = await self._check(self._api(number), self._api(number + 1), new)
        except Mismatch as mismatch:
            self.tally.mismatches.append(f"{new.id}: {mismatch}")
            self._complain(self.tally.mismatches[-1])
        else:
            self.tally.states[outcome.state] += 1
            self.tally.seconds.append(time.monotonic() - began)
            del self.tally.seconds[:-_KEPT_TIMES]

    async def _check(self, here: OrdersApi, there: OrdersApi, new: NewOrder) -> OrderOutcome:
        assert new.id is not None
        order_id = new.id
        posted = await self._patiently("POST", lambda: here.post(new))
        wanted = Order(**new.model_dump(), created_at=posted.created_at)
        _same(posted, wanted, "POST answered")
        if self._writer:
            await self._writer.write(PAYMENTS, [sample.payment(posted)])
        _same(await self._patiently("GET", lambda: there.get(order_id, 10_000)), wanted, "GET answered")
        outcome = await self._patiently("GET validated", lambda: there.validated(order_id, 10_000))
        _same(outcome.order, wanted, "GET validated answered")
        _consistent(outcome)
        return outcome

    async def _patiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats what may be repeated: a worker that is gone or not ready, an outcome that is not there yet."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await call()
            except Refusal as refusal:
                if refusal.status not in {502, 503, 504} or time.monotonic() > deadline:
                    raise Mismatch(f"{what}: {refusal}") from refusal
            except Unreachable as error:
                if time.monotonic() > deadline:
                    raise Mismatch(f"{what}: nobody answered ({error})") from error
            self.tally.repeated += 1
            await asyncio.sleep(0.2)

    def _api(self, number: int) -> OrdersApi:
        return self._apis[number % len(self._apis)]


def _same(found: Order, wanted: Order, what: str) -> None:
    if not found.same_content(wanted):
        raise Mismatch(f"{what} {found!r}, posted was {wanted!r}")


def _consistent(outcome: OrderOutcome) -> None:
    passed = [v.check_type for v in outcome.verdicts if v.validation_result is ValidationResult.PASS]
    if outcome.state is OrderState.VALIDATED and len(passed) < len(outcome.verdicts):
        raise Mismatch(f"VALIDATED against a verdict: {outcome.verdicts!r}")
    if outcome.state is OrderState.VALIDATED and sample.certain_to_fail(outcome.order):
        raise Mismatch(f"VALIDATED, which cannot be: {outcome.order!r}")
    if outcome.state is OrderState.FAILED and not outcome.reasons:
        raise Mismatch("FAILED without a reason")
    if not outcome.state.decided:
        raise Mismatch(f"not decided, though GET validated answered 200: {outcome.state}")


async def _sleep_until(moment: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(max(0.0, moment - time.monotonic())):
            await stop.wait()
    except TimeoutError:
        pass


def _ms(ordered: Sequence[float], quantile: float) -> int:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000)
