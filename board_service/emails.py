"""What became of the e-mails about an order, from the changelog of the email service's side effects. Pure.

A row of it is an e-mail that waits; its tombstone says that the mail server has accepted the e-mail, or that it was
dead-lettered. The dead letter is in the same transaction, and may be read before the tombstone or after it.
"""

from typing import Any, NamedTuple

from board_service.traces import Trace
from runtime.model.service import EFFECTS_CHANGELOG
from schemas.messages import ATTEMPT_SEPARATOR
from schemas.topics import DEAD_LETTERS

CHANGELOG = "email" + EFFECTS_CHANGELOG
REJECTED = "email-effects" + DEAD_LETTERS
SENT_STAGE, REJECTED_STAGE = "EMAIL_SENT", "EMAIL_REJECTED"
_SAME_MS = 1000
"""Milliseconds between the tombstone and the dead letter of one e-mail, at most."""


class EmailKey(NamedTuple):
    """Which e-mail about an order: of what state, in small letters, and of which attempt if not of the first."""

    kind: str
    attempt: str | None

    @property
    def details(self) -> dict[str, str]:
        """Fields of the event on the timeline."""
        return {"email": self.kind} | ({} if self.attempt is None else {"attempt": self.attempt})


def parse(key: bytes | None) -> tuple[str, EmailKey]:
    """The order and the e-mail of a row. Raises `ValueError`.

    >>> parse(b"a/b/shipped")
    ('a/b', EmailKey(kind='shipped', attempt=None))
    """
    order_id, separator, rest = (key or b"").decode().rpartition("/")
    if not separator:
        raise ValueError("no key of an e-mail")
    kind, _, attempt = rest.partition(ATTEMPT_SEPARATOR)
    return order_id, EmailKey(kind, attempt or None)


def sent(trace: Trace, email: EmailKey, at_ms: int) -> bool:
    """Adds that an e-mail was sent, unless it was rejected at that time. Returns whether it was added."""
    if _find(trace, REJECTED_STAGE, email, at_ms) is not None:
        return False
    trace.add(SENT_STAGE, at_ms, **email.details)
    return True


def rejected(trace: Trace, email: EmailKey, at_ms: int, reason: str) -> None:
    """Adds that an e-mail was dead-lettered. Replaces the event `EMAIL_SENT` of the same e-mail, if there is one."""
    event = _find(trace, SENT_STAGE, email, at_ms)
    if event is not None:
        event.update(stage=REJECTED_STAGE, reason=reason)
    else:
        trace.add(REJECTED_STAGE, at_ms, **email.details, reason=reason)


def _find(trace: Trace, stage: str, email: EmailKey, at_ms: int) -> dict[str, Any] | None:
    events = (event for event in reversed(trace.events) if event["stage"] == stage)
    same = (event for event in events if (event["email"], event.get("attempt")) == email)
    return next((event for event in same if abs(event["at"] - at_ms) <= _SAME_MS), None)
