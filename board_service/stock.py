"""Stock with reservations, by product, from the changelog of the inventory validator. Pure, and bounded in memory."""

from collections.abc import Mapping
from typing import Any

CHANGELOG = "inventory-stock-changelog"
MOST_PRODUCTS = 5000
SHOWN = 60


class StockLevels:
    """The latest stock of each product."""

    def __init__(self) -> None:
        self.changes = 0
        self._rows: dict[str, tuple[int | None, int]] = {}

    def put(self, product: str, row: Mapping[str, Any] | None) -> None:
        """Takes a row: `count` pieces in the warehouse, `reserved` of them; no row: the product is no longer kept."""
        self.changes += 1
        self._rows.pop(product, None)  # so that the latest change is the last one
        if row is None:
            return
        count = row.get("count")
        self._rows[product] = (None if count is None else int(count), int(row.get("reserved") or 0))
        if len(self._rows) > MOST_PRODUCTS:
            del self._rows[next(iter(self._rows))]

    def snapshot(self) -> dict[str, Any]:
        """The products with the least available pieces first, and how many there are."""
        rows = [
            {"product": product, "count": count, "reserved": reserved, "available": max((count or 0) - reserved, 0)}
            for product, (count, reserved) in self._rows.items()
        ]
        rows.sort(key=lambda row: (row["count"] is None, row["available"], str(row["product"])))
        return {"products": len(rows), "rows": rows[:SHOWN]}
