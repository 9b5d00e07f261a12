"""Session windows: what a customer orders in one go, by the orders' own time, in whatever order they arrive."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from pydantic import AwareDatetime

from schemas.wire import Message


class Session(Message):
    """Time of the first and the last order of a session, and what its orders are worth together."""

    start: AwareDatetime
    end: AwareDatetime
    total: Decimal


def join(sessions: Sequence[Session], at: datetime, value: Decimal, gap: timedelta) -> tuple[Session, list[Session]]:
    """Adds an event to the session it falls into, as Kafka Streams' session windows do.

    An event up to `gap` (inclusive) before or after a session belongs to it; one between two joins both into one.

    Returns:
        The session that now holds the event, and all of them by time.
    """
    near: list[Session] = []
    apart: list[Session] = []
    for session in sessions:
        # Differences, not sums: a time near the ends of the calendar must not overflow.
        (near if at - session.end <= gap and session.start - at <= gap else apart).append(session)
    joined = Session(
        start=min([at, *(s.start for s in near)]),
        end=max([at, *(s.end for s in near)]),
        total=sum((s.total for s in near), value),
    )
    return joined, sorted([*apart, joined], key=lambda s: s.start)
