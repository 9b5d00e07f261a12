"""Where a sink reads on in a partition: by what the database says and what the broker still has. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from runtime.data_loss.positions import LostRange, input_position
from runtime.model.log_ids import logs_differ


@dataclass(frozen=True, slots=True)
class LogState:
    """A partition of a topic as the broker has it.

    Arguments:
        log_id: id of the topic (`runtime/model/log_ids.py`); empty with a broker that has none.
        start: log start offset.
        end: last stable offset: the end for committed readers.
    """

    log_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """A partition as the database has it.

    Arguments:
        log: number of the log.
        log_id: its id.
        next_offset: the next offset to read in it.
    """

    log: int
    log_id: str
    next_offset: int


class SinkPosition(NamedTuple):
    """The next offset to read, in a log."""

    log: int
    next_offset: int


class LogChange(Enum):
    """Whether the offsets of a partition begin again, so that its records belong to another log."""

    NONE = "none"
    FIRST = "first"
    """The partition was never read."""
    RECREATED = "recreated"
    """The topic is another one of the same name."""
    CUT = "cut"
    """The log ends before the position: its later records will have offsets that were used before."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where to read on, and the range of records that is skipped by that."""

    change: LogChange
    next_offset: int
    lost: LostRange | None = None


def place(stored: StoredPosition | None, now: LogState) -> Placement:
    """Decides where to read on.

    >>> log = LogState("cluster/a", start=5, end=20)
    >>> place(None, log)
    Placement(change=<LogChange.FIRST: 'first'>, next_offset=5, lost=None)
    >>> place(StoredPosition(1, "cluster/a", 12), log)
    Placement(change=<LogChange.NONE: 'none'>, next_offset=12, lost=None)
    >>> place(StoredPosition(1, "cluster/b", 12), log).change
    <LogChange.RECREATED: 'recreated'>
    >>> place(StoredPosition(1, "cluster/a", 21), log).change
    <LogChange.CUT: 'cut'>
    >>> place(StoredPosition(1, "cluster/a", 3), log).lost.end
    5
    """
    if stored is None:
        return Placement(LogChange.FIRST, now.start)
    recreated = logs_differ(stored.log_id, now.log_id)
    position = input_position(stored.next_offset, now.start, now.end, recreated=recreated)
    if recreated:
        change = LogChange.RECREATED
    else:
        change = LogChange.CUT if stored.next_offset > now.end else LogChange.NONE
    return Placement(change, position.offset, position.lost)
