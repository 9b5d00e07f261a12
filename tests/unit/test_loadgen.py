"""What the driver plans from a seed, what it takes for a mismatch, and what its tally says."""

import asyncio
import itertools
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

import pytest

from ecosystem.clients.api import RequestRejected, Unreachable
from ecosystem.loadgen import products, sample
from ecosystem.loadgen.clients import CheckInClients, Clients
from ecosystem.loadgen.driver import Driver
from ecosystem.loadgen.retries import Mismatch, RetryPolicy
from ecosystem.loadgen.script import CancelAt, CheckInAt, script
from ecosystem.loadgen.tally import Tally
from schemas.api import (
    Checkin,
    CheckinState,
    FulfilmentStatus,
    OrderOutcome,
    PortalCheckin,
    PortalCheckins,
    Problem,
    Product,
    ProductContent,
    ProductState,
    Verdict,
)
from schemas.messages import BuiltInCheck, Need, Order, OrderState, ValidationResult

# The plan


def test_the_same_seed_plans_the_same():
    def plan(seed):
        random = Random(seed)
        scripts = [script(number, random) for number in range(50)]
        orders = [s.order.model_copy(update={"id": None}) for s in scripts]
        return [(o, s.instalments, s.check_in, s.ghost) for o, s in zip(orders, scripts, strict=True)]

    assert plan(1) == plan(1) != plan(2)


def test_all_there_is_to_see_comes_first_and_then_often_enough():
    random = Random(3)
    scripts = [script(number, random) for number in range(2000)]
    assert (scripts[0].check_in, scripts[0].instalments[0].after_s) == (CheckInAt.VALIDATED, 0)
    assert not sample.must_fail(Order(**scripts[0].order.model_dump()))
    assert (scripts[1].check_in, scripts[2].ghost) == (CheckInAt.DECIDED, True)
    assert sample.must_fail(Order(**scripts[1].order.model_dump()))

    ways = Counter(
        tuple("before" if p.after_s < 0 else "late" if p.after_s else "at once" for p in s.instalments) for s in scripts
    )
    assert set(ways) == {(), ("at once",), ("late",), ("before",), ("at once", "late"), ("before", "late")}
    assert min(ways.values()) > 50
    assert ways["at once",] > 1000
    check_ins = Counter(s.check_in for s in scripts)
    assert set(check_ins) == {None, *CheckInAt}
    assert check_ins[None] < 500
    assert 10 < sum(s.ghost for s in scripts) < 100


def test_instalments_are_whole_cents_and_come_to_the_value():
    random = Random(4)
    for number in range(500):
        planned = script(number, random)
        assert len(planned.amounts) == len(planned.instalments)
        if planned.instalments:
            assert sum(planned.amounts) == planned.order.quantity * planned.order.price
        assert all(amount == amount.quantize(Decimal("0.01")) for amount in planned.amounts)


# What is read back


class Shop:
    """Services in memory, which keep the rules but for one lie."""

    def __init__(self, lie=None):
        self.lie = lie
        self.outcomes = {}
        self.paid = {}
        self.check_ins = {}
        self.away = 0

    def order(self, id_):
        if id_ not in self.outcomes:
            raise RequestRejected(Problem(title="Not Found", status=404))
        return self.outcomes[id_]

    def state(self, id_):
        outcome = self.outcomes.get(id_)
        return OrderState.FAILED if outcome is None else outcome.state

    def status(self, id_):
        order = self.order(id_).order
        amounts = self.paid.get(id_, {})
        paid = sum(amounts.values(), Decimal())
        if self.lie == "loses a payment" and len(amounts) > 1:
            paid = next(iter(amounts.values()))
        if self.lie == "counts a payment twice":
            paid *= 2
        happened = {
            Need.VALIDATED: self.state(id_) is OrderState.VALIDATED,
            Need.PAID: paid >= order.value or self.lie == "ships what is not paid",
            Need.CHECKED_IN: any(c.order_no == id_ for c in self.check_ins.values()),
        }
        missing = tuple(need for need in Need if not happened[need])
        return FulfilmentStatus(
            order_id=id_,
            fulfilled=not missing and self.lie != "never ships",
            needed=tuple(Need),
            missing=missing,
            state=self.state(id_),
            value=order.value,
            paid=paid,
        )

    def rejected(self, check_in):
        ended = {OrderState.FAILED, OrderState.CANCELLED}
        if self.lie == "accepts check-ins of what was cancelled":
            ended.discard(OrderState.CANCELLED)
        return self.state(check_in.order_no) in ended and self.lie != "rejects nothing"


class Orders:
    def __init__(self, shop):
        self.shop = shop

    async def post(self, new):
        order = Order(**new.model_dump())
        state = OrderState.FAILED if sample.must_fail(order) else OrderState.VALIDATED
        if self.shop.lie == "validates anything":
            state = OrderState.VALIDATED
        result, reason = ValidationResult.PASS, None
        if state is OrderState.FAILED:
            result, reason = ValidationResult.FAIL, f"no stock of {order.product!r}"
        if self.shop.lie == "finds fault with something else":
            reason = "quantity must be above 0"
        self.shop.outcomes[order.id] = OrderOutcome(
            id=order.id,
            state=state,
            order=order,
            verdicts=[Verdict(check_type=BuiltInCheck.INVENTORY_CHECK, validation_result=result, reason=reason)],
            reasons=[reason] if reason and self.shop.lie != "gives no reason" else [],
        )
        return order

    async def get(self, id_, timeout_ms):
        if self.shop.away:
            self.shop.away -= 1
            raise Unreachable("away")
        order = self.shop.order(id_).order
        if self.shop.lie == "answers another order":
            return order.model_copy(update={"customer_id": -1})
        fulfilled = self.shop.status(id_).fulfilled
        return order.model_copy(update={"state": OrderState.SHIPPED if fulfilled else self.shop.state(id_)})

    async def cancel(self, id_, timeout_ms):
        outcome = self.shop.order(id_)
        shipped = self.shop.status(id_).fulfilled
        if (shipped or outcome.state is OrderState.FAILED) and self.shop.lie != "cancels what is over":
            raise RequestRejected(Problem(title="Conflict", status=409))
        if self.shop.lie == "refuses to cancel":
            raise RequestRejected(Problem(title="Conflict", status=409))
        if self.shop.lie != "forgets what was cancelled":
            cancelled = {"state": OrderState.CANCELLED, "reasons": ("cancelled by the client",)}
            self.shop.outcomes[id_] = outcome.model_copy(update=cancelled)
        return outcome.order.model_copy(update={"state": OrderState.CANCELLED})

    async def validated(self, id_, timeout_ms):
        return self.shop.order(id_)


class Fulfilment:
    def __init__(self, shop):
        self.shop = shop

    async def status(self, id_, timeout_ms):
        return self.shop.status(id_)


class Desk:
    def __init__(self, shop):
        self.shop = shop

    async def post(self, new):
        taken = Checkin(
            event_id=f"e{len(self.shop.check_ins)}",
            status=CheckinState.CREATED,
            **{**new.model_dump(), "checkin_date": new.checkin_date.replace(tzinfo=ZoneInfo("UTC"))},
        )
        self.shop.check_ins[taken.event_id] = taken
        return taken

    async def get(self, event_id):
        taken = self.shop.check_ins[event_id]
        if self.shop.rejected(taken):
            return taken.model_copy(update={"status": CheckinState.REJECTED, "reason": "the order has failed"})
        return taken


class Portal:
    def __init__(self, shop):
        self.shop = shop

    async def check_ins(self, order_no, timeout_ms):
        def status(c):
            shown = self.shop.rejected(c) and self.shop.lie != "shows what was rejected"
            return CheckinState.REJECTED if shown else CheckinState.CREATED

        found = [
            PortalCheckin(event_id=c.event_id, status=status(c))
            for c in self.shop.check_ins.values()
            if c.order_no == order_no
        ]
        return PortalCheckins(order_no=order_no, check_ins=found)


class Payments:
    def __init__(self, shop):
        self.shop = shop

    async def write(self, topic, payments):
        for payment in payments:
            self.shop.paid.setdefault(payment.order_id, {})[payment.id] = payment.amount


@pytest.fixture
def drive(monkeypatch):
    async def run(shop, count=40, seed=5, stop=None, timeout_s=30.0, cancelled=0.0, **without):
        clients = {
            "orders": [Orders(shop)],
            "writer": Payments(shop),
            "check_ins": CheckInClients(Desk(shop), Portal(shop), ZoneInfo("UTC"), 0.0),
            "fulfilment": Fulfilment(shop),
        }
        complaints = []
        driver = Driver(
            Clients(**clients | without),
            Random(seed),
            complaints.append,
            ghosts=True,
            cancelled=cancelled,
            timeout_s=timeout_s,
        )
        await driver.run(10_000, count, stop or asyncio.Event())
        assert complaints == driver.tally.mismatches
        return driver.tally

    monkeypatch.setattr(Random, "uniform", lambda self, a, b: a / 100)  # late payments come soon
    return run


async def test_a_shop_that_keeps_the_rules_is_believed(drive):
    shop = Shop()
    tally = await drive(shop)
    assert (tally.mismatches, tally.unfinished, tally.posted) == ([], 0, 40)
    assert tally.states["VALIDATED"] + tally.states["FAILED"] == 40
    assert tally.states["SHIPPED"] == sum(shop.status(id_).fulfilled for id_ in shop.outcomes) > 15
    assert tally.rejected == sum(map(shop.rejected, shop.check_ins.values())) > 1
    assert tally.check_ins == len(shop.check_ins)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("answers another order", "GET answered"),
        ("validates anything", "VALIDATED, but it must fail"),
        ("gives no reason", "FAILED without a reason"),
        ("finds fault with something else", "the product does not exist"),
        ("ships what is not paid", "expected were"),
        ("loses a payment", "GET fulfilment: not within"),
        ("counts a payment twice", "expected were"),
        ("never ships", "GET fulfilment: not within"),
        ("rejects nothing", "GET check-in: not within"),
        ("shows what was rejected", "GET portal: not within"),
    ],
)
async def test_a_shop_that_lies_is_found_out(drive, lie, said):
    tally = await drive(Shop(lie), timeout_s=0.6)
    assert tally.mismatches != []
    assert {said} == {said for mismatch in tally.mismatches if said in mismatch}
    assert all(said in mismatch for mismatch in tally.mismatches)


async def test_a_share_of_the_orders_is_cancelled(drive):
    shop = Shop()
    tally = await drive(shop, count=60, cancelled=0.5)
    assert (tally.mismatches, tally.unfinished) == ([], 0)
    cancelled = [o for o in shop.outcomes.values() if o.state is OrderState.CANCELLED]
    assert tally.states["CANCELLED"] == len(cancelled) > 10
    assert tally.states["SHIPPED"] > 5
    assert f"{len(cancelled)} CANCELLED" in str(tally)


def test_without_cancelling_the_scripts_of_a_seed_stay_as_they_were():
    def plan(**share):
        random = Random(1)
        return [(s.instalments, s.check_in, s.ghost, s.cancel) for s in (script(n, random, **share) for n in range(99))]

    assert plan() == plan(cancelled=0.0)
    assert {cancel for *_, cancel in plan()} == {None}
    assert {cancel for *_, cancel in plan(cancelled=0.5)} == {None, *CancelAt}


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("forgets what was cancelled", "GET fulfilment: "),
        ("refuses to cancel", "DELETE answered 409, and GET VALIDATED"),
        ("cancels what is over", "cancelled, but it was FAILED before"),
        ("accepts check-ins of what was cancelled", "GET check-in: not within"),
    ],
)
async def test_a_shop_that_lies_about_cancelling_is_found_out(drive, lie, said):
    tally = await drive(Shop(lie), timeout_s=0.6, cancelled=0.5)
    assert [m for m in tally.mismatches if said in m]


async def test_what_is_left_out_is_neither_done_nor_missed(drive):
    shop = Shop()
    tally = await drive(shop, writer=None)
    assert (tally.mismatches, shop.paid, tally.states["SHIPPED"]) == ([], {}, 0)
    shop = Shop()
    tally = await drive(shop, check_ins=None)
    assert (tally.mismatches, shop.check_ins, tally.states["SHIPPED"]) == ([], {}, 0)
    tally = await drive(Shop(), writer=None, check_ins=None, fulfilment=None)
    assert (tally.mismatches, tally.states["SHIPPED"]) == ([], 0)


async def test_who_is_away_for_a_moment_is_asked_again(drive):
    shop = Shop()
    shop.away = 1
    tally = await drive(shop, count=1)
    assert (tally.mismatches, tally.repeated, tally.states["SHIPPED"]) == ([], 1, 1)


async def test_at_the_end_nobody_waits_for_what_may_never_come(drive):
    stop = asyncio.Event()
    shop = Shop("never ships")
    driving = asyncio.create_task(drive(shop, count=None, stop=stop, seed=6, timeout_s=600.0))
    while len(shop.check_ins) < 3:
        await asyncio.sleep(0.01)
    stop.set()
    async with asyncio.timeout(60):
        tally = await driving
    assert tally.unfinished > 0
    assert f"{tally.unfinished} left unfinished" in str(tally)


# Products that change


class Shelves:
    """A product service in memory.

    `quicker`: somebody changes each product in the moment before the driver does; `hasty`: offers again at once what is
    withdrawn.
    """

    def __init__(self, lie=None, quicker=False, hasty=False):
        self.products = {}
        self.history = []
        self.lie = lie
        self.quicker = quicker
        self.hasty = hasty

    async def create(self, new):
        return self._keep(new.model_dump(), version=1, state=ProductState.ACTIVE)

    async def get(self, code):
        if code not in self.products:
            raise RequestRejected(Problem(title="Not Found", status=404))
        found = self.products[code]
        if self.hasty and found.state is ProductState.WITHDRAWN:
            self._keep(found.model_dump(), version=found.version + 1, state=ProductState.ACTIVE)
        return found

    async def change(self, code, content, version):
        self._see(code, version)
        return self._keep({"code": code, **content.model_dump()}, version=version + 1, state=ProductState.ACTIVE)

    async def withdraw(self, code, version):
        self._see(code, version)
        return self._keep(self.products[code].model_dump(), version=version + 1, state=ProductState.WITHDRAWN)

    def _see(self, code, version):
        if self.quicker:
            self._keep(self.products[code].model_dump(), version=version + 1)
        if self.products[code].version != version:
            raise RequestRejected(Problem(title="Precondition Failed", status=412))

    def _keep(self, content, **more):
        kept = Product(**{**content, **more, "changed_at": datetime.now(UTC)})
        self.history.append(kept)
        if self.lie is None or kept.version == 1:
            self.products[kept.code] = kept
        return kept.model_copy(update={"price": Decimal(1)}) if self.lie == "answers another price" else kept


class Till:
    """Takes orders of what is on the shelves; hears of a withdrawal so many orders `later`."""

    def __init__(self, shelves, later=0, first="ORDER_DETAILS_CHECK: product"):
        self.shelves = shelves
        self.later = later
        self.first = first
        self.outcomes = {}

    async def post(self, new):
        order = Order(**new.model_dump())
        said = f"INVENTORY_CHECK: no stock of {order.product!r} was announced"
        if self.shelves.products[order.product].state is ProductState.WITHDRAWN:
            if not self.later:
                said = f"{self.first} {order.product!r} was withdrawn"
            self.later = max(0, self.later - 1)
        self.outcomes[order.id] = OrderOutcome(id=order.id, state=OrderState.FAILED, order=order, reasons=[said])
        return order

    async def validated(self, id_, timeout_ms):
        return self.outcomes[id_]


async def changed(shelves, *numbers, monkeypatch, timeout_s=30.0, **orders):
    monkeypatch.setattr(products, "PAUSE_S", 0)
    tally = Tally()
    retries = RetryPolicy(tally, asyncio.Event(), timeout_s)
    changes = products.ProductChanges(shelves, [Till(shelves, **orders)], Random(1), retries, tally)
    for number in numbers:
        await changes.change(number)
    return tally


async def test_prices_stay_near_what_they_were_and_what_is_withdrawn_comes_back(monkeypatch):
    shelves = Shelves()
    tally = await changed(shelves, *range(100), monkeypatch=monkeypatch)
    usual = {p.code: p.price for p in [*sample.products(), sample.seasonal()]}
    assert all(Decimal("0.9") <= p.price / usual[p.code] <= Decimal("1.1") for p in shelves.history)
    assert tally.price_changes > 60
    season = [p.state for p in shelves.history if p.code == sample.seasonal().code]
    assert season == [ProductState.ACTIVE, *[ProductState.WITHDRAWN, ProductState.ACTIVE] * 20]
    assert tally.restored == tally.failed_as_withdrawn == 20
    assert {p.state for p in shelves.products.values()} == {ProductState.ACTIVE}
    assert "; 20 products withdrawn and offered again; 20 orders of withdrawn products failed; 0 mism" in str(tally)


async def test_a_changed_price_is_the_usual_one_again_with_the_next_change(monkeypatch):
    shelves = Shelves()
    mug = await shelves.create(sample.products()[-2])
    await shelves.change(mug.code, ProductContent(name=mug.name, price=mug.price + 1), 1)  # left by an earlier run
    await changed(shelves, *[2] * 200, monkeypatch=monkeypatch)
    usual = {p.code: p.price for p in sample.products()}
    unusual = [p.code for p in shelves.products.values() if p.price != usual[p.code]]
    assert len(unusual) <= 1
    repriced = [p for p in shelves.history[2:] if p.version > 1]
    for before, after in itertools.pairwise(repriced):
        assert before.price == usual[before.code] or (after.code, after.price) == (before.code, usual[before.code])


@pytest.mark.parametrize("first", ["ORDER_DETAILS_CHECK: product", "INVENTORY_CHECK:"])
async def test_a_withdrawal_may_take_a_moment_to_get_around(monkeypatch, first):
    tally = await changed(Shelves(), 1, monkeypatch=monkeypatch, later=2, first=first)
    assert (tally.failed_as_withdrawn, tally.restored) == (1, 1)


async def test_what_is_withdrawn_and_sold_nevertheless_is_found_out(monkeypatch):
    with pytest.raises(Mismatch, match=r"order of a withdrawn product: not within 0.3 s, is .*no stock of"):
        await changed(Shelves(), 1, monkeypatch=monkeypatch, later=10**6, timeout_s=0.3)


async def test_who_offers_again_what_is_being_ordered_is_no_mismatch(monkeypatch):
    tally = await changed(Shelves(hasty=True), 1, monkeypatch=monkeypatch, later=10**6)
    assert (tally.failed_as_withdrawn, tally.restored) == (0, 0)


async def test_what_an_earlier_run_left_withdrawn_is_offered_again(monkeypatch):
    shelves = Shelves()
    await shelves.create(sample.seasonal())
    await shelves.withdraw(sample.seasonal().code, 1)
    tally = await changed(shelves, 1, monkeypatch=monkeypatch)
    assert [p.state for p in shelves.history[2:]] == [ProductState.ACTIVE]
    assert tally.restored == 1


async def test_who_was_quicker_has_it(monkeypatch):
    tally = await changed(Shelves(quicker=True), *range(20), monkeypatch=monkeypatch)
    assert (tally.price_changes, tally.restored) == (0, 0)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("lie", "said"), [("answers another price", "product answered"), ("forgets", "GET product answered")]
)
async def test_a_product_service_that_lies_is_found_out(monkeypatch, lie, said, number):
    with pytest.raises(Mismatch, match=said):
        await changed(Shelves(lie), number, monkeypatch=monkeypatch)


def test_a_tally_says_what_there_is():
    assert str(Tally()) == "0 posted: none decided yet; 0 mismatches"
    states = Counter(VALIDATED=8, FAILED=2, SHIPPED=6)
    tally = Tally(posted=11, states=states, check_ins=7, rejected=1, repeated=3, latencies_s=[0.01, 0.02])
    assert str(tally) == (
        "11 posted: 2 FAILED, 8 VALIDATED (6 SHIPPED); 7 check-ins, 1 rejected; 0 mismatches; p50 20, p99 20 ms; "
        "3 requests repeated"
    )
