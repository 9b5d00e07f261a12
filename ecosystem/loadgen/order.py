"""Runs the script of one order, and checks the answer to each step."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial

from ecosystem.clients.api import FulfilmentApi, OrdersApi
from ecosystem.loadgen import sample
from ecosystem.loadgen.clients import CheckInClients, Clients
from ecosystem.loadgen.retries import Mismatch, RetryPolicy, rejected_with
from ecosystem.loadgen.script import CancelAt, CheckInAt, Script
from ecosystem.loadgen.tally import Tally
from schemas.api import Checkin, CheckinState, FulfilmentStatus, OrderOutcome, PortalCheckins, Verdict
from schemas.identifiers import new_order_id
from schemas.messages import BuiltInCheck, Need, Order, OrderState, ValidationResult
from schemas.topics import PAYMENTS


class OrderScenario:
    """One order with payments and check-in. Methods raise `Mismatch` and `Stopped`, in exception groups from tasks."""

    def __init__(self, number: int, script: Script, clients: Clients, retries: RetryPolicy, tally: Tally) -> None:
        assert script.order.id is not None
        self._id = script.order.id
        self._script = script
        self._clients = clients
        self._retries = retries
        self._tally = tally
        apis = clients.orders
        self._writer_api, self._reader_api = apis[number % len(apis)], apis[(number + 1) % len(apis)]

    async def run(self) -> None:
        """Runs the whole script. Returns when no further result is expected."""
        began = time.monotonic()
        await self._pay(before=True)
        new = self._script.order
        posted = await self._retries.request("POST", lambda: self._writer_api.post(new))
        wanted = Order(**new.model_dump(), created_at=posted.created_at)
        _require_same(posted, wanted, "POST answered")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pay(before=False))
            when = self._script.check_in if self._clients.check_ins else None
            early = tasks.create_task(self._check_in()) if when is CheckInAt.POSTED else None
            cancelled = self._script.cancel is CancelAt.POSTED and await self._cancel()
            outcome = await self._read_back(wanted, self._reader_api)
            decided_s = time.monotonic() - began
            if self._script.cancel is CancelAt.DECIDED:
                cancelled = await self._cancel()
                if cancelled and not outcome.state.cancellable:
                    raise Mismatch(f"cancelled, but it was {outcome.state} before: {outcome!r}")
            state = OrderState.CANCELLED if cancelled else _first_outcome(outcome)
            self._tally.add_decided(state, decided_s)
            check_in = await early if early else None
            if not cancelled and check_in is None and when is not None and when.applies_to(state):
                check_in = await self._check_in()
        if cancelled:
            await self._wait_for_cancellation(when)
        else:
            await self._wait_for_results(state, wanted, check_in)

    async def check_in_for_ghost(self) -> None:
        """Checks in for an order that does not exist, and waits for the rejection."""
        clients = self._clients.check_ins
        if clients is not None:
            check_in = await self._check_in(new_order_id())
            await _wait_until_rejected(check_in, clients, self._retries, clients.order_timeout_s)
            self._tally.rejected += 1

    async def _pay(self, *, before: bool) -> None:
        writer, began = self._clients.writer, time.monotonic()
        if writer is None:
            return
        parts = zip(self._script.instalments, self._script.amounts, strict=True)
        for number, (part, amount) in enumerate(parts, 1):
            if (part.after_s < 0) is before:
                if not before:
                    await self._retries.pause(began + part.after_s - time.monotonic())
                payment = sample.payment(self._id, amount, number, self._script.currency)
                await self._retries.request("payment", partial(writer.write, PAYMENTS, [payment]))

    async def _cancel(self) -> bool:
        """Cancels the order. Returns whether it is cancelled; it is not if it has failed or been shipped before."""
        try:
            order = await self._retries.request("DELETE", lambda: self._reader_api.cancel(self._id, 10_000))
        except Mismatch as mismatch:
            if not rejected_with(mismatch, 409):
                raise
            order = await self._retries.request("GET", lambda: self._reader_api.get(self._id, 0))
            if order.state.cancellable or order.state is OrderState.CANCELLED:
                raise Mismatch(f"DELETE answered 409, and GET {order.state}") from mismatch
            return False
        if order.state is not OrderState.CANCELLED:
            raise Mismatch(f"DELETE answered 200 with {order!r}")
        return True

    async def _check_in(self, order_no: str | None = None) -> Checkin:
        clients = self._clients.check_ins
        assert clients is not None
        new = sample.check_in(order_no or self._id, datetime.now(clients.zone))
        check_in = await self._retries.request("POST check-in", lambda: clients.api.post(new))
        self._tally.check_ins += 1
        if (check_in.order_no, check_in.staff_code) != (new.order_no, new.staff_code):
            raise Mismatch(f"POST check-in answered {check_in!r}, posted was {new!r}")
        return check_in

    async def _read_back(self, wanted: Order, api: OrdersApi) -> OrderOutcome:
        _require_same(await self._retries.request("GET", lambda: api.get(self._id, 10_000)), wanted, "GET answered")
        outcome = await self._retries.request("GET validated", lambda: api.validated(self._id, 10_000))
        _require_same(outcome.order, wanted, "GET validated answered")
        _require_consistent(outcome)
        return outcome

    async def _wait_for_results(self, state: OrderState, order: Order, check_in: Checkin | None) -> None:
        """Waits for SHIPPED or what is missing, and for the check-in in the portal, or its rejection."""
        clients = self._clients.check_ins
        if state is OrderState.FAILED:
            if check_in is not None and clients is not None:
                await _wait_until_rejected(check_in, clients, self._retries)
                self._tally.rejected += 1
            return
        if self._clients.fulfilment is not None:
            paid = sum(self._script.amounts, Decimal()) if self._clients.writer else Decimal()
            happened = {Need.VALIDATED: True, Need.PAID: paid >= order.value, Need.CHECKED_IN: check_in is not None}
            await self._wait_for_fulfilment(self._clients.fulfilment, paid, {n for n, true in happened.items() if true})
        if check_in is not None and clients is not None:
            await _wait_until_shown(check_in, clients, self._retries, CheckinState.CREATED)

    async def _wait_for_cancellation(self, when: CheckInAt | None) -> None:
        """Waits until everybody knows that the order is cancelled; a check-in after that must be rejected."""

        def complete(status: FulfilmentStatus) -> bool:
            if status.state is OrderState.SHIPPED:
                raise Mismatch(f"GET fulfilment: SHIPPED, but the order was cancelled: {status!r}")
            return (status.state, status.paid, status.fulfilled) == (OrderState.CANCELLED, paid, False)

        fulfilment, check_ins = self._clients.fulfilment, self._clients.check_ins
        paid = sum(self._script.amounts, Decimal()) if self._clients.writer else Decimal()
        if fulfilment is not None:
            await self._retries.poll("GET fulfilment", lambda: fulfilment.status(self._id, 0), complete)
            if check_ins is not None and when in {CheckInAt.DECIDED, CheckInAt.VALIDATED}:
                await _wait_until_rejected(await self._check_in(), check_ins, self._retries)
                self._tally.rejected += 1
        await self._retries.poll(
            "GET", lambda: self._reader_api.get(self._id, 0), lambda order: order.state is OrderState.CANCELLED
        )

    async def _wait_for_fulfilment(self, api: FulfilmentApi, paid: Decimal, happened: set[Need]) -> None:
        def complete(status: FulfilmentStatus) -> bool:
            missing = set(status.needed) - happened
            if not missing <= set(status.missing) or status.paid > paid:
                raise Mismatch(f"GET fulfilment: {status!r}, expected were {sorted(happened)} and {paid} paid")
            return (set(status.missing), status.paid, status.fulfilled) == (missing, paid, not missing)

        status = await self._retries.poll("GET fulfilment", lambda: api.status(self._id, 0), complete)
        if status.fulfilled:
            await self._retries.poll(
                "GET", lambda: self._reader_api.get(self._id, 0), lambda order: order.state is OrderState.SHIPPED
            )
            self._tally.states[OrderState.SHIPPED] += 1


async def _wait_until_rejected(
    check_in: Checkin, clients: CheckInClients, retries: RetryPolicy, extra_s: float = 0
) -> None:
    """Waits until both the check-in service and the portal show the check-in as rejected."""

    def complete(found: Checkin) -> bool:
        return found.status is CheckinState.REJECTED and bool(found.reason)

    await retries.poll("GET check-in", lambda: clients.api.get(check_in.event_id), complete, extra_s)
    await _wait_until_shown(check_in, clients, retries, CheckinState.REJECTED)


async def _wait_until_shown(
    check_in: Checkin, clients: CheckInClients, retries: RetryPolicy, status: CheckinState
) -> None:
    def complete(found: PortalCheckins) -> bool:
        return (check_in.event_id, status) in {(c.event_id, c.status) for c in found.check_ins}

    await retries.poll("GET portal", lambda: clients.portal.check_ins(check_in.order_no, 0), complete)


def _require_same(found: Order, wanted: Order, what: str) -> None:
    if not found.same_content(wanted):
        raise Mismatch(f"{what} {found!r}, posted was {wanted!r}")


def _first_outcome(outcome: OrderOutcome) -> OrderState:
    """FAILED or VALIDATED. Raises `Mismatch` for an order that is cancelled, though nobody did so."""
    if outcome.state is OrderState.CANCELLED:
        raise Mismatch(f"CANCELLED, but nobody cancelled it: {outcome!r}")
    return OrderState.FAILED if outcome.state is OrderState.FAILED else OrderState.VALIDATED


def _require_consistent(outcome: OrderOutcome) -> None:
    passed = [v.check_type for v in outcome.verdicts if v.validation_result is ValidationResult.PASS]
    unhindered = outcome.state in {OrderState.VALIDATED, OrderState.SHIPPED}
    if unhindered and len(passed) < len(outcome.verdicts):
        raise Mismatch(f"VALIDATED against a verdict: {outcome.verdicts!r}")
    if unhindered and sample.must_fail(outcome.order):
        raise Mismatch(f"VALIDATED, but it must fail: {outcome.order!r}")
    if sample.is_unknown(outcome.order) and not all(map(_names_the_product(outcome.order), outcome.verdicts)):
        raise Mismatch(f"the product does not exist, and not every verdict says so: {outcome.verdicts!r}")
    if outcome.state in {OrderState.FAILED, OrderState.CANCELLED} and not outcome.reasons:
        raise Mismatch(f"{outcome.state} without a reason")
    if not outcome.state.decided:
        raise Mismatch(f"not decided, though GET validated answered 200: {outcome.state}")


def _names_the_product(order: Order) -> Callable[[Verdict], bool]:
    """Returns a check that a verdict on an order of an unknown product says that the product is unknown."""

    def fits(verdict: Verdict) -> bool:
        if verdict.check_type not in {BuiltInCheck.INVENTORY_CHECK, BuiltInCheck.ORDER_DETAILS_CHECK}:
            return True
        if verdict.validation_result is ValidationResult.PASS:
            return verdict.check_type != BuiltInCheck.INVENTORY_CHECK  # details passes it with UNKNOWN_PRODUCTS=pass
        return repr(order.product) in (verdict.reason or "")

    return fits
