"""Session windows in event time, independent of the order of arrival."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from pydantic import AwareDatetime

from schemas.wire import Message


class Session(Message):
    """First and last event time of a session, and its total value."""

    start: AwareDatetime
    end: AwareDatetime
    total: Decimal


def add_to_session(
    sessions: Sequence[Session], at: datetime, value: Decimal, gap: timedelta
) -> tuple[Session, list[Session]]:
    """Adds an event to its session, with the semantics of Kafka Streams' session windows.

    An event up to `gap` (inclusive) before or after a session belongs to it; an event between two sessions merges them.

    Returns:
        The session of the event, and all sessions by time.
    """
    start = end = at
    others: list[Session] = []
    for session in sessions:
        # Differences, not sums: a time near the limits of `datetime` must not overflow.
        if at - session.end <= gap and session.start - at <= gap:
            start, end, value = min(start, session.start), max(end, session.end), value + session.total
        else:
            others.append(session)
    merged = Session(start=start, end=end, total=value)
    return merged, sorted([*others, merged], key=lambda s: s.start)
