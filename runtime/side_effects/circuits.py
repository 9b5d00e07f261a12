"""Circuit breakers of side effects, and pauses between attempts. Pure: time is an argument."""

from zlib import crc32


def pause_s(failures: int, first_s: float, longest_s: float, seed: str) -> float:
    """Seconds until the next attempt: `first_s` doubled with each failure, minus a jitter of up to half.

    The jitter follows from `seed`, so that two runs of a simulation are equal and two keys are apart.
    """
    whole = min(longest_s, first_s * 2.0 ** min(failures - 1, 60))
    return whole * (1 - crc32(f"{seed} {failures}".encode()) / 2**33)


class Circuit:
    """A circuit breaker: after several failures in a row it allows one attempt at a time, with growing pauses.

    Arguments:
        max_failures: failures in a row that open it.
        first_s: seconds, the shortest pause.
        seed: seed of the jitter.
    """

    def __init__(self, max_failures: int, first_s: float, seed: str) -> None:
        self._max_failures = max_failures
        self._first_s = first_s
        self._seed = seed
        self.failures = 0
        """In a row."""
        self.retry_at = 0.0
        """While it is open: when the next attempt may start."""
        self.succeeded_at = float("-inf")
        self.error = ""
        """The last failure, without personal data."""

    @property
    def open(self) -> bool:
        return self.failures >= self._max_failures

    def allows(self, now: float, latest: float | None) -> bool:
        """Whether an attempt may start now. `latest`: when the latest running one started, `None` if none runs."""
        return not self.open or (now >= self.retry_at and (latest is None or latest < self.retry_at))

    def failed(self, now: float, started_at: float, error: str, longest_s: float) -> None:
        """Counts the failure of an attempt that started at `started_at`."""
        self.error = error
        if self.open and started_at < self.retry_at:
            return  # it was running when the circuit opened, so its failure is no news
        self.failures += 1
        if self.open:
            self.retry_at = now + pause_s(self.failures - self._max_failures + 1, self._first_s, longest_s, self._seed)

    def succeeded(self, now: float) -> bool:
        """Closes it. Returns whether it was open."""
        was_open = self.open
        self.failures, self.succeeded_at, self.error = 0, now, ""
        return was_open
