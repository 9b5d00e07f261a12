"""What was redriven before: each dead letter, each record of several dead letters, and each message how often."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Self

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, DeadLetterId
from ecosystem.clients.dead_letters.records import RedriveNote, read_dead_letters, read_redrive_notes
from runtime.common.settings import Settings

RecordId = tuple[str, int, int, bytes | None, int]
"""Topic, partition, offset, key and hash of the value of the original record. A recreated topic reuses its offsets."""


def record_of(letter: DeadLetter) -> RecordId | None:
    """Identifies the original record; `None` if the message never was a record of the topic."""
    if letter.from_offset < 0:
        return None
    return letter.id.topic, letter.from_partition, letter.from_offset, letter.key, hash(letter.value)


class Redrives:
    """The redrives of some topics.

    Arguments:
        notes: the notes of all redriven dead letters.
    """

    def __init__(self, notes: dict[DeadLetterId, RedriveNote]) -> None:
        self._notes = notes
        self._records: dict[RecordId, DeadLetterId] = {}
        self._without_offset: dict[tuple[str, int, bytes | None, int], list[int]] = {}

    @classmethod
    async def read(cls, settings: Settings, topics: Sequence[str]) -> Self:
        """Reads the notes, and the dead letters of those of the topics that have notes."""
        found = cls(await read_redrive_notes(settings))
        noted = {id_.topic for id_ in found._notes}
        async for letter in read_dead_letters(settings, [topic for topic in topics if topic in noted]):
            if isinstance(letter, DeadLetter):
                found.add(letter)
        return found

    def add(self, letter: DeadLetter) -> None:
        """Adds a dead letter, if it has a note."""
        if letter.id not in self._notes:
            return
        if (record := record_of(letter)) is not None:
            self._records[record] = letter.id
        else:
            insort(self._without_offset.setdefault(_message_of(letter), []), letter.id.offset)

    def has_note(self, id_: DeadLetterId) -> bool:
        """Returns whether this very dead letter was redriven."""
        return id_ in self._notes

    def note(self, letter: DeadLetter) -> RedriveNote | None:
        """Returns the note of the dead letter, or of another service's dead letter of the same record."""
        if (own := self._notes.get(letter.id)) is not None:
            return own
        record = record_of(letter)
        return None if record is None else self._notes.get(self._records.get(record, letter.id))

    def count(self, letter: DeadLetter) -> int:
        """Returns how often the message had been redriven when it failed.

        A side effect fails long after its message was processed, and its dead letter has no headers. There the earlier
        dead letters of the same content count that were redriven.
        """
        if letter.from_offset >= 0 or letter.redriven:
            return letter.redriven
        return bisect_left(self._without_offset.get(_message_of(letter), []), letter.id.offset)

    def quarantined(self, letter: DeadLetter, max_redrives: int) -> bool:
        """Returns whether the message was redriven so often, failed each time, and still waits."""
        return self.count(letter) >= max_redrives and self.note(letter) is None


def _message_of(letter: DeadLetter) -> tuple[str, int, bytes | None, int]:
    return letter.id.topic, letter.id.partition, letter.key, hash(letter.value)
