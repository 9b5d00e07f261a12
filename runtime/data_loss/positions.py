"""Compares positions with the logs of the broker: the next offset to read, and the lost range before it. Pure."""

from typing import NamedTuple

from runtime.data_loss.losses import LossCause


class LostRange(NamedTuple):
    """A range of offsets, `end` not included, that the broker no longer has. `end` equal to `first`: unknown end."""

    first: int
    end: int
    cause: LossCause


class Position(NamedTuple):
    """The next offset to read, and the range that is skipped by continuing there."""

    offset: int
    lost: LostRange | None = None


def input_position(
    committed: int | None, start: int, end: int, *, recreated: bool = False, has_state: bool = False
) -> Position:
    """The next offset to read in an input.

    Arguments:
        committed: the next offset as the group committed it; `None` for never, or no longer.
        start: log start offset.
        end: log end offset.
        recreated: whether the group has read another log of this name.
        has_state: whether the group has state, hence has committed offsets before.
    """
    if recreated:
        return Position(start, LostRange(0, committed or 0, LossCause.RECREATED))
    if committed is None:
        # For a group that never read the topic, earlier removals are no loss.
        return Position(start, LostRange(0, start, LossCause.OFFSETS_GONE) if has_state and start else None)
    if committed < start:
        return Position(start, LostRange(committed, start, LossCause.REMOVED))
    if committed > end:
        # If it was recreated, none of its records have been read; if truncated, all. Twice is better than never.
        return Position(start, LostRange(end, committed, LossCause.CUT_OFF))
    return Position(committed)


def changelog_position(applied: int | None, start: int, end: int, *, recreated: bool = False) -> tuple[Position, bool]:
    """The next offset to read in the changelog of a store, and whether the store belongs to this changelog.

    Compaction does not move the log start offset: records before it were deleted, among them current rows.

    Arguments:
        applied: the offset of the last record in the store; `None` for an empty one.
        start: log start offset of the changelog.
        end: log end offset of the changelog.
        recreated: whether the store belongs to another changelog of this name.
    """
    if recreated:
        return Position(
            start, LostRange(0, 0 if applied is None else applied + 1, LossCause.RECREATED)
        ), applied is None
    if applied is not None and applied >= end:
        return Position(start, LostRange(end, applied + 1, LossCause.CUT_OFF)), False
    if applied is not None and applied >= start - 1:
        return Position(applied + 1), True
    return Position(start, LostRange(0, start, LossCause.REMOVED) if start else None), applied is None
