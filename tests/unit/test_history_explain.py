"""Explanations have the numbers with which the validators judged."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings

from history_service.explain import (
    Counted,
    Held,
    Level,
    Moment,
    required_checks,
    session_numbers,
    session_words,
    stock_numbers,
    stock_suffices,
    stock_words,
)
from history_service.settings import HistorySettings
from orders_service.settings import OrdersSettings
from schemas.messages import CheckSet, OrderState, RequiredChecks, ValidationResult
from schemas.money import plain_amount
from schemas.sessions import session_value
from schemas.topics import ORDER_VALIDATIONS, ORDERS, WAREHOUSE_INVENTORY
from tests.explaining import ACTIONS, GAP_S, LIMIT, Count, End, Place, Wait, played
from tests.samples import FRAUD, INVENTORY
from validators.fraud.settings import FraudSettings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
FREED = {OrderState.FAILED, OrderState.CANCELLED}


def at(record):
    return EPOCH + timedelta(milliseconds=record.timestamp_ms)


class Day:
    """What the records of a driver say."""

    def __init__(self, driver):
        self.levels = [
            (WAREHOUSE_INVENTORY.model.from_json(r.value), at(r)) for r in driver.records("warehouse-inventory")
        ]
        self.placed, self.verdicts, self.ends = {}, {}, {}
        for r in driver.records(ORDERS.name):
            order = ORDERS.model.from_json(r.value)
            if order.state is OrderState.CREATED:
                self.placed.setdefault(order.id, (order, at(r)))
            else:
                self.ends.setdefault(order.id, {}).setdefault(order.state, at(r))
        for r in driver.records(ORDER_VALIDATIONS.name):
            verdict = ORDER_VALIDATIONS.model.from_json(r.value)
            moment = Moment(at(r), self.placed[verdict.order_id][1], 0, r.partition, r.offset)
            self.verdicts.setdefault((verdict.order_id, verdict.check_type), (verdict, moment))

    def counted(self, customer):
        for (order_id, check), (_, moment) in self.verdicts.items():
            order, _ = self.placed[order_id]
            if check == FRAUD and order.customer_id == customer:
                yield Counted(order_id, order.created_at, session_value(order), moment)

    def held(self, product, without):
        for (order_id, check), (verdict, moment) in self.verdicts.items():
            order, _ = self.placed[order_id]
            passed = check == INVENTORY and verdict.validation_result is ValidationResult.PASS
            if passed and order.product == product and order_id != without:
                ends = self.ends.get(order_id, {})
                freed = min((ends[state] for state in FREED & ends.keys()), default=None)
                yield Held(order.quantity, moment, freed, ends.get(OrderState.SHIPPED))

    def level(self, product, moment):
        known = [Level(level.count, time) for level, time in self.levels if level.product == product and time <= moment]
        return max(known, key=lambda level: level.at) if known else None


@settings(max_examples=200)
@given(ACTIONS)
def test_the_numbers_are_those_with_which_the_validators_judged(actions):
    day = Day(played(actions))
    for (order_id, check), (verdict, moment) in day.verdicts.items():
        order, _ = day.placed[order_id]
        failed = verdict.validation_result is ValidationResult.FAIL
        if check == FRAUD:
            found = session_numbers(order_id, day.counted(order.customer_id), timedelta(seconds=GAP_S), Decimal(LIMIT))
            assert (found.total >= found.limit) == failed
            if failed:
                assert f"come to {plain_amount(found.total, 'EUR')}," in verdict.reason
        elif check == INVENTORY:
            level = day.level(order.product, moment.produced_at)
            found = stock_numbers(order.quantity, level, day.held(order.product, order_id), moment)
            assert stock_suffices(found) != failed
            if told := re.search(r"(\d+) available", verdict.reason or ""):
                assert found.available == int(told[1])


def test_days_of_that_kind_have_sessions_that_end_and_stock_that_is_freed_and_shipped():
    actions = [
        Count("mug", 5),
        Place(1, "mug", 2, 30),
        Place(1, "mug", 2, 30),  # reaches the limit: fails, and frees its pieces
        Wait(40),
        Place(1, "mug", 2, 30),
        End(0, True),
        Place(2, "mug", 2, 1),
    ]
    day = Day(played(actions))
    order, (verdict, moment) = day.placed["o-3"][0], day.verdicts["o-3", INVENTORY]
    assert verdict.validation_result is ValidationResult.FAIL
    found = stock_numbers(order.quantity, day.level("mug", moment.produced_at), day.held("mug", "o-3"), moment)
    assert (found.counted, found.shipped, found.reserved, found.available) == (5, 2, 2, 1)
    assert stock_words(found, "mug") == (
        "2 of 'mug' were asked for. The warehouse had counted 5, 2 were shipped since, other orders held 2: 1 were "
        "available."
    )
    sessions = {
        order_id: session_numbers(order_id, day.counted(1), timedelta(seconds=GAP_S), Decimal(LIMIT))
        for order_id in ("o-1", "o-2")
    }
    assert (sessions["o-1"].earlier, sessions["o-1"].total, sessions["o-2"].total) == (("o-0",), 120, 60)
    assert "had 1 other order of the customer and came to 120.00 EUR, which reaches the limit of 100.00 EUR." in (
        session_words(sessions["o-1"], "EUR")
    )


def test_a_check_that_has_not_judged_has_no_numbers():
    assert session_numbers("o-1", (), timedelta(1), Decimal(1)) is None
    moment = Moment(NOON, NOON, 0, 0, 0)
    found = stock_numbers(1, None, (), moment)
    assert not stock_suffices(found)
    assert "no stock was announced" in stock_words(found, "mug")


MINUTE = timedelta(minutes=1)
FIRST = RequiredChecks(version=1, sets=(CheckSet(since=NOON, checks=("A", "B")),))
SECOND = RequiredChecks(
    version=2, sets=(CheckSet(since=NOON, checks=("A", "B")), CheckSet(since=NOON + MINUTE, checks=("B", "C")))
)
RECORDS = [(NOON, FIRST), (NOON + MINUTE, SECOND)]


@pytest.mark.parametrize(
    ("seen", "decided", "expected"),
    [
        (NOON - MINUTE, NOON - MINUTE, (("S",), False)),
        (NOON, NOON, (("A", "B"), True)),
        (NOON, NOON + 2 * MINUTE, (("B",), True)),
        (NOON + MINUTE, NOON + MINUTE, (("B", "C"), True)),
    ],
    ids=["setting", "topic", "removed while it waited", "a later set"],
)
def test_the_required_checks_are_those_in_force_without_those_removed_since(seen, decided, expected):
    assert required_checks(RECORDS, seen, decided, ("S",)) == expected


@pytest.mark.parametrize(
    ("name", "of"),
    [("fraud_limit", FraudSettings), ("fraud_session_gap_s", FraudSettings), ("currency", FraudSettings),
     ("required_checks", OrdersSettings)],
)  # fmt: skip
def test_settings_of_explanations_are_those_of_the_checks(name, of):
    mine, theirs = HistorySettings.model_fields[name], of.model_fields[name]
    assert (mine.default, mine.description, mine.metadata) == (theirs.default, theirs.description, theirs.metadata)
