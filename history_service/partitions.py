"""Monthly partitions of `records`: names, bounds, and which to make and to drop. Pure."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

AHEAD = 2
"""Months that are made before they begin: a job that fails for weeks delays nothing."""
FURTHEST_BACK = 60
"""Months before the current one for which partitions are made. Older records stay in `records_default`, so that wrong
timestamps make no hundreds of partitions."""

_NAME = re.compile(r"records_(\d{4})_(\d{2})")


class Month(NamedTuple):
    """A month, in UTC.

    >>> november = Month.of(datetime(2026, 11, 29, tzinfo=UTC))
    >>> november.partition, november.plus(2), november.plus(-11)
    ('records_2026_11', Month(year=2027, month=1), Month(year=2025, month=12))
    >>> november.start.isoformat()
    '2026-11-01T00:00:00+00:00'
    """

    year: int
    month: int

    @classmethod
    def of(cls, at: datetime) -> "Month":
        """The month of a time."""
        at = at.astimezone(UTC)
        return cls(at.year, at.month)

    @classmethod
    def of_partition(cls, name: str) -> "Month | None":
        """The month of a partition; `None` for `records_default`."""
        found = _NAME.fullmatch(name)
        return cls(int(found[1]), int(found[2])) if found else None

    @property
    def partition(self) -> str:
        """Name of its partition."""
        return f"records_{self.year:04}_{self.month:02}"

    @property
    def start(self) -> datetime:
        """When it begins."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    def plus(self, months: int) -> "Month":
        """The month so many months later."""
        number = self.year * 12 + self.month - 1 + months
        return Month(number // 12, number % 12 + 1)


@dataclass(frozen=True, slots=True)
class Window:
    """The months that have partitions.

    Arguments:
        now: the time.
        retention: months that are kept besides the current one; 0 for all.
    """

    now: datetime
    retention: int

    @property
    def cutoff(self) -> Month | None:
        """The first month that is kept; `None` if all are."""
        return Month.of(self.now).plus(-self.retention) if self.retention else None

    @property
    def ahead(self) -> list[Month]:
        """The current month, and those that are made before they begin."""
        return [Month.of(self.now).plus(months) for months in range(AHEAD + 1)]

    def partitioned(self, months: Iterable[Month]) -> set[Month]:
        """Those of some months that get a partition of their own."""
        current = Month.of(self.now)
        first = max(current.plus(-FURTHEST_BACK), self.cutoff or current.plus(-FURTHEST_BACK))
        return {month for month in months if first <= month <= current.plus(AHEAD)}

    def expired(self, partitions: Collection[str]) -> list[str]:
        """Those of some partitions whose month is not kept any more.

        >>> Window(datetime(2026, 11, 29, tzinfo=UTC), 1).expired(["records_2026_09", "records_2026_10"])
        ['records_2026_09']
        """
        cutoff = self.cutoff
        months = [(month, name) for name in partitions if (month := Month.of_partition(name)) is not None]
        return [name for month, name in sorted(months) if cutoff is not None and month < cutoff]
