"""Ends of a partition over time: they tell since when the record at an offset waits, without reading it. Pure."""

from bisect import bisect_right
from collections import deque

MOST_SAMPLES = 512
"""Samples kept of a partition. Then half of them are dropped: an age gets coarser, by 1/256 of the time since the
oldest one."""


class EndSamples:
    """Samples of the end of one partition, each the latest one of its end.

    >>> samples = EndSamples()
    >>> for second, end in enumerate((5, 5, 9)):
    ...     samples.add(float(second), end)
    >>> samples.waited(9, 3.0), samples.waited(7, 3.0), samples.waited(2, 3.0)
    ((0.0, False), (2.0, False), (3.0, True))
    """

    __slots__ = ("_samples", "_seen_at")

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._seen_at = 0.0
        """When the first sample was taken."""

    def add(self, now_s: float, end: int) -> None:
        """Takes a sample: the offset behind the last record."""
        samples = self._samples
        if samples and samples[-1][1] > end:
            samples.clear()  # the topic was created anew
        if not samples:
            self._seen_at = now_s
        elif samples[-1][1] == end:
            samples.pop()  # the later sample of the same end is the better bound
        samples.append((now_s, end))
        if len(samples) > MOST_SAMPLES:
            self._thin(now_s)

    def __len__(self) -> int:
        """How many samples are kept."""
        return len(self._samples)

    @property
    def end(self) -> int:
        """The newest end."""
        return self._samples[-1][1]

    def waited(self, offset: int, now_s: float) -> tuple[float, bool]:
        """For how many seconds the record at an offset waits, and whether it may be longer.

        It was written between two samples, of which the earlier one counts. One that was there at the first sample may
        be older than that.
        """
        if offset >= self.end:
            return 0.0, False
        behind = bisect_right(self._samples, offset, key=lambda sample: sample[1])
        if behind == 0:
            return now_s - self._seen_at, True
        return now_s - self._samples[behind - 1][0], False

    def forget_before(self, offset: int) -> None:
        """Drops samples of which no offset from this one on has need."""
        while len(self._samples) > 1 and self._samples[1][1] <= offset:
            self._samples.popleft()

    def _thin(self, now_s: float) -> None:
        """Drops about half of the samples: those that follow another one most closely."""
        first, *between, last = self._samples
        gap_s = 2 * (now_s - first[0]) / MOST_SAMPLES
        self._samples.clear()
        self._samples.append(first)
        for sample in between:
            if sample[0] - self._samples[-1][0] >= gap_s:
                self._samples.append(sample)
        self._samples.append(last)
