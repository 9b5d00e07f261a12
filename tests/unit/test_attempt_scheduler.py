"""Attempts over days of virtual time: failing and slow side effects do not delay others."""

import heapq
import itertools
from collections import Counter

import pytest

from runtime.side_effects.lanes import RowId
from runtime.side_effects.scheduler import AttemptScheduler

DAY_S = 24 * 3600.0
OK, PUT_OFF, OUTAGE, LOCKED_OUT = "ok", "put off", "outage", "locked out"
OUTAGE_PAUSE_S = {OUTAGE: 5.0, LOCKED_OUT: 60.0}


class Outside:
    """The other side and the caller of `AttemptScheduler`, in virtual time.

    `does` gives for an attempt, by its key and time, how many seconds it takes and how it ends.
    """

    def __init__(self, does, *, places=4, destination=lambda key: key.partition("@")[2], **limits):
        self.attempts = AttemptScheduler("test", places, **limits)
        self.does = does
        self.destination = destination
        self.now = 0.0
        self.asked = {}
        self.done = {}
        self.dead = {}
        self.tries = Counter()
        self.most = 0
        self._events = []
        self._order = itertools.count()

    def ask(self, *keys, age_s=0.0):
        for key in keys:
            self.asked[key] = self.now
            self._add(key, self.now - age_s)

    def _add(self, key, asked_at):
        self.attempts.add(RowId(0, "t", key), self.destination(key), asked_at, self.now)

    def run(self, seconds):
        """Lets so much time pass."""
        end = self.now + seconds
        while True:
            for row, reason in self.attempts.start_timed_out(self.now):
                self.dead[row.key] = (self.now, reason)
                self._at(self.now + 0.01, row, None)
            while (row := self.attempts.start_next(self.now)) is not None:
                self.tries[row.key] += 1
                takes_s, ends = self.does(row.key, self.now)
                self._at(self.now + takes_s, row, ends)
            self.most = max(self.most, len(self.attempts.running))
            wake = self.attempts.next_check_at(self.now)
            times = [e[0] for e in self._events[:1]] + ([] if wake is None else [wake])
            if not times or min(times) > end:
                self.now = end
                return
            assert min(times) > self.now or self._events[0][0] <= self.now, "it would turn without end"
            self.now = max(self.now, min(times))
            while self._events and self._events[0][0] <= self.now:
                _, _, row, ends = heapq.heappop(self._events)
                self._end(row, ends)

    def _at(self, when, row, ends):
        heapq.heappush(self._events, (when, next(self._order), row, ends))

    def _end(self, row, ends):
        asked = self.attempts._running[row].enqueued_at
        again = False
        if ends == OK:
            self.attempts.succeeded(row, self.now)
            self.done[row.key] = self.now
        elif ends is not None:
            again = not self.attempts.failed(row, ends, self.now, OUTAGE_PAUSE_S.get(ends))
            if not again:
                self.dead[row.key] = (self.now, ends)
        self.attempts.free_slot(row, self.now)
        if again:
            self._add(row.key, asked)
        else:
            self.attempts.remove(row)

    def delay(self, keys):
        """The longest that any of these waited; infinite if one waits still."""
        return max(self.done.get(key, float("inf")) - self.asked[key] for key in keys)

    def tried(self, keys):
        return sum(self.tries[key] for key in keys)


def at(domain, count=1000, name="x"):
    return [f"{name}{n}@{domain}" for n in range(count)]


GOOD = [f"good{n}@good{n % 10}.example" for n in range(50)]


def bad_is(ends, takes_s=0.01):
    """Who has `bad` in the address fares like this; all others are taken in 20 ms."""
    return lambda key, now: (takes_s, ends) if "bad" in key else (0.02, OK)


@pytest.mark.parametrize("first", ["before", "after they have failed", "after an hour"])
def test_a_thousand_for_one_dead_domain_cost_few_attempts_and_delay_no_others(first):
    outside, dead = Outside(bad_is(PUT_OFF)), at("bad.example")
    outside.ask(*dead)
    outside.run({"before": 0, "after they have failed": 10, "after an hour": 3600}[first])
    before = outside.tried(dead)
    outside.ask(*GOOD)
    outside.run(60)

    assert outside.delay(GOOD) < 1
    assert outside.tried(dead) - before < 20
    assert outside.tried(dead) < 20 + outside.now / 15


def test_a_thousand_dead_domains_delay_no_others():
    outside = Outside(bad_is(PUT_OFF))
    outside.ask(*(f"x@bad{n}.example" for n in range(1000)))
    outside.run(600)
    for _ in range(60):
        good = [f"{outside.now}{key}" for key in GOOD]
        outside.ask(*good)
        outside.run(10)

        assert outside.delay(good) < 1


def test_bad_recipients_delay_good_ones_of_their_own_domain_by_seconds():
    outside = Outside(bad_is(PUT_OFF))
    outside.ask(*at("large.example", 1000, "bad"))
    outside.run(3600)
    good = at("large.example", 50, "good")
    outside.ask(*good)
    outside.run(120)

    assert outside.delay(good) < AttemptScheduler.LONGEST_LANE_PAUSE_S + 2


@pytest.mark.parametrize("takes_s", [4, 60, 600])
@pytest.mark.parametrize("domains", [1, 2])
def test_slow_domains_do_not_delay_others(takes_s, domains):
    outside = Outside(bad_is(OK, takes_s))
    for n in range(domains):
        outside.ask(*at(f"bad{n}.example", 1000))
    outside.run(1000)
    good = [*GOOD, *at("fine.example", 20)]
    outside.ask(*good)
    outside.run(100)

    assert outside.delay(good) < (45 if takes_s == 4 else 6)  # at 4 s nobody is slow: it is a matter of turns
    assert outside.most <= 8


def test_one_hanging_attempt_does_not_delay_its_domain():
    outside = Outside(bad_is(PUT_OFF, 600))
    outside.ask("bad@large.example", *at("large.example", 100, "good"))
    outside.run(60)

    assert outside.delay(at("large.example", 100, "good")) < 5


@pytest.mark.parametrize("away_s", [30, 7200, 2 * DAY_S])
def test_an_outage_is_probed_and_after_it_everything_is_performed_at_once(away_s):
    outside = Outside(lambda key, now: (0.01, OUTAGE if now < away_s else OK))
    keys = [*at("a.example", 500), *at("b.example", 500)]
    outside.ask(*keys)
    outside.run(away_s)
    assert outside.tried(keys) < 20 + away_s / 2.5
    outside.run(20)

    assert len(outside.done) == 1000


def test_hanging_attempts_in_all_slots_do_not_delay_others():
    outside = Outside(bad_is(PUT_OFF, 600))
    outside.ask(*(f"x@bad{n}.example" for n in range(4)))
    outside.run(30)
    outside.ask(*GOOD)
    outside.run(30)

    assert outside.delay(GOOD) < 1


def test_retries_leave_half_of_the_slots_to_first_attempts():
    outside = Outside(bad_is(PUT_OFF, 4))
    outside.ask(*(f"x@bad{n}.example" for n in range(200)))
    outside.run(400)
    for n in range(100):
        outside.ask(f"good{n}@good.example")
        outside.run(3)

        assert outside.delay([f"good{n}@good.example"]) < 1


@pytest.mark.parametrize("ends", [OUTAGE, PUT_OFF])
def test_one_that_fails_while_others_succeed_is_retried_with_growing_pauses(ends):
    outside = Outside(bad_is(ends), destination=lambda key: "same")
    outside.ask(*at("large.example", 20, "bad"))
    for n in range(7200):
        outside.ask(f"good{n}")
        outside.run(1)

    assert outside.tried(at("large.example", 20, "bad")) < 20 * 25


@pytest.mark.parametrize("ends", [LOCKED_OUT, PUT_OFF])
def test_after_an_outage_the_first_success_retries_all_others(ends):
    outside = Outside(lambda key, now: (0.01, ends if now < 7200 else OK))
    outside.ask(*at("a.example", 20))
    outside.run(7200 + 1000)

    assert len(outside.done) == 20
    assert max(outside.done.values()) - min(outside.done.values()) < 1


def test_open_circuits_are_those_of_destinations_that_fail_until_they_are_back():
    outside = Outside(lambda key, now: (0.01, PUT_OFF if "bad" in key and now < 7200 else OK))
    outside.ask(*at("bad-1.example", 8), *at("bad-2.example", 8), *at("good.example", 8))
    outside.run(600)
    assert outside.attempts.open_circuits() == 2
    outside.run(7200)
    assert outside.attempts.open_circuits() == 0


def test_an_outage_is_an_open_circuit_and_what_was_removed_is_none():
    outside = Outside(bad_is(OUTAGE), destination=lambda key: None)
    outside.ask(*at("bad.example", 4))
    outside.run(600)
    assert outside.attempts.open_circuits() == 1
    dropped = Outside(bad_is(PUT_OFF))
    dropped.ask(*at("bad.example", 8))
    dropped.run(600)
    assert dropped.attempts.open_circuits() == 1
    for key in at("bad.example", 8):
        dropped.attempts.remove(RowId(0, "t", key))
    assert dropped.attempts.open_circuits() == 0


def test_payloads_that_always_raise_outage_do_not_block_others():
    outside = Outside(bad_is(OUTAGE), destination=lambda key: None, places=16)
    outside.ask(*at("bad.example"))
    outside.run(3600)
    good = [f"{key} {n}" for n in range(20) for key in GOOD]
    outside.ask(*good)
    outside.run(60)

    assert outside.delay(good) < 10
    assert len(outside.done) == len(good)


@pytest.mark.parametrize("destination", [None, "its own", "with others that succeed"])
def test_pauses_of_a_failing_one_grow_until_it_times_out(destination):
    of = {None: lambda key: None, "its own": lambda key: key}.get(destination, lambda key: "same")
    outside = Outside(bad_is(PUT_OFF), destination=of, timeout_s=3 * DAY_S)
    outside.ask("bad")
    for n in range(3 * 24 - 1):
        outside.ask(f"good{n}")
        outside.run(3600)
        assert outside.delay([f"good{n}"]) < 40
    assert outside.dead == {}
    outside.run(3600 + 1000)

    assert 290 < outside.tries["bad"] < 700
    assert [key for key, _ in outside.dead.items()] == ["bad"]


@pytest.mark.parametrize("ends", [PUT_OFF, OUTAGE])
def test_a_thousand_failing_ones_time_out_exactly_at_their_timeout(ends):
    outside, dead = Outside(bad_is(ends), timeout_s=3 * DAY_S), at("bad.example")
    outside.ask(*dead)
    outside.run(3 * DAY_S - 1)
    assert outside.dead == {}
    outside.run(1000)

    assert set(outside.dead) == set(dead)
    assert {reason for _, reason in outside.dead.values()} == {ends}
    assert outside.tried(dead) < 3 * DAY_S / 2


def test_one_that_is_too_old_when_added_is_attempted_before_it_times_out():
    outside = Outside(lambda key, now: (0.01, OUTAGE if now < 30 else OK))
    outside.ask(*at("fine.example", 100), age_s=10 * DAY_S)
    outside.run(60)

    assert (len(outside.done), outside.dead) == (100, {})


def test_a_recovered_domain_gets_all_its_side_effects_soon():
    outside = Outside(lambda key, now: (0.01, PUT_OFF if "bad" in key and now < 7200 else OK))
    outside.ask(*at("bad.example"))
    outside.run(7200)
    outside.run(60)

    assert len(outside.done) == 1000


def test_destinations_take_turns():
    outside = Outside(bad_is(OK))
    outside.ask(*at("many.example"), "one@few.example")
    outside.run(0.5)

    assert outside.delay(["one@few.example"]) < 0.1


def test_a_rebalance_does_not_restart_all_attempts():
    outside, dead = Outside(bad_is(PUT_OFF)), at("bad.example")
    outside.ask(*dead)
    outside.run(600)
    before = outside.tried(dead)
    for _ in range(50):
        outside.attempts.clear()
        outside.ask(*dead)
        outside.run(1)

    assert outside.tried(dead) - before < 20


def test_the_number_of_lanes_is_bounded():
    outside = Outside(bad_is(OK))
    for n in range(0, 5000, 50):
        outside.ask(*(f"x@d{m}.example" for m in range(n, n + 50)))
        outside.run(5)

    assert len(outside.done) == 5000
    assert len(outside.attempts._lanes) <= 2 * AttemptScheduler.MAX_IDLE_LANES


def test_one_that_is_removed_is_not_attempted():
    outside = Outside(bad_is(PUT_OFF))
    outside.ask("bad@bad.example", "good@good.example")
    outside.attempts.remove(RowId(0, "t", "good@good.example"))
    outside.run(1)
    outside.attempts.remove(RowId(0, "t", "bad@bad.example"))
    tries = outside.tries.copy()
    outside.run(3600)

    assert outside.tries == tries == Counter({"bad@bad.example": tries["bad@bad.example"]})
    assert len(outside.attempts) == 0


def test_a_destination_with_a_limit_leaves_slots_to_the_others():
    """One that takes 4 s is not slow by `SLOW_S`, and would fill all slots in turn."""
    outside = Outside(lambda key, _: (4.0 if "@late" in key else 0.02, OK), places=8, per_lane=2)
    outside.ask(*(f"{n}@late" for n in range(100)))
    outside.run(1)
    assert outside.most == 2
    outside.ask(*(f"{n}@soon" for n in range(100)))
    outside.run(2)
    assert sum(key.endswith("@soon") for key in outside.done) == 100
    outside.run(300)
    assert len(outside.done) == 200


def test_a_limited_destination_that_fails_and_recovers_gets_all():
    outside = Outside(lambda key, now: (0.02, OK if now > 100 else PUT_OFF), places=8, per_lane=2)
    outside.ask(*(f"{n}@one" for n in range(50)))
    outside.run(99)
    assert outside.tries.total() < 200
    outside.run(100)
    assert len(outside.done) == 50
