"""How far the history may be behind the topics."""

from typing import Any, NamedTuple

from sqlalchemy import case, extract, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service.models import OFFSETS

CHECKED_S = 5.0
"""Seconds within which a running sink checks each partition: it does so every two, and a batch may take longer."""


class SinkProgress(NamedTuple):
    """What the offsets of the sink say.

    Arguments:
        partitions: number of partitions that were ever read.
        behind_s: of those with records that are not stored, seconds since the last stored one was produced, at most.
        unknown: partitions with records that are not stored, and none that is.
        silent_s: seconds since a partition was checked, at most.
    """

    partitions: int
    behind_s: float | None
    unknown: int
    silent_s: float | None


def lag_s(progress: SinkProgress) -> float | None:
    """Seconds by which the history may be behind; 0 if no record is known that is not stored; `None` if unknown.

    The oldest record that is not stored is younger than the last stored one of its partition, and younger than the
    last check of a partition without such records.

    >>> lag_s(SinkProgress(4, None, 0, 0.8)), lag_s(SinkProgress(4, 12.5, 0, 0.8)), lag_s(SinkProgress(4, None, 0, 90))
    (0.0, 12.5, 90)
    """
    if not progress.partitions or progress.unknown:
        return None
    silent = progress.silent_s or 0.0
    return max(progress.behind_s or 0.0, silent if silent > CHECKED_S else 0.0)


async def read_lag_s(connection: AsyncConnection) -> float | None:
    """Reads the lag from the database."""
    return lag_s(progress_of((await connection.execute(_PROGRESS)).one()))


def progress_of(row: Any) -> SinkProgress:
    """What a row of `_PROGRESS` says."""
    behind, silent = (None if s is None else max(float(s), 0.0) for s in (row.behind_s, row.silent_s))
    return SinkProgress(row.partitions, behind, row.unknown, silent)


_BEHIND = OFFSETS.c.next_offset < OFFSETS.c.end_offset
_NOW = func.statement_timestamp()
_PROGRESS = select(
    func.count().label("partitions"),
    func.max(extract("epoch", _NOW - case((_BEHIND, OFFSETS.c.last_produced_at)))).label("behind_s"),
    func.count().filter(_BEHIND, OFFSETS.c.last_produced_at.is_(None)).label("unknown"),
    func.max(extract("epoch", _NOW - OFFSETS.c.checked_at)).label("silent_s"),
)
