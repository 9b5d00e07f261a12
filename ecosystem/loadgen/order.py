"""One order's way, as its script says, each step of it read back."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial

from ecosystem.clients.api import FulfilmentApi, OrdersApi
from ecosystem.loadgen import sample
from ecosystem.loadgen.clients import CheckInDesk, Clients
from ecosystem.loadgen.patience import Mismatch, RetryDeadline
from ecosystem.loadgen.script import CheckInAt, Script
from ecosystem.loadgen.tally import Tally
from schemas.api import Checkin, CheckinState, FulfilmentStatus, OrderOutcome, PortalCheckins, Verdict
from schemas.identifiers import new_order_id
from schemas.messages import CheckType, Need, Order, OrderState, ValidationResult
from schemas.topics import PAYMENTS


class OrderScenario:
    """Walks one order through. Methods raise `Mismatch` and `Stopped`, in groups where several things go on."""

    def __init__(self, number: int, script: Script, clients: Clients, patience: RetryDeadline, tally: Tally) -> None:
        assert script.order.id is not None
        self._id = script.order.id
        self._script = script
        self._clients = clients
        self._patience = patience
        self._tally = tally
        apis = clients.orders
        self._here, self._there = apis[number % len(apis)], apis[(number + 1) % len(apis)]

    async def walk(self) -> None:
        """All of it; returns when nothing more is to come of the order."""
        began = time.monotonic()
        await self._pay(before=True)
        new = self._script.order
        posted = await self._patience.request("POST", lambda: self._here.post(new))
        wanted = Order(**new.model_dump(), created_at=posted.created_at)
        _same(posted, wanted, "POST answered")
        async with asyncio.TaskGroup() as side:
            side.create_task(self._pay(before=False))
            when = self._script.check_in if self._clients.check_ins else None
            early = side.create_task(self._check_in()) if when is CheckInAt.ONCE else None
            outcome = await self._read_back(wanted, self._there)
            state = OrderState.FAILED if outcome.state is OrderState.FAILED else OrderState.VALIDATED
            self._tally.decided(state, time.monotonic() - began)
            check_in = await early if early else None
            if check_in is None and when is not None and when.follows(state):
                check_in = await self._check_in()
        await self._settle(state, wanted, check_in)

    async def ghost(self) -> None:
        """Somebody checks in for an order that does not exist."""
        desk = self._clients.check_ins
        if desk is not None:
            await _rejected(await self._check_in(new_order_id()), desk, self._patience, desk.patience_s)
            self._tally.rejected += 1

    async def _pay(self, *, before: bool) -> None:
        writer, began = self._clients.writer, time.monotonic()
        if writer is None:
            return
        parts = zip(self._script.instalments, self._script.amounts, strict=True)
        for number, (part, amount) in enumerate(parts, 1):
            if (part.after_s < 0) is before:
                if not before:
                    await self._patience.rest(began + part.after_s - time.monotonic())
                payment = sample.payment(self._id, amount, number, self._script.currency)
                await self._patience.request("payment", partial(writer.write, PAYMENTS, [payment]))

    async def _check_in(self, order_no: str | None = None) -> Checkin:
        desk = self._clients.check_ins
        assert desk is not None
        new = sample.check_in(order_no or self._id, datetime.now(desk.zone))
        taken = await self._patience.request("POST check-in", lambda: desk.api.post(new))
        self._tally.check_ins += 1
        if (taken.order_no, taken.staff_code) != (new.order_no, new.staff_code):
            raise Mismatch(f"POST check-in answered {taken!r}, posted was {new!r}")
        return taken

    async def _read_back(self, wanted: Order, api: OrdersApi) -> OrderOutcome:
        _same(await self._patience.request("GET", lambda: api.get(self._id, 10_000)), wanted, "GET answered")
        outcome = await self._patience.request("GET validated", lambda: api.validated(self._id, 10_000))
        _same(outcome.order, wanted, "GET validated answered")
        _consistent(outcome)
        return outcome

    async def _settle(self, state: OrderState, order: Order, check_in: Checkin | None) -> None:
        """Waits for what is to follow: SHIPPED, or that something is missing; the check-in where it belongs."""
        desk = self._clients.check_ins
        if state is OrderState.FAILED:
            if check_in is not None and desk is not None:
                await _rejected(check_in, desk, self._patience)
                self._tally.rejected += 1
            return
        if self._clients.fulfilment is not None:
            paid = sum(self._script.amounts, Decimal()) if self._clients.writer else Decimal()
            happened = {Need.VALIDATED: True, Need.PAID: paid >= order.value, Need.CHECKED_IN: check_in is not None}
            await self._fulfilled(self._clients.fulfilment, paid, {n for n, true in happened.items() if true})
        if check_in is not None and desk is not None:
            await _shown(check_in, desk, self._patience, CheckinState.CREATED)

    async def _fulfilled(self, api: FulfilmentApi, paid: Decimal, happened: set[Need]) -> None:
        def enough(status: FulfilmentStatus) -> bool:
            missing = set(status.needed) - happened
            if not missing <= set(status.missing) or status.paid > paid:
                raise Mismatch(f"GET fulfilment: {status!r}, but all that happened is {sorted(happened)}, {paid} paid")
            return (set(status.missing), status.paid, status.fulfilled) == (missing, paid, not missing)

        status = await self._patience.until("GET fulfilment", lambda: api.status(self._id, 0), enough)
        if status.fulfilled:
            await self._patience.until(
                "GET", lambda: self._there.get(self._id, 0), lambda order: order.state is OrderState.SHIPPED
            )
            self._tally.states[OrderState.SHIPPED] += 1


async def _rejected(check_in: Checkin, desk: CheckInDesk, patience: RetryDeadline, longer_s: float = 0) -> None:
    """Compensation has come to an end: the check-in is rejected where it was taken, and where it is shown."""

    def enough(found: Checkin) -> bool:
        return found.status is CheckinState.REJECTED and bool(found.reason)

    await patience.until("GET check-in", lambda: desk.api.get(check_in.event_id), enough, longer_s)
    await _shown(check_in, desk, patience, CheckinState.REJECTED)


async def _shown(check_in: Checkin, desk: CheckInDesk, patience: RetryDeadline, status: CheckinState) -> None:
    def enough(found: PortalCheckins) -> bool:
        return (check_in.event_id, status) in {(c.event_id, c.status) for c in found.check_ins}

    await patience.until("GET portal", lambda: desk.portal.check_ins(check_in.order_no, 0), enough)


def _same(found: Order, wanted: Order, what: str) -> None:
    if not found.same_content(wanted):
        raise Mismatch(f"{what} {found!r}, posted was {wanted!r}")


def _consistent(outcome: OrderOutcome) -> None:
    passed = [v.check_type for v in outcome.verdicts if v.validation_result is ValidationResult.PASS]
    if outcome.state is not OrderState.FAILED and len(passed) < len(outcome.verdicts):
        raise Mismatch(f"VALIDATED against a verdict: {outcome.verdicts!r}")
    if outcome.state is not OrderState.FAILED and sample.certain_to_fail(outcome.order):
        raise Mismatch(f"VALIDATED, which cannot be: {outcome.order!r}")
    if sample.unknown(outcome.order) and not all(map(_names_the_product(outcome.order), outcome.verdicts)):
        raise Mismatch(f"there is no such product, which is not what was said of it: {outcome.verdicts!r}")
    if outcome.state is OrderState.FAILED and not outcome.reasons:
        raise Mismatch("FAILED without a reason")
    if not outcome.state.decided:
        raise Mismatch(f"not decided, though GET validated answered 200: {outcome.state}")


def _names_the_product(order: Order) -> Callable[[Verdict], bool]:
    """Of a product that nobody knows: whether a verdict is what it has to be, as far as it is about products."""

    def fits(verdict: Verdict) -> bool:
        if verdict.check_type is CheckType.FRAUD_CHECK:
            return True
        if verdict.validation_result is ValidationResult.PASS:
            return verdict.check_type is not CheckType.INVENTORY_CHECK  # details may be told to let it pass
        return repr(order.product) in (verdict.reason or "")

    return fits
