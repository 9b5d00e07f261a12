"""Dead letters by topic, service and kind of cause, with the command that redrives them. Pure, bounded in memory."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from board_service.traces import shortened
from runtime.model.causes import kind_of_cause
from runtime.model.dead_letters import REASON_HEADERS
from runtime.model.records import Header
from schemas.topics import DEAD_LETTERS

REDRIVE_NOTES = "dead-letters-redriven"
"""Topic with a note for each dead letter that was redriven, by topic, partition and offset."""
MOST = 5000
"""Dead letters that are kept."""
SHOWN = 20
_WORDS = 60
"""Characters of the cause in a command, at most."""


class DeadLetters:
    """Dead letters that nobody has redriven."""

    def __init__(self) -> None:
        self.changes = 0
        self._letters: dict[str, tuple[str, str, str, int]] = {}
        self._redriven: dict[str, None] = {}

    def put(self, topic: str, position: tuple[int, int], at_ms: int, headers: Sequence[Header]) -> str | None:
        """Takes a dead letter of `<topic>.dead-letters`. Returns its cause; `None`: a record of another producer."""
        reason = tuple(headers)[-len(REASON_HEADERS) :]
        if tuple(name for name, _ in reason) != REASON_HEADERS:
            return None
        service, error = ((value or b"").decode(errors="replace") for _, value in reason[:2])
        name = f"{topic}/{position[0]}/{position[1]}"
        if name not in self._redriven:
            self.changes += 1
            self._letters[name] = (topic.removesuffix(DEAD_LETTERS), service, error, at_ms)
            _trim(self._letters)
        return error

    def redriven(self, name: str) -> None:
        """Takes the note that a dead letter was redriven."""
        self._redriven[name] = None
        _trim(self._redriven)
        if self._letters.pop(name, None) is not None:
            self.changes += 1

    def snapshot(self) -> dict[str, Any]:
        """The kinds, the newest first."""
        groups: dict[tuple[str, str, str], dict[str, Any]] = {}
        for topic, service, error, at_ms in self._letters.values():
            kind = kind_of_cause(error)
            group = groups.setdefault(
                (topic, service, kind), {"topic": topic, "service": service, "count": 0, "last": 0, "cause": ""}
            )
            group["count"] += 1
            if at_ms >= group["last"]:
                group["last"], group["cause"] = at_ms, shortened(error)
                group["kind"] = kind
        for group in groups.values():
            kind = group.pop("kind")
            others = [k for topic, _, k in groups if topic == group["topic"] and k != kind]
            group["command"] = redrive_command(group["topic"], group["service"], kind, others)
        rows = sorted(groups.values(), key=lambda group: -group["last"])
        return {"total": len(self._letters), "kinds": len(rows), "rows": rows[:SHOWN]}


def redrive_command(topic: str, service: str, kind: str, others: Iterable[str] = ()) -> str:
    """The command that shows what a redrive of these dead letters would write.

    It selects by the longest part of the cause that all of them have, and that no other kind has, if there is one.

    Arguments:
        topic: from which they come.
        service: or services, with commas between, that failed.
        kind: of their cause.
        others: kinds of the other dead letters of this topic.

    >>> redrive_command("orders", "fraud", "customer '…' is unknown")
    "orders dead-letters redrive orders --service fraud --cause 'is unknown' --dry-run"
    >>> redrive_command("orders", "fraud", "is no JSON; write orders", ["price is missing; write orders"])
    "orders dead-letters redrive orders --service fraud --cause 'is no JSON; write orders' --dry-run"
    """
    parts = [cut for part in kind.split("…") for cut in _cuts(part.strip("'\" "))]
    longest = sorted(parts, key=len, reverse=True) or [""]
    foreign = [other.casefold() for other in others]
    own = (part for part in longest if not any(part.casefold() in other for other in foreign))
    words = next(own, longest[0])
    command = ["orders", "dead-letters", "redrive", topic, "--service", service.partition(",")[0]]
    command += ["--cause", words] if words else ["--all"]
    return shlex.join([*command, "--dry-run"])


def _cuts(part: str) -> Iterator[str]:
    """Beginning and end of a part that is too long for a command; each may be what it has in common with others."""
    yield part[:_WORDS].strip()
    if len(part) > _WORDS:
        yield part[-_WORDS:].strip()


def _trim(entries: dict[str, Any]) -> None:
    while len(entries) > MOST:
        del entries[next(iter(entries))]
