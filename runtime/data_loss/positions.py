"""Positions against what the broker still has: where to read on, and which range is gone. Pure."""

from typing import NamedTuple

from runtime.data_loss.losses import Cause


class Gone(NamedTuple):
    """A range of offsets, `end` not included, that the broker no longer has. With `end` at `first`, nobody knows how
    far it went."""

    first: int
    end: int
    cause: Cause


class Position(NamedTuple):
    """The next offset to read, and what is passed over by going on there."""

    offset: int
    gone: Gone | None = None


def of_input(
    committed: int | None, start: int, end: int, *, anew: bool = False, decided_before: bool = False
) -> Position:
    """Where to read on in an input.

    Arguments:
        committed: the next offset as the group committed it; `None` for never, or no longer.
        start: of the log, as it is now.
        end: of the log, as it is now.
        anew: it is another log than the one that the group has read.
        decided_before: the group has state, so that it once had committed something.
    """
    if anew:
        return Position(start, Gone(0, committed or 0, Cause.RECREATED))
    if committed is None:
        # A group that has never read the topic misses nothing that was removed before it came.
        return Position(start, Gone(0, start, Cause.OFFSETS_GONE) if decided_before and start else None)
    if committed < start:
        return Position(start, Gone(committed, start, Cause.REMOVED))
    if committed > end:
        # Made anew, nothing of it was read; truncated, all of it was. Decided twice is better than never.
        return Position(start, Gone(end, committed, Cause.CUT_OFF))
    return Position(committed)


def of_store(applied: int | None, start: int, end: int, *, anew: bool = False) -> tuple[Position, bool]:
    """Where to read on in the changelog of a store, and whether the store is of this changelog, or is to be cleared.

    Changelogs are compacted, which moves no start: what lies before it was removed by somebody, rows that were never
    written again among it.

    Arguments:
        applied: the offset of the last record in the store; `None` for an empty one.
        start: of the changelog, as it is now.
        end: of the changelog, as it is now.
        anew: it is another log than the one that held the state.
    """
    if anew:
        return Position(start, Gone(0, 0 if applied is None else applied + 1, Cause.RECREATED)), applied is None
    if applied is not None and applied >= end:
        return Position(start, Gone(end, applied + 1, Cause.CUT_OFF)), False
    if applied is not None and applied >= start - 1:
        return Position(applied + 1), True
    return Position(start, Gone(0, start, Cause.REMOVED) if start else None), applied is None
