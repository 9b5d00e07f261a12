"""Decides what share of the partitions and keys an observer reads, so that it stays cheap at any load. Pure."""

from collections import deque
from zlib import crc32

BUDGET = 500
"""Records a second that an observer reads at most: about 10 µs each, so 0.5 % of a processor."""
_RAREST = 64
"""One of so many keys is read at least."""
_WIDEN_BELOW = 0.4
"""Part of the budget below which twice as many partitions are read: they bring twice as many records."""
_WINDOW_S = 2.0
"""Seconds over which the rate is measured. A peak that is shorter is read whole."""


class Sampling:
    """Halves the number of partitions that are read until few enough records come, and doubles it while few come.

    If one partition is too much, it halves the keys that are read there. It halves as often as the measured rate asks
    for, at once: until it has, the feed costs more than its budget. It doubles once per measurement. A record whose key
    is left out is fetched, and not decoded. Keys are spread evenly over the partitions, and all records of a key are in
    one: a sample has complete orders.

    Arguments:
        partitions: of the topics.
        budget: records a second.

    >>> sampling = Sampling(4, budget=100)
    >>> [sampling.count(second, 390) for second in (0.0, 2.0)]  # 195 a second: half of it is below the budget
    [4, 2]
    >>> [sampling.count(second, 700) for second in (4.0, 6.0)], sampling.share  # 350 a second: an eighth
    ([2, 1], 0.125)
    """

    def __init__(self, partitions: int, budget: int = BUDGET) -> None:
        self.partitions = partitions
        self.followed = partitions
        """Partitions that are read: those below this number."""
        self._every = 1
        self._budget = budget
        self._counts: deque[tuple[float, int]] = deque()
        self._records = 0

    @property
    def share(self) -> float:
        """The part of the keys that is seen."""
        return self.followed / self.partitions / self._every

    @property
    def partition_share(self) -> float:
        """The part of the partitions that is read."""
        return self.followed / self.partitions

    def keeps(self, key: bytes | None) -> bool:
        """Whether records with a key are handed over, of a partition that is read. Fewer keys are some of these."""
        return self._every == 1 or key is None or crc32(key) % self._every == 0

    def count(self, now_s: float, records: int) -> int:
        """Counts records that were handed over. Returns how many partitions to read from now on."""
        self._counts.append((now_s, records))
        self._records += records
        while len(self._counts) > 1 and self._counts[1][0] <= now_s - _WINDOW_S:
            self._records -= self._counts.popleft()[1]
        elapsed = now_s - self._counts[0][0]
        if elapsed < _WINDOW_S:
            return self.followed
        rate = (self._records - self._counts[0][1]) / elapsed
        followed, every = self.followed, self._every
        if rate > self._budget:
            while rate > self._budget and every < _RAREST:
                followed, every = (followed // 2, every) if followed > 1 else (1, every * 2)
                rate /= 2
        elif rate < self._budget * _WIDEN_BELOW:
            followed, every = (followed, every // 2) if every > 1 else (min(self.partitions, followed * 2), 1)
        if (followed, every) != (self.followed, self._every):
            self.followed, self._every = followed, every
            self.restart()
        return followed

    def restart(self) -> None:
        """Measures anew: records before it are no measure of the load."""
        self._counts.clear()
        self._records = 0
