"""Schedules attempts at side effects, so that failing and slow ones do not delay the others.

Pure: outcomes and the time are arguments. Seconds are those of a monotonic clock.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Iterator

from runtime.side_effects.circuits import Circuit, pause_s
from runtime.side_effects.lanes import Entry, Lane, RowId, latest_start

LONGEST_PAUSE_S = 900.0
"""Seconds, the longest pause between two attempts of one, unless a service sets another."""
TIMEOUT_S = 3 * 24 * 3600.0
"""Seconds, three days: mail servers retry for about as long."""


class AttemptScheduler:
    """The waiting and running side effects of one kind.

    A failed one frees its slot, and is retried after a pause that doubles. Those that never failed go first, and
    destinations take turns; those that failed, or whose destination failed or was slow, use half of the slots at most.
    A destination with several failures in a row gets one attempt at a time, the newest first, until one succeeds; so do
    all destinations during an outage. An attempt that takes longer than `SLOW_S` frees its slot as well, until twice as
    many attempts run as there are slots.

    Arguments:
        name: seed of the jitter.
        slots: concurrent attempts.
        longest_s: seconds, the longest pause between two attempts of one.
        timeout_s: seconds after which a failing one times out.
        per_lane: concurrent attempts to one destination, slow ones included; `None` for no limit. With it, a
            destination that answers within `SLOW_S`, but not at once, leaves slots to the others.
    """

    FIRST_PAUSE_S = 0.5
    """Seconds, the shortest pause: a server that restarts or is busy often accepts the second attempt."""
    MAX_FAILURES = 5
    """Failures in a row that open the circuit of a destination. Fewer would block a mail provider for a few full
    mailboxes."""
    MAX_OUTAGES = 3
    """`Outage`s in a row after which one attempt at a time is made, whatever its destination."""
    LONGEST_LANE_PAUSE_S = 30.0
    """Seconds, the longest pause of a destination: a probe each, and its recovery is noticed within it."""
    SLOW_S = 5.0
    """Seconds after which an attempt is slow: mail servers and databases usually answer within one."""
    GRACE_S = 600.0
    """Seconds for which one that timed out before it was loaded, after days without a worker, is still attempted."""
    MAX_REASON = 500
    """Characters of a reason that are stored."""
    MAX_IDLE_LANES = 1000
    """Idle lanes above which they are pruned: customers have any number of domains."""

    def __init__(
        self,
        name: str,
        slots: int,
        longest_s: float = LONGEST_PAUSE_S,
        timeout_s: float = TIMEOUT_S,
        per_lane: int | None = None,
    ) -> None:
        self._name = name
        self._slots = slots
        self._longest_s = longest_s
        self._timeout_s = timeout_s
        self._per_lane = per_lane
        self._waiting: dict[RowId, Entry] = {}
        self._running: dict[RowId, Entry] = {}
        self._failed: dict[RowId, Entry] = {}
        """Failed, and not succeeded since."""
        self._lanes: dict[str | None, Lane] = {}
        self._prune_at = self.MAX_IDLE_LANES
        self._fresh_lanes: deque[Lane] = deque()
        """Lanes with fresh entries whose destination is healthy."""
        self._suspect_lanes: deque[Lane] = deque()
        """Lanes with entries to retry, or whose destination is not healthy."""
        self._checks: list[tuple[float, int, Entry | Lane, bool]] = []
        """Heap of checks: time, tie-breaker, entry or lane, and whether the entry times out then."""
        self._order = itertools.count()
        self._timed_out: list[Entry] = []
        self.outage = Circuit(self.MAX_OUTAGES, self.FIRST_PAUSE_S, name)

    def __len__(self) -> int:
        """How many are waiting."""
        return len(self._waiting)

    @property
    def running(self) -> Collection[RowId]:
        return self._running.keys()

    @property
    def failed_rows(self) -> Collection[RowId]:
        """Those that failed and have not succeeded since, in unloaded partitions as well."""
        return self._failed.keys()

    @property
    def last_error(self) -> str:
        """The last failure among them, without personal data; empty if none has failed."""
        if self.outage.open:
            return self.outage.error
        return max(self._failed.values(), key=lambda entry: entry.failed_at).error if self._failed else ""

    def open_circuits(self) -> int:
        """How many circuit breakers are open: of the destinations of those that are not done, and of all of them."""
        destinations = {e.destination for rows in (self._waiting, self._running) for e in rows.values()}
        circuits = (self._lanes[destination].circuit for destination in destinations)
        return self.outage.open + sum(circuit is not None and circuit.open for circuit in circuits)

    def oldest_enqueued_at(self) -> float | None:
        """When the oldest waiting one was enqueued."""
        return min((entry.enqueued_at for entry in self._waiting.values()), default=None)

    # Waiting.

    def add(self, row: RowId, destination: str | None, enqueued_at: float, now: float) -> None:
        """Adds a side effect. One that failed before keeps its count of failures."""
        if row in self._waiting or row in self._running:
            return
        entry = self._failed.get(row) or Entry(row, destination, enqueued_at, added_at=now)
        self._waiting[row] = entry
        self._enqueue(entry, now)
        if not entry.timeout_scheduled:
            entry.timeout_scheduled = True
            self._schedule_check(self._timeout_at(entry), entry, timeout=True)

    def remove(self, row: RowId) -> None:
        """Removes a side effect. A running one occupies its slot until `free_slot`."""
        self._failed.pop(row, None)
        self._waiting.pop(row, None)

    def clear(self) -> None:
        """Removes all waiting ones, but keeps their failures: their partitions may be assigned again."""
        self._waiting.clear()
        for lane in self._lanes.values():
            lane.clear()

    def forget(self, rows: Collection[RowId]) -> None:
        """Forgets the failures of side effects that another worker performs by now."""
        for row in rows:
            self._failed.pop(row, None)

    # Running.

    def start_next(self, now: float) -> RowId | None:
        """Starts the next attempt and returns its row; `None` if none may start now."""
        self._run_due_checks(now)
        extra_slots = self._extra_slots
        if len(self._running) - extra_slots >= self._slots:
            return None
        if not self.outage.allows(now, latest_start(self._running.values())):
            return None
        entry = self._next_fresh()
        if entry is None:
            slow = sum(e.slow for e in self._running.values()) - extra_slots
            if slow + sum(e.suspect and not e.slow for e in self._running.values()) < max(1, self._slots // 2):
                entry = self._next_suspect(now)
        if entry is None:
            return None
        self._start(entry, now)
        self._queue_lane(self._lanes[entry.destination], now, tried=True)
        return entry.row

    def start_timed_out(self, now: float) -> Iterator[tuple[RowId, str]]:
        """Yields rows and reasons of those that timed out while they waited. Each occupies a slot until `free_slot`."""
        self._run_due_checks(now)
        while self._timed_out and len(self._running) - self._extra_slots < self._slots:
            entry = self._timed_out.pop()
            if self._waiting.get(entry.row) is entry:
                reason = self._reason(entry)
                entry.suspect = False
                self._start(entry, now)
                entry.answered = True
                yield entry.row, reason

    def succeeded(self, row: RowId, now: float) -> None:
        """The other side accepted it, or rejected it permanently. Its slot is occupied until `free_slot`."""
        entry = self._running.get(row)
        if entry is None:
            return
        entry.answered = True
        self._failed.pop(row, None)
        lane = self._lanes[entry.destination]
        if not entry.slow:
            lane.slow_in_a_row = 0
        if self.outage.succeeded(now):
            self._retry_now(now, None)
        if lane.circuit is not None and lane.circuit.succeeded(now):
            self._retry_now(now, lane)
        self._queue_lane(lane, now)

    def failed(self, row: RowId, error: str, now: float, outage_pause_s: float | None = None, reason: str = "") -> bool:
        """Records a failed attempt. Returns whether the side effect has timed out.

        `error` is without personal data, `reason` is complete. `outage_pause_s`, in seconds, is the longest pause until
        the next attempt, if every other side effect would have failed as well.
        """
        entry = self._running[row]
        entry.answered = True
        lane = self._lanes[entry.destination]
        if not entry.slow:
            lane.slow_in_a_row = 0
        circuit = lane.circuit if outage_pause_s is None else self.outage
        if circuit is not None:
            entry.isolated = circuit.succeeded_at >= (entry.failed_at if entry.failures else entry.started_at)
            circuit.failed(
                now, entry.started_at, error, min(self._longest_s, outage_pause_s or self.LONGEST_LANE_PAUSE_S)
            )
        entry.outage = outage_pause_s is not None
        entry.failures, entry.failed_at = entry.failures + 1, now
        entry.error, entry.reason = error, (reason or error)[: self.MAX_REASON]
        longest_s = self._longest_s
        if outage_pause_s is not None and not entry.isolated:
            longest_s = min(longest_s, outage_pause_s)
        entry.retry_at = now + pause_s(entry.failures, self.FIRST_PAUSE_S, longest_s, f"{self._name} {row.key}")
        self._failed[row] = entry
        return now >= self._timeout_at(entry)

    def free_slot(self, row: RowId, now: float) -> None:
        """Frees the slot of an attempt. One that is to be repeated is added again."""
        entry = self._running.pop(row, None)
        if entry is not None:
            lane = self._lanes[entry.destination]
            lane.running.remove(entry)
            self._queue_lane(lane, now)

    def next_check_at(self, now: float) -> float | None:
        """When to call `start_timed_out` and `start_next` again although nothing happens."""
        times = [self._checks[0][0]] if self._checks else []
        times += [entry.started_at + self.SLOW_S for entry in self._running.values() if not entry.slow]
        if self._waiting and self.outage.retry_at > now:
            times.append(self.outage.retry_at)
        return min(times, default=None)

    # Queues.

    @property
    def _extra_slots(self) -> int:
        """How many running attempts have freed their slot, being slow."""
        return min(self._slots, sum(entry.slow for entry in self._running.values()))

    def _start(self, entry: Entry, now: float) -> None:
        del self._waiting[entry.row]
        entry.started_at, entry.slow, entry.answered = now, False, False
        self._running[entry.row] = entry
        self._lanes[entry.destination].running.append(entry)

    def _timeout_at(self, entry: Entry) -> float:
        return max(entry.enqueued_at + self._timeout_s, entry.added_at + min(self.GRACE_S, self._timeout_s))

    def _reason(self, entry: Entry) -> str:
        """Why it waits; empty if only for its turn. Errors of others are without personal data."""
        circuit = self._lanes[entry.destination].circuit
        if entry.failures:
            return entry.reason
        if self.outage.open:
            return self.outage.error
        return circuit.error if circuit is not None and circuit.open else ""

    def _schedule_check(self, at: float, item: Entry | Lane, *, timeout: bool = False) -> None:
        heapq.heappush(self._checks, (at, next(self._order), item, timeout))

    def _run_due_checks(self, now: float) -> None:
        """Marks slow attempts, and makes the checks that are due: retries, timeouts, circuits."""
        for entry in self._running.values():
            if not entry.slow and now >= entry.started_at + self.SLOW_S:
                entry.slow = True
                lane = self._lanes[entry.destination]
                lane.slow_in_a_row += not entry.answered
                self._queue_lane(lane, now)
        while self._checks and self._checks[0][0] <= now:
            _, _, item, timeout = heapq.heappop(self._checks)
            if isinstance(item, Lane):
                self._queue_lane(item, now)
            elif timeout:
                self._check_timeout(item, now)
            elif self._waiting.get(item.row) is item:
                self._enqueue(item, now)

    def _check_timeout(self, entry: Entry, now: float) -> None:
        entry.timeout_scheduled = False
        if self._waiting.get(entry.row) is not entry:
            return
        if self._reason(entry):
            self._timed_out.append(entry)
        else:  # its turn comes first
            entry.timeout_scheduled = True
            self._schedule_check(now + self.GRACE_S / 10, entry, timeout=True)

    def _enqueue(self, entry: Entry, now: float) -> None:
        """Puts an entry into its lane, or schedules its retry."""
        lane = self._lane(entry.destination)
        if entry.failures and now < entry.retry_at:
            self._schedule_check(entry.retry_at, entry)
            return
        if not entry.in_lane:
            entry.in_lane = True
            (lane.retries if entry.failures else lane.fresh).append(entry)
        self._queue_lane(lane, now)

    def _lane(self, destination: str | None) -> Lane:
        lane = self._lanes.get(destination)
        if lane is None:
            if len(self._lanes) >= self._prune_at:
                used = {e.destination for rows in (self._waiting, self._running, self._failed) for e in rows.values()}
                self._lanes = {name: lane for name, lane in self._lanes.items() if name in used}
                self._prune_at = max(self.MAX_IDLE_LANES, 2 * len(self._lanes))
            circuit = None
            if destination is not None:
                circuit = Circuit(self.MAX_FAILURES, self.FIRST_PAUSE_S, f"{self._name} {destination}")
            lane = self._lanes[destination] = Lane(circuit, None if destination is None else self._per_lane)
        return lane

    def _queue_lane(self, lane: Lane, now: float, *, tried: bool = False) -> None:
        """Queues a lane that has an entry which may be attempted now."""
        healthy = lane.healthy
        if healthy and lane.fresh and not lane.in_fresh and not lane.full:
            lane.in_fresh = True
            if tried and self.outage.open:  # `_next_fresh` starts from the end then
                self._fresh_lanes.appendleft(lane)
            else:
                self._fresh_lanes.append(lane)
        if (lane.retries or (lane.fresh and not healthy)) and not lane.in_suspect:
            if lane.admits(now, self._slots):
                lane.in_suspect = True
                self._suspect_lanes.append(lane)
            elif lane.circuit is not None and lane.circuit.open and now < lane.circuit.retry_at != lane.check_at:
                lane.check_at = lane.circuit.retry_at
                self._schedule_check(lane.check_at, lane)

    def _next_fresh(self) -> Entry | None:
        while self._fresh_lanes:
            # The newest first during an outage, as in a lane with an open circuit.
            newest = self.outage.open
            lane = self._fresh_lanes.pop() if newest else self._fresh_lanes.popleft()
            lane.in_fresh = False
            while lane.healthy and lane.fresh and not lane.full:
                entry = lane.fresh.pop() if newest else lane.fresh.popleft()
                entry.in_lane = entry.suspect = False
                if self._waiting.get(entry.row) is entry:
                    return entry
        return None

    def _next_suspect(self, now: float) -> Entry | None:
        while self._suspect_lanes:
            lane = self._suspect_lanes.popleft()
            lane.in_suspect = False
            if not lane.admits(now, self._slots):
                self._queue_lane(lane, now)
                continue
            while lane.retries or (lane.fresh and not lane.healthy):
                # The newest first: older ones had more time to fail.
                entry = lane.fresh.pop() if lane.fresh and not lane.healthy else lane.retries.popleft()
                entry.in_lane, entry.suspect = False, True
                if self._waiting.get(entry.row) is entry:
                    return entry
        return None

    def _retry_now(self, now: float, lane: Lane | None) -> None:
        """Retries entries at once whose outage (`lane` is `None`), or whose destination, has recovered."""
        for entry in self._failed.values():
            if self._waiting.get(entry.row) is not entry or entry.isolated or entry.retry_at <= now:
                continue
            if entry.outage if lane is None else not entry.outage and self._lanes[entry.destination] is lane:
                entry.retry_at = now
                self._enqueue(entry, now)
