"""`orders dead-letters`: list, show and redrive messages that could not be processed."""

import json
import re
import sys
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from ecosystem import services
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Whole, bootstrap_option, perform
from ecosystem.clients import readable
from runtime.common.settings import Settings
from schemas.topics import DEAD_LETTERS

if TYPE_CHECKING:
    from ecosystem.clients.dead_letters.dead_letter import DeadLetter
    from ecosystem.clients.dead_letters.records import RedriveNote
    from ecosystem.clients.dead_letters.redrive import RedriveOutcome


class _Position(click.ParamType):
    name = "partition@offset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([0-9]{1,9})@([0-9]{1,18})", str(value))
        if not found:
            self.fail(f"{value!r} is not a position such as 2@17: partition and offset, as `list` shows it", param, ctx)
        return int(found[1]), int(found[2])


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show and redrive messages that could not be processed."""


@dead_letters.command("list")
@click.argument("topics", nargs=-1, metavar="[TOPIC...]")
@click.option("--limit", type=Whole(1), default=20, show_default=True, help="Latest dead letters shown of each topic")
@click.option("--json", "json_", is_flag=True, help="Print all, one JSON object per line")
@bootstrap_option
def list_(topics: tuple[str, ...], limit: int, json_: bool, bootstrap: str | None) -> None:
    """Count dead letters by topic, and list the latest.

    A line has the position, the time, the service that failed, the key and the error. Without TOPIC: all topics, and
    changelogs that lost records.

    \b
    orders dead-letters list
    orders dead-letters list orders order-validations --limit 100
    """
    from ecosystem.clients.dead_letters import records
    from ecosystem.clients.dead_letters.dead_letter import DeadLetter

    settings = discovery.settings(bootstrap)
    names = _topics(settings, topics)
    console = Console(highlight=False)

    async def print_all() -> None:
        counts: Counter[str] = Counter()
        latest: dict[str, deque[DeadLetter]] = {}
        notes = await records.read_redrive_notes(settings)
        foreign = 0
        async for letter in records.read_dead_letters(settings, names):
            if not isinstance(letter, DeadLetter):
                record, fault = letter
                if record.unreadable is None:
                    foreign += 1
                else:
                    position = f"{record.topic} {record.partition}@{record.offset}"
                    click.echo(f"{position} is unreadable: {readable.printable(str(fault))}", err=True)
                continue
            if json_:
                click.echo(json.dumps(_fields(letter, notes.get(letter.id))))
                continue
            counts[letter.id.topic] += 1
            latest.setdefault(letter.id.topic, deque(maxlen=limit)).append(letter)
        if json_:
            return
        for topic, shown in latest.items():
            hidden = f", the latest {len(shown)}" if counts[topic] > len(shown) else ""
            console.print(Text(f"{topic}: {counts[topic]} dead letters{hidden}", "bold"))
            for letter in shown:
                console.print(_line(letter, notes.get(letter.id)), soft_wrap=True)
        if not latest:
            console.print("No dead letters.")
        if foreign:
            console.print(f"{foreign} messages of other producers in dead-letter topics")

    perform(print_all(), bootstrap=bootstrap)


@dead_letters.command()
@click.argument("topic")
@click.argument("position", type=_Position())
@click.option("--json", "json_", is_flag=True, help="Print one JSON object, key and value in hexadecimal")
@bootstrap_option
def show(topic: str, position: tuple[int, int], json_: bool, bootstrap: str | None) -> None:
    """Show the dead letter of TOPIC at PARTITION@OFFSET.

    Shows the cause, and the original message with its headers.

    \b
    orders dead-letters show orders 2@17
    """
    from ecosystem.clients.dead_letters import records

    settings = discovery.settings(bootstrap)
    [name] = _topics(settings, (topic,))

    async def print_one() -> None:
        letter = await records.find_dead_letter(settings, name, *position)
        note = (await records.read_redrive_notes(settings)).get(letter.id)
        if json_:
            content = {"key": _hex(letter.key), "value": _hex(letter.value)}
            headers = [[name, _hex(text)] for name, text in letter.headers]
            click.echo(json.dumps({**_fields(letter, note), **content, "headers": headers}))
        else:
            _print(letter, note)

    perform(print_one(), bootstrap=bootstrap, expected=(LookupError,))


@dead_letters.command()
@click.argument("topic")
@click.argument("positions", type=_Position(), nargs=-1, metavar="[PARTITION@OFFSET...]")
@click.option("--all", "all_", is_flag=True, help="Redrive all dead letters of the topic")
@click.option("--service", help="Redrive only those on which this service failed")
@click.option("--overwrite", is_flag=True, help="Redrive also those whose key has a newer record")
@bootstrap_option
def redrive(
    topic: str,
    positions: tuple[tuple[int, int], ...],
    all_: bool,
    service: str | None,
    overwrite: bool,
    bootstrap: str | None,
) -> None:
    """Write dead letters of TOPIC back to it.

    Remove the cause first. Every service that reads the topic reads the message again, not only the one that failed.
    The services recognise a repeated order by its id for seven days; do not redrive messages about older orders.

    Key, value, headers and partition stay as they were; only a misplaced record goes to the partition of its key. Each
    dead letter is written back once, even if the command is repeated, interrupted or run by several people. A message
    that fails again becomes a new dead letter.

    Not redriven are: dead letters of warehouse-inventory and customers whose key has a newer record (see --overwrite);
    dead letters of truncated messages and of lost records.

    Exit code 0: all named dead letters are written back. 1: some are not.

    \b
    orders dead-letters redrive orders 2@17 0@3
    orders dead-letters redrive order-validations --all --service orders
    """
    from ecosystem.clients.dead_letters import redrive as redriving

    if bool(positions) == all_:
        raise click.UsageError("name dead letters by PARTITION@OFFSET, as `orders dead-letters list` shows, or --all")
    settings = discovery.settings(bootstrap)
    [name] = _topics(settings, (topic,))

    def wanted(letter: "DeadLetter") -> bool:
        named = all_ or letter.id[1:] in positions
        return named and (service is None or service in letter.service.split(","))

    outcome = perform(
        redriving.redrive(settings, name, wanted, overwrite=overwrite),
        bootstrap=bootstrap,
        expected=(redriving.Superseded,),
    )
    sys.exit(0 if _print_outcome(outcome, positions) else 1)


def _print_outcome(outcome: "RedriveOutcome", positions: tuple[tuple[int, int], ...]) -> bool:
    """Prints the outcome of a redrive. Returns whether all named dead letters are written back."""
    for id_, note in outcome.written.items():
        click.echo(f"{id_} written back to {id_.topic} {note.partition}@{note.offset}")
    for id_, note in outcome.written_before.items():
        click.echo(f"{id_} was written back before, {_when(note)}")
    for id_, reason in outcome.rejected.items():
        click.echo(f"{id_} cannot be written back: {reason}", err=True)
    for id_, reason in outcome.replaced.items():
        click.echo(f"{id_} is left alone: {reason}", err=bool(positions))
    found = {
        id_[1:] for ids in (outcome.written, outcome.written_before, outcome.rejected, outcome.replaced) for id_ in ids
    }
    absent = [position for position in positions if position not in found]
    for partition, offset in absent:
        click.echo(f"no such dead letter: {partition}@{offset}", err=True)
    left_alone = f", {len(outcome.replaced)} left alone" if outcome.replaced else ""
    click.echo(f"{len(outcome.written)} written back, {len(outcome.written_before)} were before{left_alone}")
    return not outcome.rejected and not absent and not (positions and outcome.replaced)


def _topics(settings: Settings, wanted: tuple[str, ...]) -> list[str]:
    """Returns the names without the suffix of dead-letter topics; without `wanted`, all topics and changelogs."""
    topics, changelogs = services.consumed_topics(settings), services.changelogs(settings)
    names = [name.removesuffix(DEAD_LETTERS) for name in wanted]
    if unknown := [name for name in names if name not in topics and name not in changelogs]:
        raise click.UsageError(f"no such topic: {', '.join(unknown)}. There are: {', '.join(topics)}")
    return names or [*topics, *changelogs]


def _line(letter: "DeadLetter", note: "RedriveNote | None") -> Text:
    at = readable.moment(letter.time_ms)
    when = f"{letter.time_ms} ms" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
    position = f"{letter.id.partition}@{letter.id.offset}"
    text = Text.assemble(f"  {position:<10} ", (f"{when}  ", "dim"), (readable.printable(letter.service), "cyan"), "  ")
    text.append(f"{_text(letter.key)}  ").append(readable.printable(letter.error), "red")
    if note is not None:
        text.append(f"  written back {_when(note)}", "green")
    return text


def _print(letter: "DeadLetter", note: "RedriveNote | None") -> None:
    source = "processed in the batch that produced it" if letter.from_offset < 0 else f"offset {letter.from_offset}"
    fields = {
        "from": f"{letter.id.topic} partition {letter.from_partition}, {source}",
        "service": letter.service,
        "error": letter.error,
        "failed at": letter.failed_at,
        "written back": "no" if note is None else _when(note),
        "cut": None if letter.truncated is None else f"of {letter.truncated} bytes; it cannot be written back",
        "lost": None
        if letter.lost_until is None
        else f"offsets from {letter.from_offset} up to, not including, {letter.lost_until}",
        "key": _text(letter.key),
    }
    headers = [(f"header {readable.printable(name)}", _text(text)) for name, text in letter.headers]  # may repeat
    for name, text in (*fields.items(), *headers, ("value", _text(letter.value))):
        if text is not None:
            click.echo(f"{name}: {text}")


def _fields(letter: "DeadLetter", note: "RedriveNote | None") -> dict[str, Any]:
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
    }


def _when(note: "RedriveNote") -> str:
    return f"{note.at:%Y-%m-%d %H:%M:%S} as {note.partition}@{note.offset}"


def _text(raw: bytes | None) -> str:
    """Returns printable text as it is, anything else in hexadecimal."""
    if raw is None:
        return "(none)"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"hex {raw.hex(' ')}"
    return text if all(c.isprintable() or c in "\n\t" for c in text) else f"hex {raw.hex(' ')}"


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else raw.hex()
