"""Counts dead letters by topic, service and kind of cause."""

from dataclasses import dataclass

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, DeadLetterId
from ecosystem.clients.dead_letters.redrives import Redrives
from runtime.model.causes import kind_of_cause


@dataclass(slots=True)
class Group:
    """Dead letters of one topic, service and kind of cause.

    Arguments:
        topic: of the original messages.
        service: that failed; several are separated by commas.
        cause: the kind of cause.
        example: the latest dead letter.
        first_ms: time of the earliest dead letter, milliseconds since 1970.
        last_ms: that of the latest.
        count: of the dead letters.
        redriven: how many were written back.
        quarantined: how many are quarantined.
    """

    topic: str
    service: str
    cause: str
    example: DeadLetterId
    first_ms: int
    last_ms: int
    count: int = 0
    redriven: int = 0
    quarantined: int = 0


class Summary:
    """Counts of dead letters.

    Arguments:
        redrives: those of the topics.
        max_redrives: after which a message is quarantined.
    """

    def __init__(self, redrives: Redrives, max_redrives: int) -> None:
        self._redrives = redrives
        self._max_redrives = max_redrives
        self._groups: dict[tuple[str, str, str], Group] = {}

    def add(self, letter: DeadLetter) -> None:
        """Counts a dead letter."""
        key = letter.id.topic, letter.service, kind_of_cause(letter.error)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(*key, letter.id, letter.time_ms, letter.time_ms)
        group.count += 1
        group.first_ms = min(group.first_ms, letter.time_ms)
        if letter.time_ms >= group.last_ms:
            group.last_ms, group.example = letter.time_ms, letter.id
        group.redriven += self._redrives.note(letter) is not None
        group.quarantined += self._redrives.quarantined(letter, self._max_redrives)

    @property
    def groups(self) -> list[Group]:
        """The groups, by topic, the largest first."""
        return sorted(self._groups.values(), key=lambda g: (g.topic, -g.count, g.service, g.cause))
