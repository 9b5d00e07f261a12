"""Changes of the required checks: what holds before and after each, at every moment."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.clients.checks.plan import (
    TooManySets,
    UnknownCheck,
    addition,
    changed,
    newest,
    removal,
    require_known,
    starting_with,
)
from ecosystem.clients.checks.store import StoredChecks
from schemas.messages import MAX_CHECK_SETS, CheckSet, RequiredChecks
from tests.samples import DETAILS, FRAUD, INVENTORY

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CREDIT = "CREDIT_CHECK"
INITIAL = (FRAUD, INVENTORY)


def record(*sets, version=1):
    return RequiredChecks(
        version=version, sets=tuple(CheckSet(since=NOW + hours * HOUR, checks=checks) for hours, checks in sets)
    )


def content(changed_record):
    return [((s.since - NOW) / HOUR, s.checks) for s in changed_record.sets]


def test_without_a_record_the_initial_set_holds_until_the_first_change_starts():
    first = starting_with(None, INITIAL, NOW)
    assert content(changed(first, addition(CREDIT), NOW, NOW)) == [(0, (*INITIAL, CREDIT))]
    later = changed(first, addition(CREDIT), NOW + HOUR, NOW)
    assert content(later) == [(0, INITIAL), (1, (*INITIAL, CREDIT))]
    assert later.version == 1


def test_a_record_whose_sets_are_all_to_come_gets_the_initial_set():
    assert content(starting_with(record((2, (FRAUD,))), INITIAL, NOW)) == [(0, INITIAL), (2, (FRAUD,))]


@pytest.mark.parametrize(
    ("sets", "edit", "hours", "expected"),
    [
        ([(-2, (FRAUD,))], addition(CREDIT), 0, [(-2, (FRAUD,)), (0, (FRAUD, CREDIT))]),
        ([(-2, (FRAUD,))], removal(FRAUD), 0, [(-2, (FRAUD,)), (0, ())]),
        # A change reaches the sets to come.
        (
            [(-2, (FRAUD,)), (3, (FRAUD, DETAILS))],
            addition(CREDIT),
            1,
            [(-2, (FRAUD,)), (1, (FRAUD, CREDIT)), (3, (FRAUD, DETAILS, CREDIT))],
        ),
        # An addition to come is withdrawn: the set of that time is as the one before.
        ([(-2, (FRAUD,)), (3, (FRAUD, CREDIT))], removal(CREDIT), 0, [(-2, (FRAUD,))]),
        ([(-2, (FRAUD,)), (3, (FRAUD, CREDIT))], addition(CREDIT), 0, [(-2, (FRAUD,)), (0, (FRAUD, CREDIT))]),
        ([(-2, (FRAUD,)), (3, (FRAUD, CREDIT))], removal(CREDIT), 3, [(-2, (FRAUD,))]),
        # Sets that were written out of order.
        ([(3, (FRAUD, CREDIT)), (-2, (FRAUD,))], removal(FRAUD), 1, [(-2, (FRAUD,)), (1, ()), (3, (CREDIT,))]),
    ],
)
def test_a_change_applies_from_its_start_on(sets, edit, hours, expected):
    after = changed(record(*sets, version=7), edit, NOW + hours * HOUR, NOW)
    assert content(after) == expected
    assert after.version == 8


@pytest.mark.parametrize("edit", [addition(FRAUD), removal(CREDIT)])
def test_a_change_without_effect_returns_the_same_record(edit):
    before = record((-2, (FRAUD,)), (3, (FRAUD, DETAILS)))
    assert changed(before, edit, NOW, NOW) is before


def test_only_a_check_of_some_set_is_known():
    sets = record((-2, (FRAUD, INVENTORY)), (-1, (FRAUD,)), (3, (FRAUD, CREDIT)))
    for check in (FRAUD, INVENTORY, CREDIT):
        require_known(sets, check)
    with pytest.raises(UnknownCheck, match="The checks are: CREDIT_CHECK, FRAUD_CHECK, INVENTORY_CHECK"):
        require_known(sets, DETAILS)


def test_the_oldest_sets_go_and_the_one_in_force_stays():
    many = record(*[(n - MAX_CHECK_SETS, (f"CHECK_{n}",)) for n in range(MAX_CHECK_SETS)])
    after = changed(many, addition(CREDIT), NOW, NOW)
    assert len(after.sets) == MAX_CHECK_SETS
    assert after.sets[0] == many.sets[1]
    assert after.at(NOW) == ("CHECK_99", CREDIT)


def test_sets_to_come_are_never_dropped_but_refused():
    full = record((-1, (FRAUD,)), *[(n, (f"CHECK_{n}",)) for n in range(1, MAX_CHECK_SETS)])
    with pytest.raises(TooManySets, match="change an existing one"):
        changed(full, addition(CREDIT), NOW + HOUR / 2, NOW)
    assert len(changed(full, addition(CREDIT), NOW + HOUR, NOW).sets) == MAX_CHECK_SETS


CHECKS = st.sampled_from([FRAUD, INVENTORY, DETAILS, CREDIT])
SETS = st.lists(st.tuples(st.integers(-5, 5), st.lists(CHECKS, unique=True).map(tuple)), unique_by=lambda s: s[0])


@given(SETS, CHECKS, st.booleans(), st.integers(0, 5))
def test_a_change_changes_one_check_from_its_start_on_and_nothing_else(sets, check, adds, start):
    before = starting_with(record(*sets), INITIAL, NOW)
    after = changed(before, addition(check) if adds else removal(check), NOW + start * HOUR, NOW)
    for half_hours in range(-12, 13):
        time = NOW + half_hours * HOUR / 2
        was, now = before.at(time), after.at(time)
        if half_hours < 2 * start:
            assert was is now is None or set(was) == set(now)
        else:
            assert set(now) == (set(was) | {check} if adds else set(was) - {check})


def test_partitions_differ_from_the_newest_record():
    old, new = record((-2, (FRAUD,)), version=1), record((-1, (FRAUD, CREDIT)), version=2)
    assert newest([old, None, new]) is new
    assert StoredChecks({0: new, 1: old, 2: None, 3: new}).differing == [1, 2]
    assert StoredChecks({0: new, 1: record((-1, ()), version=2)}).differing == [1]
    assert StoredChecks({0: None, 1: None}).differing == []
