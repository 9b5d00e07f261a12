"""Dead letters as text and as JSON."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, NotADeadLetter
from ecosystem.clients.dead_letters.outcome import quarantine_text
from ecosystem.clients.dead_letters.records import RedriveNote
from ecosystem.clients.dead_letters.redrives import Redrives
from ecosystem.clients.dead_letters.summary import Group
from ecosystem.clients.readable import bytes_text, moment, printable
from ecosystem.clients.wording import counted
from runtime.model.records import Record


class DeadLetterText:
    """Formats dead letters with what is known of their redrives.

    Arguments:
        redrives: those of the topics.
        max_redrives: after which a message is quarantined.
    """

    def __init__(self, redrives: Redrives, max_redrives: int) -> None:
        self._redrives = redrives
        self._max_redrives = max_redrives

    def line(self, letter: DeadLetter) -> Text:
        """Formats a dead letter as a line of a list."""
        position = f"{letter.id.partition}@{letter.id.offset}"
        service = (printable(letter.service), "cyan")
        text = Text.assemble(f"  {position:<10} ", (f"{_time(letter.time_ms)}  ", "dim"), service, "  ")
        text.append(f"{_text(letter.key)}  ").append(printable(letter.error), "red")
        if note := self._redrives.note(letter):
            text.append(f"  written back {when(note)}", "green")
        elif state := self._state(letter):
            text.append(f"  {state}", "yellow")
        return text

    def lines(self, letter: DeadLetter) -> Iterator[str]:
        """Formats a dead letter and its message with all headers."""
        note = self._redrives.note(letter)
        source = "processed in the batch that produced it" if letter.from_offset < 0 else f"offset {letter.from_offset}"
        fields = {
            "from": f"{letter.id.topic} partition {letter.from_partition}, {source}",
            "service": letter.service,
            "error": letter.error,
            "failed at": letter.failed_at,
            "written back": "no" if note is None else when(note),
            "redriven": self._state(letter),
            "cut": None if letter.truncated is None else f"of {letter.truncated} bytes; it cannot be written back",
            "lost": None
            if letter.lost_until is None
            else f"offsets from {letter.from_offset} up to, not including, {letter.lost_until}",
            "key": _text(letter.key),
        }
        headers = [(f"header {printable(name)}", _text(text)) for name, text in letter.headers]  # may repeat
        for name, text in (*fields.items(), *headers, ("value", _text(letter.value))):
            if text is not None:
                yield f"{name}: {text}"

    def fields(self, letter: DeadLetter) -> dict[str, Any]:
        """Formats a dead letter as the fields of a JSON object."""
        note = self._redrives.note(letter)
        return {
            "topic": letter.id.topic,
            "partition": letter.id.partition,
            "offset": letter.id.offset,
            "from_partition": letter.from_partition,
            "from_offset": letter.from_offset,
            "failed_at": letter.failed_at,
            "service": letter.service,
            "error": letter.error,
            "key": _text(letter.key),
            "cut": letter.truncated,
            "lost_until": letter.lost_until,
            "redriven_at": None if note is None else note.at.isoformat(),
            "redriven": self._redrives.count(letter),
            "quarantined": self._redrives.quarantined(letter, self._max_redrives),
        }

    def _state(self, letter: DeadLetter) -> str | None:
        count = self._redrives.count(letter)
        if self._redrives.quarantined(letter, self._max_redrives):
            return quarantine_text(count)
        if count == 0:
            return None
        return "redriven once before it failed" if count == 1 else f"redriven {count} times before it failed"


def print_summary(console: Console, groups: Iterable[Group]) -> None:
    """Prints counts by topic, service and cause: the cause first, so that it is read on any width."""
    for topic, same_topic in groupby(groups, key=lambda group: group.topic):
        found = list(same_topic)
        total = sum(group.count for group in found)
        console.print(Text(f"{topic}: {counted(total, 'dead letter')}", "bold"))
        for group in found:
            console.print(Text.assemble(f"  {group.count} × ", (printable(group.cause), "red")), soft_wrap=True)
            console.print(_counts(group), soft_wrap=True)


def _counts(group: Group) -> Text:
    """Who failed, when, and what became of it. Lines of a fixed form, for `grep` as well."""
    times = f"{_time(group.first_ms)} to {_time(group.last_ms)}"
    text = Text.assemble("      ", (printable(group.service), "cyan"), f"  {times}", f"  such as {_position(group)}")
    for count, what in ((group.redriven, "written back"), (group.quarantined, "quarantined")):
        if count:
            text.append(f"  {count} {what}", "yellow")
    return text


def _position(group: Group) -> str:
    return f"{group.example.partition}@{group.example.offset}"


def summary_fields(group: Group) -> dict[str, Any]:
    """Formats counts as the fields of a JSON object."""
    return {
        "topic": group.topic,
        "service": group.service,
        "cause": group.cause,
        "count": group.count,
        "redriven": group.redriven,
        "quarantined": group.quarantined,
        "first": _iso(moment(group.first_ms)),
        "last": _iso(moment(group.last_ms)),
        "example": {"partition": group.example.partition, "offset": group.example.offset},
    }


def when(note: RedriveNote) -> str:
    """Says when and to where a dead letter was written back."""
    return f"{note.at:%Y-%m-%d %H:%M:%S} as {note.partition}@{note.offset}"


@dataclass
class Others:
    """Records of dead-letter topics that are no dead letters."""

    foreign: int = 0

    def add(self, record: Record, fault: NotADeadLetter) -> None:
        """Counts a record of another producer; says on standard error which one cannot be decoded."""
        if record.unreadable is None:
            self.foreign += 1
        else:
            position = f"{record.topic} {record.partition}@{record.offset}"
            click.echo(f"{position} is unreadable: {printable(str(fault))}", err=True)

    def print(self, console: Console) -> None:
        """Prints how many there are."""
        if self.foreign:
            console.print(f"{self.foreign} messages of other producers in dead-letter topics")


def _time(ms: int) -> str:
    at = moment(ms)
    return f"{ms} ms" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _text(raw: bytes | None) -> str:
    return "(none)" if raw is None else bytes_text(raw)
