"""Virtual time: what is to happen when. Timers of the variants come before what else is due at the same time."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence

from ecosystem.what_if.runner import NEVER, at_ms
from ecosystem.what_if.variant import Variant
from runtime.loop.overlay import OutputRecord

Call = Callable[[], None]


class Agenda:
    """Calls that are due later, and the time.

    Arguments:
        variants: have the clocks that it sets.
        fired: called with the number of a variant and what a timer of it sent.
    """

    def __init__(self, variants: Sequence[Variant], fired: Callable[[int, list[OutputRecord]], None]) -> None:
        self.now_ms = 0
        self._variants = variants
        self._fired = fired
        self._calls: list[tuple[int, int, Call]] = []
        self._due: deque[Call] = deque()
        self._numbers = itertools.count()

    def at(self, ms: int, call: Call) -> None:
        """Calls `call` at a time; at the next `settle` if that has passed, or never comes."""
        if ms <= self.now_ms or ms >= NEVER:
            self._due.append(call)
        else:
            heapq.heappush(self._calls, (ms, next(self._numbers), call))

    def settle(self) -> None:
        """Does what is due now, in the order in which it was asked for."""
        while self._due:
            self._due.popleft()()

    def advance(self, ms: int) -> None:
        """Does what is due up to and including a time, and sets the clocks to it."""
        while True:
            first, timer = 0, NEVER
            for number, variant in enumerate(self._variants):
                due = variant.runner.next_timer_ms()
                if due < timer:
                    first, timer = number, due
            call = self._calls[0][0] if self._calls else NEVER
            if min(timer, call) > ms:
                break
            self._set(max(min(timer, call), self.now_ms))
            if timer <= call:
                self._fired(first, self._variants[first].fire())
            else:
                heapq.heappop(self._calls)[2]()
            self.settle()
        self._set(ms)

    def finish(self) -> None:
        """Does what is due at any time, but fires no timer after the present time."""
        while self._calls:
            heapq.heappop(self._calls)[2]()
            self.settle()

    def _set(self, ms: int) -> None:
        self.now_ms = ms
        now = at_ms(ms)
        for variant in self._variants:
            variant.runner.memory.now = now
