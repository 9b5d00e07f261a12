"""What became of the e-mails about an order, from the changelog of the email service's side effects. Pure.

A row of it is an e-mail that waits; its tombstone says that the mail server has accepted the e-mail, or that it was
dead-lettered. The dead letter is in the same transaction, and may be read before the tombstone or after it.
"""

from typing import Any

from board_service.traces import Trace
from runtime.model.service import EFFECTS_CHANGELOG
from schemas.messages import ATTEMPT_SEPARATOR
from schemas.topics import DEAD_LETTERS

CHANGELOG = "email" + EFFECTS_CHANGELOG
REJECTED = "email-effects" + DEAD_LETTERS
SENT_STAGE, REJECTED_STAGE = "EMAIL_SENT", "EMAIL_REJECTED"
_SAME_MS = 1000
"""Milliseconds between the tombstone and the dead letter of one e-mail, at most."""


def parse(key: bytes | None) -> tuple[str, str]:
    """The order, and what the e-mail is about: a state in small letters. Raises `ValueError`.

    >>> parse(b"a/b/shipped")
    ('a/b', 'shipped')
    """
    order_id, separator, kind = (key or b"").decode().rpartition("/")
    if not separator:
        raise ValueError("no key of an e-mail")
    return order_id, kind.partition(ATTEMPT_SEPARATOR)[0]


def sent(trace: Trace, kind: str, at_ms: int) -> bool:
    """Adds that an e-mail has left the queue, unless it is known as rejected. Returns whether it is new."""
    if _find(trace, REJECTED_STAGE, kind, at_ms) is not None:
        return False
    trace.add(SENT_STAGE, at_ms, email=kind)
    return True


def rejected(trace: Trace, kind: str, at_ms: int, reason: str) -> None:
    """Adds that an e-mail was dead-lettered; what was taken for sent is replaced."""
    event = _find(trace, SENT_STAGE, kind, at_ms)
    if event is not None:
        event.update(stage=REJECTED_STAGE, reason=reason)
    else:
        trace.add(REJECTED_STAGE, at_ms, email=kind, reason=reason)


def drop_rejected(trace: Trace) -> None:
    """Drops what was taken for sent, and was rejected: of an order of which both were read before it."""
    sent_ = [event for event in trace.events if event["stage"] == SENT_STAGE]
    for event in sent_:
        if _find(trace, REJECTED_STAGE, event["email"], event["at"]) is not None:
            trace.events.remove(event)


def _find(trace: Trace, stage: str, kind: str, at_ms: int) -> dict[str, Any] | None:
    events = (e for e in reversed(trace.events) if e["stage"] == stage and e["email"] == kind)
    return next((event for event in events if abs(event["at"] - at_ms) <= _SAME_MS), None)
