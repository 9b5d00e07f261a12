"""Writes rows of the history, in bulk."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from history_service.projection import COLUMNS, COUNTING, RECORD_COLUMNS, TIMES, WORD_COLUMNS, OrderChange, Rows
from runtime.model.sink import BulkWriter

_TYPES = {
    "attempt": "integer",
    "state_rank": "smallint",
    "state_log": "integer",
    "state_offset": "bigint",
    "state": "text",
    "customer_id": "bigint",
    "product": "text",
    "quantity": "bigint",
    "price": "numeric",
    "value": "numeric",
    **dict.fromkeys(("created_at", "updated_at", *TIMES), "timestamptz"),
}
_LISTS = ("reasons", "failed_checks")
"""Columns of lists. `unnest` would flatten a list of lists, so that they are passed as rows of a JSON array."""


def _upsert_orders() -> str:
    """The statement that merges changes into `orders` by the rules of `OrderChange.merge`."""
    names = ("id", *COLUMNS)
    types = ("text", *("jsonb" if name in _LISTS else _TYPES[name] for name in COLUMNS))
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, 1))
    values = ", ".join(
        f"CASE WHEN jsonb_typeof({name}) = 'array' THEN ARRAY(SELECT jsonb_array_elements_text({name})) END"
        if name in _LISTS
        else name
        for name in names
    )
    counts = """(
            orders.state_rank IS NULL OR excluded.state_rank IS NOT NULL AND
            (excluded.attempt, excluded.state_rank, excluded.state_log, -excluded.state_offset)
            > (orders.attempt, orders.state_rank, orders.state_log, -orders.state_offset)
        )"""
    counting = [f"{name} = CASE WHEN {counts} THEN excluded.{name} ELSE orders.{name} END" for name in COUNTING]
    times = [f"{name} = LEAST(orders.{name}, excluded.{name})" for name in TIMES]
    checks = """failed_checks = CASE
            WHEN excluded.failed_checks IS NULL OR excluded.failed_checks <@ orders.failed_checks
            THEN orders.failed_checks
            ELSE ARRAY(
                SELECT DISTINCT name COLLATE "C" FROM unnest(orders.failed_checks || excluded.failed_checks) AS name
                ORDER BY 1) END"""
    merged = ",\n        ".join(
        [*counting, "updated_at = GREATEST(orders.updated_at, excluded.updated_at)", checks, *times]
    )
    # Only names from this module are filled in.
    return f"""
    INSERT INTO orders ({", ".join(names)})
    SELECT {values} FROM unnest({arrays}) AS change ({", ".join(names)})
    ON CONFLICT (id) DO UPDATE SET
        {merged}
    """  # noqa: S608


_UPSERT_ORDERS = _upsert_orders()


async def write(writer: BulkWriter, slices: Sequence[Rows]) -> None:
    """Writes rows in a transaction. Orders are sorted, so that two workers lock them in the same order."""
    await writer.copy("records", RECORD_COLUMNS, chain.from_iterable(rows.records for rows in slices))
    changes = sorted(_merged(slices).items())
    if not changes:
        return
    ids = [order_id for order_id, _ in changes]
    columns: Iterable[Sequence[Any]] = zip(*(change.columns for _, change in changes), strict=True)
    arrays = [
        [None if value is None else json.dumps(value) for value in column] if name in _LISTS else column
        for name, column in zip(COLUMNS, columns, strict=True)
    ]
    await writer.execute(_UPSERT_ORDERS, ids, *arrays)
    await writer.copy("order_words", WORD_COLUMNS, chain.from_iterable(rows.words for rows in slices))


def _merged(slices: Sequence[Rows]) -> Mapping[str, OrderChange]:
    merged: dict[str, OrderChange] = {}
    for rows in slices:
        for order_id, change in rows.changes.items():
            known = merged.setdefault(order_id, change)
            if known is not change:
                known.merge(change)  # changes a row of a slice; a repeated merge changes nothing more
    return merged
