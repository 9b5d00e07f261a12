"""Compares positions with what the broker has: the next offset to read, and the range that is gone. Pure."""

from typing import NamedTuple

from runtime.data_loss.losses import LossCause


class LostRange(NamedTuple):
    """A range of offsets, `end` not included, that the broker no longer has. With `end` at `first` its end is
    unknown."""

    first: int
    end: int
    cause: LossCause


class Position(NamedTuple):
    """The next offset to read, and the range that is skipped by continuing there."""

    offset: int
    gone: LostRange | None = None


def of_input(
    committed: int | None, start: int, end: int, *, anew: bool = False, decided_before: bool = False
) -> Position:
    """The next offset to read in an input.

    Arguments:
        committed: the next offset as the group committed it; `None` for never, or no longer.
        start: of the log, as it is now.
        end: of the log, as it is now.
        anew: it is another log than the one that the group has read.
        decided_before: the group has state, so that it once had committed something.
    """
    if anew:
        return Position(start, LostRange(0, committed or 0, LossCause.RECREATED))
    if committed is None:
        # A group that never read the topic has lost nothing that was removed before.
        return Position(start, LostRange(0, start, LossCause.OFFSETS_GONE) if decided_before and start else None)
    if committed < start:
        return Position(start, LostRange(committed, start, LossCause.REMOVED))
    if committed > end:
        # Recreated: nothing of it was read. Truncated: all of it was. Twice is better than never.
        return Position(start, LostRange(end, committed, LossCause.CUT_OFF))
    return Position(committed)


def of_store(applied: int | None, start: int, end: int, *, anew: bool = False) -> tuple[Position, bool]:
    """The next offset to read in the changelog of a store, and whether the store belongs to this changelog.

    Changelogs are compacted, which moves no start: what lies before it was removed by somebody, rows that were never
    written again among it.

    Arguments:
        applied: the offset of the last record in the store; `None` for an empty one.
        start: of the changelog, as it is now.
        end: of the changelog, as it is now.
        anew: it is another log than the one that held the state.
    """
    if anew:
        return Position(
            start, LostRange(0, 0 if applied is None else applied + 1, LossCause.RECREATED)
        ), applied is None
    if applied is not None and applied >= end:
        return Position(start, LostRange(end, applied + 1, LossCause.CUT_OFF)), False
    if applied is not None and applied >= start - 1:
        return Position(applied + 1), True
    return Position(start, LostRange(0, start, LossCause.REMOVED) if start else None), applied is None
