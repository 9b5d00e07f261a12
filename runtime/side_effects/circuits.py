"""Circuit breakers of side effects, and pauses between attempts. Pure: time is an argument."""

from zlib import crc32


def pause_s(failures: int, first_s: float, longest_s: float, salt: str) -> float:
    """Seconds until the next attempt after so many failures: doubled with each, less up to half of it.

    The jitter follows from `salt`, so that two runs of a simulation are equal and two keys are apart.
    """
    whole = min(longest_s, first_s * 2.0 ** min(failures - 1, 60))
    return whole * (1 - crc32(f"{salt} {failures}".encode()) / 2**33)


class Circuit:
    """Lets attempts through until several in a row have failed; then one at a time, after longer and longer pauses.

    Arguments:
        most: failures in a row that open it.
        first_s: seconds, the shortest pause.
        salt: tells it from others.
    """

    def __init__(self, most: int, first_s: float, salt: str) -> None:
        self._most = most
        self._first_s = first_s
        self._salt = salt
        self.failures = 0
        """In a row."""
        self.retry_at = 0.0
        """While it is open: when the next attempt may begin."""
        self.succeeded_at = float("-inf")
        self.error = ""
        """The last failure, without personal data."""

    @property
    def open(self) -> bool:
        return self.failures >= self._most

    def allows(self, now: float, begun: float | None) -> bool:
        """Whether an attempt may begin now, the last of those under way having begun at `begun`."""
        return not self.open or (now >= self.retry_at and (begun is None or begun < self.retry_at))

    def failed(self, now: float, begun: float, error: str, longest_s: float) -> None:
        """Counts a failure of an attempt that began at `begun`."""
        self.error = error
        if self.open and begun < self.retry_at:
            return  # of those that were under way as it opened: they say nothing new
        self.failures += 1
        if self.open:
            self.retry_at = now + pause_s(self.failures - self._most + 1, self._first_s, longest_s, self._salt)

    def succeeded(self, now: float) -> bool:
        """Closes it. Returns whether it was open."""
        was_open = self.open
        self.failures, self.succeeded_at, self.error = 0, now, ""
        return was_open
