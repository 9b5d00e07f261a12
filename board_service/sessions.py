"""Sessions of customers near the fraud limit, from the changelog of the fraud validator. Pure, bounded in memory."""

import heapq
from collections.abc import Mapping
from typing import Any

from board_service.traces import milliseconds

CHANGELOG = "fraud-customers-changelog"
MOST_CUSTOMERS = 20_000
SHOWN = 12
NEAR = 0.6
"""Part of the limit from which a session is shown."""


class Sessions:
    """The newest session of each customer.

    Arguments:
        limit: total at which orders fail.
        gap_s: seconds without an order that end a session.
    """

    def __init__(self, limit: float, gap_s: float) -> None:
        self.changes = 0
        self._limit = limit
        self._gap_ms = int(gap_s * 1000)
        self._rows: dict[str, tuple[float, int, int]] = {}

    def put(self, customer: str, row: Mapping[str, Any] | None) -> None:
        """Takes the sessions of a customer; no row: the customer is forgotten."""
        self.changes += 1
        self._rows.pop(customer, None)
        sessions = (row or {}).get("sessions") or ()
        if not sessions:
            return
        newest = sessions[-1]
        start, end = (milliseconds(newest.get(name), 0) for name in ("start", "end"))
        self._rows[customer] = (float(newest.get("total") or 0), start, end)
        if len(self._rows) > MOST_CUSTOMERS:
            del self._rows[next(iter(self._rows))]

    def snapshot(self, now_ms: int) -> dict[str, Any]:
        """Open sessions from `NEAR` of the limit on, the highest first, and how many there are."""
        oldest = now_ms - self._gap_ms
        near = [
            (total, customer, start, end)
            for customer, (total, start, end) in self._rows.items()
            if total >= self._limit * NEAR and end >= oldest
        ]
        highest = heapq.nlargest(SHOWN, near)
        return {
            "limit": self._limit,
            "gap": self._gap_ms / 1000,
            "near": len(near),
            "rows": [
                {"customer": customer, "total": total, "start": start, "end": end}
                for total, customer, start, end in highest
            ],
        }
