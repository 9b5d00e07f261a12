"""Decides what share of the partitions an observer reads, so that it stays cheap at any load. Pure."""

from collections import deque

BUDGET = 1000
"""Records a second that an observer reads at most: about 10 µs each, so 1 % of a processor."""
_WIDEN_BELOW = 0.4
"""Part of the budget below which twice as many partitions are read: they bring twice as many records."""
_WINDOW_S = 2.0
"""Seconds over which the rate is measured. A peak that is shorter is read whole."""


class Sampling:
    """Halves the number of partitions that are read while too many records come, and doubles it while few come.

    Keys are spread evenly over the partitions, and all records of a key are in one: a sample has complete orders.

    Arguments:
        partitions: of the topics.
        budget: records a second.

    >>> sampling = Sampling(4, budget=100)
    >>> [sampling.count(second, 1000) for second in (0.0, 2.0, 4.0, 6.0)]
    [4, 2, 2, 1]
    >>> sampling.share
    0.25
    """

    def __init__(self, partitions: int, budget: int = BUDGET) -> None:
        self.partitions = partitions
        self.followed = partitions
        """Partitions that are read: those below this number."""
        self._budget = budget
        self._counts: deque[tuple[float, int]] = deque()
        self._records = 0

    @property
    def share(self) -> float:
        """The part of the orders that is seen."""
        return self.followed / self.partitions

    def count(self, now_s: float, records: int) -> int:
        """Counts records that were read. Returns how many partitions to read from now on."""
        self._counts.append((now_s, records))
        self._records += records
        while len(self._counts) > 1 and self._counts[1][0] <= now_s - _WINDOW_S:
            self._records -= self._counts.popleft()[1]
        elapsed = now_s - self._counts[0][0]
        if elapsed < _WINDOW_S:
            return self.followed
        rate = (self._records - self._counts[0][1]) / elapsed
        followed = self.followed
        if rate > self._budget:
            followed = max(1, followed // 2)
        elif rate < self._budget * _WIDEN_BELOW:
            followed = min(self.partitions, followed * 2)
        if followed != self.followed:
            self.followed = followed
            self.restart()
        return followed

    def restart(self) -> None:
        """Measures anew: records before it are no measure of the load."""
        self._counts.clear()
        self._records = 0
