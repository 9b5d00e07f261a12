"""The audit of orders that were decided anew, and of replays."""

from dataclasses import replace

import pytest

from ecosystem.audit.facts import Fact, pack, split_key, unpack
from ecosystem.audit.report import ViolationKind
from ecosystem.audit.sources import Source
from email_service.emails import message_id
from email_service.state import EmailKind
from orders_service.state import OrderView
from schemas.messages import Customer, OrderState
from tests.samples import DETAILS, FRAUD, INVENTORY, order, verdict
from tests.unit.test_audit import NOW_MS, PASSES, RULES, Log
from validators.inventory.state import Reservation

FRANZ = Customer(id=1, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Praha", level="gold")


class Attempts(Log):
    """A log with facts of several attempts."""

    def attempt(self, number, failing=None, *, held=True):
        """An attempt of which one check fails, if any, until its decision."""
        n = None if number == 1 else number
        self.add(Source.ORDERS, order(attempt=n))
        verdicts = [verdict(c, "FAIL" if c == failing else "PASS") for c in (FRAUD, INVENTORY, DETAILS)]
        for one in verdicts:
            self.add(Source.VERDICTS, one.model_copy(update={"attempt": n}))
        state = OrderState.FAILED if failing else OrderState.VALIDATED
        decided = order(state=state, attempt=n)
        self.add(Source.ORDERS, decided)
        shown = tuple(
            known.model_copy(update={"validation_result": one.validation_result})
            for known, one in zip(PASSES, verdicts, strict=True)
        )
        self.add(Source.VIEW, OrderView(order=decided, verdicts=shown))
        self.reserved(n, held=held)
        if failing:
            self.reserved(n, held=False)
        return self

    def reserved(self, attempt, *, held):
        self.add(Source.RESERVATIONS, Reservation(product="JUMPERS", held=int(held)))
        if attempt is not None:
            self.facts[-1] = self.facts[-1]._replace(about=f"\x1f{attempt}")

    def replayed(self):
        """Marks the last fact."""
        self.facts[-1] = self.facts[-1]._replace(replayed=True)
        return self


def test_an_order_that_failed_and_passes_anew():
    found, counts, held = Attempts().attempt(1, failing=FRAUD).attempt(2).judge()
    assert found == []
    assert counts["decided anew"] == 1
    assert held == [("JUMPERS", 1), ("JUMPERS", -1), ("JUMPERS", 1)]


def test_an_order_that_fails_three_times():
    log = Attempts().attempt(1, failing=FRAUD).attempt(2, failing=DETAILS).attempt(3, failing=FRAUD)
    assert log.judge()[0] == []


def test_two_states_of_one_attempt_are_a_violation():
    log = Attempts().attempt(1, failing=FRAUD).attempt(2).order("FAILED", attempt=2)
    assert ViolationKind.TWO_FINALS in log.judge()[0]


def test_a_second_attempt_of_a_validated_order_must_change_nothing():
    log = Attempts().attempt(1).order(attempt=2)
    assert log.judge()[0] == []
    log.order("FAILED", attempt=2)
    assert log.judge()[0] == []  # of an attempt that does not count


def test_a_validated_second_attempt_needs_verdicts_of_its_own():
    log = Attempts().attempt(1, failing=FRAUD)
    log.order(attempt=2).order("VALIDATED", attempt=2)
    log.add(Source.VIEW, OrderView(order=order(state=OrderState.VALIDATED, attempt=2), verdicts=()))
    log.reserved(2, held=True)
    assert log.judge()[0] == [ViolationKind.VALIDATED_WITHOUT]


def test_a_failed_attempt_must_release_its_own_pieces():
    log = Attempts().attempt(1, failing=FRAUD).attempt(2)
    log.facts = [f for f in log.facts if not (f.source is Source.RESERVATIONS and f.value and b'"held":0' in f.value)]
    assert ViolationKind.FAILED_HOLDS in log.judge(replace(RULES, now_ms=NOW_MS + 10**6))[0]


@pytest.mark.parametrize(("marked", "kinds"), [(True, []), (False, [ViolationKind.PUBLISHED_TWICE])])
def test_a_state_may_be_published_again_by_a_replay_only(marked, kinds):
    log = Attempts().attempt(1).order("VALIDATED")
    if marked:
        log.replayed()
    assert log.judge()[0] == kinds


def test_keys_of_attempts():
    assert split_key(Source.EMAILS, b"o1/failed\x1f2", None) == (b"o1", "failed\x1f2")
    assert split_key(Source.RESERVATIONS, b"o1\x1f2", None) == (b"o1", "\x1f2")
    assert split_key(Source.RESERVATIONS, b"o1", None) == (b"o1", "")


@pytest.mark.parametrize("replayed", [False, True])
def test_a_fact_survives_packing(replayed):
    fact = Fact(Source.VIEW, 3, 2**40, 1_700_000_000_000, True, b"{}", "about", replayed)
    assert unpack(*pack(fact)) == fact


def test_emails_of_attempts_have_ids_of_their_own():
    ids = {message_id("o1", EmailKind.FAILED, "example.org", attempt) for attempt in (1, 2, 3)}
    assert len(ids) == 3
