"""Schedules attempts at side effects, so that failing and slow ones do not delay the others.

Pure: outcomes and the time are arguments. Seconds are those of a monotonic clock.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Iterator

from runtime.side_effects.circuits import Circuit, pause_s
from runtime.side_effects.lanes import Entry, Lane, Row, latest_of

LONGEST_PAUSE_S = 900.0
TIMEOUT_S = 3 * 24 * 3600.0


class AttemptScheduler:
    """The waiting and running side effects of one kind.

    A failed one frees its place, and is retried after a pause that doubles. Those that never failed go first, and
    destinations take turns; those that failed, or whose destination failed or was slow, have half of the places at
    most. A destination with several failures in a row gets one attempt at a time, the newest first, until one
    succeeds; so do all destinations during an outage. An attempt that takes longer than `SLOW_S` frees its place as
    well, unless twice as many attempts run as there are places.

    Arguments:
        name: seed of the jitter.
        places: concurrent attempts.
        longest_s: seconds, the longest pause between two attempts of one.
        timeout_s: seconds after which a failing one is given up.
    """

    FIRST_S = 0.5
    """Seconds, the shortest pause: a server that restarts or is busy often accepts the second attempt."""
    MOST_FAILURES = 5
    """Failures in a row that open the circuit of a destination. Fewer would block a mail provider for a few full
    mailboxes."""
    MOST_OUTAGES = 3
    LANE_S = 30.0
    """Seconds, the longest pause of a destination: its recovery is noticed within it, at the cost of one attempt."""
    SLOW_S = 5.0
    """Seconds after which an attempt is slow: mail servers and databases usually answer within one."""
    GRACE_S = 600.0
    """Seconds for which one that is too old when it is loaded, after days without a worker, is still attempted."""
    MOST_REASON = 500
    """Characters of a reason that are kept."""
    MOST_LANES = 1000
    """Idle destinations that are kept."""

    def __init__(
        self, name: str, places: int, longest_s: float = LONGEST_PAUSE_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._name = name
        self._places = places
        self._longest_s = longest_s
        self._timeout_s = timeout_s
        self._waiting: dict[Row, Entry] = {}
        self._running: dict[Row, Entry] = {}
        self._failed: dict[Row, Entry] = {}
        """Those that failed and have not succeeded since."""
        self._lanes: dict[str | None, Lane] = {}
        self._tidy_at = self.MOST_LANES
        self._fresh: deque[Lane] = deque()
        """Lanes with fresh entries whose destination is healthy."""
        self._suspect: deque[Lane] = deque()
        """Lanes with entries to retry, or whose destination is not healthy."""
        self._later: list[tuple[float, int, Entry | Lane, bool]] = []
        """When to check an entry or a lane again; `True`: because it times out."""
        self._order = itertools.count()
        self._over: list[Entry] = []
        self.outage = Circuit(self.MOST_OUTAGES, self.FIRST_S, name)

    def __len__(self) -> int:
        """How many are waiting."""
        return len(self._waiting)

    @property
    def running(self) -> Collection[Row]:
        return self._running.keys()

    @property
    def failed_rows(self) -> Collection[Row]:
        """Those that failed and have not succeeded since, also of partitions that may come back."""
        return self._failed.keys()

    @property
    def last_error(self) -> str:
        """The last failure among them, without personal data; empty if none has failed."""
        if self.outage.open:
            return self.outage.error
        return max(self._failed.values(), key=lambda entry: entry.failed_at).error if self._failed else ""

    def oldest_at(self) -> float | None:
        """When the oldest waiting one was enqueued."""
        return min((entry.asked_at for entry in self._waiting.values()), default=None)

    # Waiting.

    def add(self, row: Row, destination: str | None, asked_at: float, now: float) -> None:
        """Adds a side effect. One that failed before keeps its count of failures."""
        if row in self._waiting or row in self._running:
            return
        entry = self._failed.get(row) or Entry(row, destination, asked_at, known_at=now)
        self._waiting[row] = entry
        self._put_back(entry, now)
        if not entry.timed:
            entry.timed = True
            self._push(self._over_at(entry), entry, over=True)

    def remove(self, row: Row) -> None:
        """Removes a side effect, or one that is replaced. A running one runs until it is `ended`."""
        self._failed.pop(row, None)
        self._waiting.pop(row, None)

    def clear(self) -> None:
        """Removes all waiting ones, and keeps their failures: they may come back."""
        self._waiting.clear()
        for lane in self._lanes.values():
            lane.drop()

    def forget(self, rows: Collection[Row]) -> None:
        """Forgets the failures of these, which another worker performs."""
        for row in rows:
            self._failed.pop(row, None)

    # Running.

    def begin(self, now: float) -> Row | None:
        """Starts the next attempt, if there is one: returns its row."""
        self._apply_due(now)
        extra = self._extra
        if len(self._running) - extra >= self._places or not self.outage.allows(now, latest_of(self._running.values())):
            return None
        entry = self._next_fresh()
        if entry is None:
            slow = sum(e.slow for e in self._running.values()) - extra
            if slow + sum(e.suspect and not e.slow for e in self._running.values()) < max(1, self._places // 2):
                entry = self._next_suspect(now)
        if entry is None:
            return None
        self._start(entry, now)
        self._offer(self._lanes[entry.destination], now, tried=True)
        return entry.row

    def over(self, now: float) -> Iterator[tuple[Row, str]]:
        """Starts those that time out without another attempt, and yields their rows and reasons."""
        self._apply_due(now)
        while self._over and len(self._running) - self._extra < self._places:
            entry = self._over.pop()
            if self._waiting.get(entry.row) is entry:
                reason = self._reason(entry)
                entry.suspect = False
                self._start(entry, now)
                entry.answered = True
                yield entry.row, reason

    def succeeded(self, row: Row, now: float) -> None:
        """The other side accepted it, or rejected it for good. It runs until it is `ended`."""
        entry = self._running.get(row)
        if entry is None:
            return
        entry.answered = True
        self._failed.pop(row, None)
        lane = self._lanes[entry.destination]
        if not entry.slow:
            lane.slow = 0
        if self.outage.succeeded(now):
            self._make_due(now, None)
        if lane.circuit is not None and lane.circuit.succeeded(now):
            self._make_due(now, lane)
        self._offer(lane, now)

    def failed(self, row: Row, error: str, now: float, outage_pause_s: float | None = None, reason: str = "") -> bool:
        """An attempt failed. Returns whether it was the last one before the timeout.

        `error` is without personal data, `reason` is complete. `outage_pause_s`, in seconds, is the longest pause until
        the next attempt, if every other side effect would have failed as well.
        """
        entry = self._running[row]
        entry.answered = True
        lane = self._lanes[entry.destination]
        if not entry.slow:
            lane.slow = 0
        circuit = lane.circuit if outage_pause_s is None else self.outage
        if circuit is not None:
            entry.itself = circuit.succeeded_at >= (entry.failed_at if entry.failures else entry.begun)
            circuit.failed(now, entry.begun, error, min(self._longest_s, outage_pause_s or self.LANE_S))
        entry.outage = outage_pause_s is not None
        entry.failures, entry.failed_at = entry.failures + 1, now
        entry.error, entry.reason = error, (reason or error)[: self.MOST_REASON]
        longest_s = self._longest_s
        if outage_pause_s is not None and not entry.itself:
            longest_s = min(longest_s, outage_pause_s)
        entry.due = now + pause_s(entry.failures, self.FIRST_S, longest_s, f"{self._name} {row.key}")
        self._failed[row] = entry
        return now >= self._over_at(entry)

    def ended(self, row: Row, now: float) -> None:
        """Frees the place of an attempt. One that has to be repeated is added again."""
        entry = self._running.pop(row, None)
        if entry is not None:
            lane = self._lanes[entry.destination]
            lane.running.remove(entry)
            self._offer(lane, now)

    def wake_at(self, now: float) -> float | None:
        """When to call `begin` again though nothing happens."""
        times = [self._later[0][0]] if self._later else []
        times += [entry.begun + self.SLOW_S for entry in self._running.values() if not entry.slow]
        if self._waiting and self.outage.retry_at > now:
            times.append(self.outage.retry_at)
        return min(times, default=None)

    # Queues.

    @property
    def _extra(self) -> int:
        """How many running attempts have freed their place."""
        return min(self._places, sum(entry.slow for entry in self._running.values()))

    def _start(self, entry: Entry, now: float) -> None:
        del self._waiting[entry.row]
        entry.begun, entry.slow, entry.answered = now, False, False
        self._running[entry.row] = entry
        self._lanes[entry.destination].running.append(entry)

    def _over_at(self, entry: Entry) -> float:
        return max(entry.asked_at + self._timeout_s, entry.known_at + min(self.GRACE_S, self._timeout_s))

    def _reason(self, entry: Entry) -> str:
        """Why it waits, if not just for its turn. The errors of others come without personal data."""
        circuit = self._lanes[entry.destination].circuit
        if entry.failures:
            return entry.reason
        if self.outage.open:
            return self.outage.error
        return circuit.error if circuit is not None and circuit.open else ""

    def _push(self, at: float, thing: Entry | Lane, *, over: bool = False) -> None:
        heapq.heappush(self._later, (at, next(self._order), thing, over))

    def _apply_due(self, now: float) -> None:
        """Applies what is due by now: slow attempts, retries, timeouts."""
        for entry in self._running.values():
            if not entry.slow and now >= entry.begun + self.SLOW_S:
                entry.slow = True
                lane = self._lanes[entry.destination]
                lane.slow += not entry.answered
                self._offer(lane, now)
        while self._later and self._later[0][0] <= now:
            _, _, thing, over = heapq.heappop(self._later)
            if isinstance(thing, Lane):
                self._offer(thing, now)
            elif over:
                self._check_timeout(thing, now)
            elif self._waiting.get(thing.row) is thing:
                self._put_back(thing, now)

    def _check_timeout(self, entry: Entry, now: float) -> None:
        entry.timed = False
        if self._waiting.get(entry.row) is not entry:
            return
        if self._reason(entry):
            self._over.append(entry)
        else:  # it has its turn first
            entry.timed = True
            self._push(now + self.GRACE_S / 10, entry, over=True)

    def _put_back(self, entry: Entry, now: float) -> None:
        """Puts an entry into its lane, or schedules it for later."""
        lane = self._lane(entry.destination)
        if entry.failures and now < entry.due:
            self._push(entry.due, entry)
            return
        if not entry.queued:
            entry.queued = True
            (lane.again if entry.failures else lane.fresh).append(entry)
        self._offer(lane, now)

    def _lane(self, destination: str | None) -> Lane:
        lane = self._lanes.get(destination)
        if lane is None:
            if len(self._lanes) >= self._tidy_at:
                used = {e.destination for rows in (self._waiting, self._running, self._failed) for e in rows.values()}
                self._lanes = {name: lane for name, lane in self._lanes.items() if name in used}
                self._tidy_at = max(self.MOST_LANES, 2 * len(self._lanes))
            circuit = None
            if destination is not None:
                circuit = Circuit(self.MOST_FAILURES, self.FIRST_S, f"{self._name} {destination}")
            lane = self._lanes[destination] = Lane(circuit)
        return lane

    def _offer(self, lane: Lane, now: float, *, tried: bool = False) -> None:
        """Queues a lane, if it has an entry that may be attempted now."""
        clear = lane.clear
        if clear and lane.fresh and not lane.in_fresh:
            lane.in_fresh = True
            if tried and self.outage.open:  # those at the end are taken then
                self._fresh.appendleft(lane)
            else:
                self._fresh.append(lane)
        if (lane.again or (lane.fresh and not clear)) and not lane.in_suspect:
            if lane.may(now, self._places):
                lane.in_suspect = True
                self._suspect.append(lane)
            elif lane.circuit is not None and lane.circuit.open and now < lane.circuit.retry_at != lane.look_at:
                lane.look_at = lane.circuit.retry_at
                self._push(lane.look_at, lane)

    def _next_fresh(self) -> Entry | None:
        while self._fresh:
            # The newest first during an outage, as in a lane with an open circuit.
            newest = self.outage.open
            lane = self._fresh.pop() if newest else self._fresh.popleft()
            lane.in_fresh = False
            while lane.clear and lane.fresh:
                entry = lane.fresh.pop() if newest else lane.fresh.popleft()
                entry.queued = entry.suspect = False
                if self._waiting.get(entry.row) is entry:
                    return entry
        return None

    def _next_suspect(self, now: float) -> Entry | None:
        while self._suspect:
            lane = self._suspect.popleft()
            lane.in_suspect = False
            if not lane.may(now, self._places):
                self._offer(lane, now)
                continue
            while lane.again or (lane.fresh and not lane.clear):
                # The newest first: older ones had more time to fail.
                entry = lane.fresh.pop() if lane.fresh and not lane.clear else lane.again.popleft()
                entry.queued, entry.suspect = False, True
                if self._waiting.get(entry.row) is entry:
                    return entry
        return None

    def _make_due(self, now: float, lane: Lane | None) -> None:
        """Makes due what failed together with others that succeed now: after an outage (`None`), or of a lane."""
        for entry in self._failed.values():
            if self._waiting.get(entry.row) is not entry or entry.itself or entry.due <= now:
                continue
            if entry.outage if lane is None else not entry.outage and self._lanes[entry.destination] is lane:
                entry.due = now
                self._put_back(entry, now)
