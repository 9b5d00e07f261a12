"""Named steps of commits and rebalances at which tests let a worker crash or fall silent.

`FAIL_POINTS=commit.sent=crash@3,rebalance.restored=pause(9)` crashes the worker when it passes `commit.sent` for the
third time, and keeps it silent for nine seconds when it first passes `rebalance.restored`. Without triggers a step
costs a look at an empty dictionary.
"""

import logging
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

log = logging.getLogger(__name__)

POINTS = {
    "batch.processed": "a batch is processed, nothing of it is sent",
    "commit.begun": "its transaction is begun, at the producer only",
    "commit.partitions": "the transaction coordinator knows the partitions of the transaction",
    "commit.sent": "every record of it is acknowledged",
    "commit.group": "the transaction coordinator knows that offsets follow",
    "commit.offsets": "the offsets are acknowledged, the commit request follows",
    "commit.ended": "the coordinator has decided the transaction, the producer has not handled its answer",
    "commit.done": "the batch is committed, nothing of it is applied to the state",
    "commit.redo": "at least once: the redo records are acknowledged, nothing else is sent",
    "commit.written": "at least once: rows and output records are acknowledged, the redo records are not cleared",
    "commit.cleared": "at least once: no batch has followed for a moment, the redo records are cleared",
    "apply.store": "one store has the batch, the next one may not",
    "apply.done": "every store has the batch, the requests that wait for it are not woken",
    "outbox.read": "messages are read from the outbox, none is sent",
    "outbox.sent": "they are acknowledged by Kafka, not marked in the database",
    "outbox.marked": "they are marked, and that is committed",
    "sink.written": "a sink has written the rows of a batch and its offsets, the transaction is open",
    "sink.committed": "the transaction of a sink is committed, the sink does not know its new offsets yet",
    "import.sent": "messages of an import and the position after them are acknowledged, the transaction is open",
    "import.committed": "the transaction of an import is committed, its source does not know",
    "rebalance.revoking": "partitions are being revoked, a batch may be in progress",
    "rebalance.revoked": "partitions are no longer owned, the group does not know",
    "rebalance.assigned": "partitions are assigned, nothing is restored",
    "rebalance.offsets": "their committed offsets are read",
    "rebalance.opened": "their stores are open, as they were left",
    "rebalance.restored": "their stores are at the end of their changelogs",
    "rebalance.redone": "redo records that a crash left are redone and cleared",
    "rebalance.backlog": "the log end offsets of their inputs are read",
    "rebalance.owned": "they are owned, nothing is polled yet",
}
"""What is true at each step."""

_TRIGGER = re.compile(r"(?P<point>[\w.]+)=(?P<action>crash|pause\((?P<seconds>\d+(\.\d+)?)\))(@(?P<passing>[1-9]\d*))?")


@dataclass(frozen=True, slots=True)
class Trigger:
    """An action at the n-th `passing` of a step: silence for `pause_s` seconds, or a crash if that is `None`."""

    point: str
    pause_s: float | None
    passing: int


def parse(text: str) -> tuple[Trigger, ...]:
    """Triggers from `point=action@n`, comma separated. Raises `ValueError` that names what is wrong."""
    return tuple(_trigger(part.strip()) for part in text.split(",") if part.strip())


def _trigger(text: str) -> Trigger:
    match = _TRIGGER.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no fail point: write point=crash or point=pause(seconds), and @n for the n-th time"
        )
    if match["point"] not in POINTS:
        raise ValueError(f"unknown fail point {match['point']!r}; there are {', '.join(POINTS)}")
    return Trigger(match["point"], float(match["seconds"]) if match["seconds"] else None, int(match["passing"] or 1))


_armed: dict[str, tuple[Trigger, ...]] = {}
_passed: Counter[str] = Counter()


def arm(triggers: Iterable[Trigger]) -> None:
    """Replaces all triggers of this process, and counts passings from now on."""
    by_point: dict[str, tuple[Trigger, ...]] = {}
    for trigger in triggers:
        by_point[trigger.point] = (*by_point.get(trigger.point, ()), trigger)
    _armed.clear()
    _passed.clear()
    _armed.update(by_point)


def reach(point: str) -> None:
    """Called at a step."""
    if _armed and point in _armed:
        _passed[point] += 1
        for trigger in _armed[point]:
            if trigger.passing == _passed[point]:
                _pull(trigger)


def _pull(trigger: Trigger) -> None:
    log.warning(
        "fail point reached point=%s passing=%d pause_s=%s", trigger.point, trigger.passing, trigger.pause_s or "crash"
    )
    if trigger.pause_s is None:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        time.sleep(trigger.pause_s)  # the thread of the loop, of heartbeats and of HTTP: as silent as under SIGSTOP
        log.warning("fail point passed point=%s pause_s=%g", trigger.point, trigger.pause_s)
