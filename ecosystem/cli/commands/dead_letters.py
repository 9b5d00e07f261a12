"""`orders dead-letters`: list, show and redrive messages that could not be processed."""

import json
import re
import sys
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from ecosystem.cli import running
from ecosystem.cli.commands.shared import Whole, bootstrap_option, perform
from ecosystem.clients import readable
from runtime.common.settings import Settings
from schemas.topics import DEAD_LETTERS

if TYPE_CHECKING:
    from ecosystem.clients.dead_letters.letter import DeadLetter
    from ecosystem.clients.dead_letters.read import Redriven
    from ecosystem.clients.dead_letters.redrive import Outcome


class _Place(click.ParamType):
    name = "partition@offset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([0-9]{1,9})@([0-9]{1,18})", str(value))
        if not found:
            self.fail(f"{value!r} is not a place such as 2@17, partition and offset, as `list` shows it", param, ctx)
        return int(found[1]), int(found[2])


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show and redrive messages that could not be processed."""


@dead_letters.command("list")
@click.argument("topics", nargs=-1, metavar="[TOPIC...]")
@click.option("--limit", type=Whole(1), default=20, show_default=True, help="Shown of each topic, the latest")
@click.option("--json", "json_", is_flag=True, help="All of them, a JSON object a line")
@bootstrap_option
def list_(topics: tuple[str, ...], limit: int, json_: bool, bootstrap: str | None) -> None:
    """Count dead letters by topic, and list the latest.

    A line has the place, the time, the service that failed, its error and the key.

    \b
    orders dead-letters list
    orders dead-letters list orders order-validations --limit 100
    """
    from ecosystem.clients.dead_letters import read
    from ecosystem.clients.dead_letters.letter import DeadLetter

    settings = running.settings(bootstrap)
    names = _known(settings, topics)
    console = Console(highlight=False)

    async def look() -> None:
        counts: Counter[str] = Counter()
        latest: dict[str, deque[DeadLetter]] = {}
        done = await read.redriven(settings)
        foreign = 0
        async for letter in read.letters(settings, names):
            if not isinstance(letter, DeadLetter):
                record, fault = letter
                if record.unreadable is None:
                    foreign += 1
                else:
                    place = f"{record.topic} {record.partition}@{record.offset}"
                    click.echo(f"{place} is unreadable: {readable.printable(str(fault))}", err=True)
                continue
            if json_:
                click.echo(json.dumps(_fields(letter, done.get(letter.where))))
                continue
            counts[letter.where.topic] += 1
            latest.setdefault(letter.where.topic, deque(maxlen=limit)).append(letter)
        if json_:
            return
        for topic, shown in latest.items():
            hidden = f", the latest {len(shown)}" if counts[topic] > len(shown) else ""
            console.print(Text(f"{topic}: {counts[topic]} dead letters{hidden}", "bold"))
            for letter in shown:
                console.print(_line(letter, done.get(letter.where)), soft_wrap=True)
        if not latest:
            console.print("No dead letters.")
        if foreign:
            console.print(f"{foreign} messages there are no dead letters of these services")

    perform(look(), bootstrap=bootstrap)


@dead_letters.command()
@click.argument("topic")
@click.argument("place", type=_Place())
@click.option("--json", "json_", is_flag=True, help="One JSON object, key and value in hexadecimal")
@bootstrap_option
def show(topic: str, place: tuple[int, int], json_: bool, bootstrap: str | None) -> None:
    """Show the dead letter of TOPIC at PARTITION@OFFSET.

    Shows its headers, and the message as it was.

    \b
    orders dead-letters show orders 2@17
    """
    from ecosystem.clients.dead_letters import read

    settings = running.settings(bootstrap)
    [name] = _known(settings, (topic,))

    async def look() -> None:
        letter = await read.letter(settings, name, *place)
        note = (await read.redriven(settings)).get(letter.where)
        if json_:
            content = {"key": _hex(letter.key), "value": _hex(letter.value)}
            headers = [[name, _hex(text)] for name, text in letter.headers]
            click.echo(json.dumps({**_fields(letter, note), **content, "headers": headers}))
        else:
            _print(letter, note)

    perform(look(), bootstrap=bootstrap, refusals=(LookupError,))


@dead_letters.command()
@click.argument("topic")
@click.argument("places", type=_Place(), nargs=-1, metavar="[PARTITION@OFFSET...]")
@click.option("--all", "all_", is_flag=True, help="All that are there now")
@click.option("--service", help="Of these only those that this service failed on")
@click.option("--overwrite", is_flag=True, help="Also those that replace a newer record of their key")
@bootstrap_option
def redrive(
    topic: str,
    places: tuple[tuple[int, int], ...],
    all_: bool,
    service: str | None,
    overwrite: bool,
    bootstrap: str | None,
) -> None:
    """Write dead letters of TOPIC back to it.

    They are written as they were: key, value, headers, partition. A record that was dead-lettered because it was in
    another partition than its key's is written to the right one. Each is written back once, however often this is run,
    by however many people, and wherever it was interrupted. One that fails again comes back as a new dead letter.

    Mend the cause first. Every service that reads the topic reads the message again, not only the one that failed on
    it. What they decided about an order they know by its id, for seven days, and say again; an older order is better
    not written back. Of warehouse-inventory and customers the last record of a key counts: a letter that would replace
    a newer record is left alone and shown. A letter that was cut because the message was too large cannot be written
    back, nor one that stands for records that are gone.

    \b
    orders dead-letters redrive orders 2@17 0@3
    orders dead-letters redrive order-validations --all --service orders
    """
    from ecosystem.clients.dead_letters import redrive as redriving

    if bool(places) == all_:
        raise click.UsageError("name dead letters, PARTITION@OFFSET as `orders dead-letters list` shows them, or --all")
    settings = running.settings(bootstrap)
    [name] = _known(settings, (topic,))

    def wanted(letter: "DeadLetter") -> bool:
        named = all_ or letter.where[1:] in places
        return named and (service is None or service in letter.service.split(","))

    outcome = perform(
        redriving.redrive(settings, name, wanted, overwrite=overwrite),
        bootstrap=bootstrap,
        refusals=(redriving.Superseded,),
    )
    sys.exit(0 if _tell(outcome, places) else 1)


def _tell(outcome: "Outcome", places: tuple[tuple[int, int], ...]) -> bool:
    """Prints the outcome of a redrive. Returns whether all named dead letters are written back."""
    for where, note in outcome.written.items():
        click.echo(f"{where} written back to {where.topic} {note.partition}@{note.offset}")
    for where, note in outcome.before.items():
        click.echo(f"{where} was written back before, {_when(note)}")
    for where, reason in outcome.refused.items():
        click.echo(f"{where} cannot be written back: {reason}", err=True)
    for where, reason in outcome.replaced.items():
        click.echo(f"{where} is left alone: {reason}", err=bool(places))
    found = (outcome.written, outcome.before, outcome.refused, outcome.replaced)
    met = {where[1:] for some in found for where in some}
    absent = [place for place in places if place not in met]
    for partition, offset in absent:
        click.echo(f"no such dead letter: {partition}@{offset}", err=True)
    left = f", {len(outcome.replaced)} left alone" if outcome.replaced else ""
    click.echo(f"{len(outcome.written)} written back, {len(outcome.before)} were before{left}")
    return not outcome.refused and not absent and not (places and outcome.replaced)


def _known(settings: Settings, wanted: tuple[str, ...]) -> list[str]:
    """The topics meant; all there are if none is."""
    from ecosystem.clients.dead_letters import read

    known = read.topics(settings)
    names = [name.removesuffix(DEAD_LETTERS) for name in wanted]
    changelogs = read.changelogs(settings)
    if unknown := [name for name in names if name not in known and name not in changelogs]:
        raise click.UsageError(f"no such topic: {', '.join(unknown)}. There are: {', '.join(known)}")
    return names or [*known, *changelogs]


def _line(letter: "DeadLetter", note: "Redriven | None") -> Text:
    at = readable.moment(letter.time_ms)
    when = f"{letter.time_ms} ms" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
    place = f"{letter.where.partition}@{letter.where.offset}"
    text = Text.assemble(f"  {place:<10} ", (f"{when}  ", "dim"), (readable.printable(letter.service), "cyan"), "  ")
    text.append(f"{_text(letter.key)}  ").append(readable.printable(letter.error), "red")
    if note is not None:
        text.append(f"  written back {_when(note)}", "green")
    return text


def _print(letter: "DeadLetter", note: "Redriven | None") -> None:
    source = "processed in the batch that produced it" if letter.from_offset < 0 else f"offset {letter.from_offset}"
    fields = {
        "from": f"{letter.where.topic} partition {letter.from_partition}, {source}",
        "service": letter.service,
        "error": letter.error,
        "failed at": letter.failed_at,
        "written back": "no" if note is None else _when(note),
        "cut": None if letter.cut is None else f"of {letter.cut} bytes; it cannot be written back",
        "lost": None
        if letter.lost_until is None
        else f"offsets from {letter.from_offset} up to, not including, {letter.lost_until}",
        "key": _text(letter.key),
    }
    headers = [(f"header {readable.printable(name)}", _text(text)) for name, text in letter.headers]  # may repeat
    for name, said in (*fields.items(), *headers, ("value", _text(letter.value))):
        if said is not None:
            click.echo(f"{name}: {said}")


def _fields(letter: "DeadLetter", note: "Redriven | None") -> dict[str, Any]:
    return {
        "topic": letter.where.topic,
        "partition": letter.where.partition,
        "offset": letter.where.offset,
        "from_partition": letter.from_partition,
        "from_offset": letter.from_offset,
        "failed_at": letter.failed_at,
        "service": letter.service,
        "error": letter.error,
        "key": _text(letter.key),
        "cut": letter.cut,
        "lost_until": letter.lost_until,
        "redriven_at": None if note is None else note.at.isoformat(),
    }


def _when(note: "Redriven") -> str:
    return f"{note.at:%Y-%m-%d %H:%M:%S} as {note.partition}@{note.offset}"


def _text(raw: bytes | None) -> str:
    """Text as it is, anything else in hexadecimal."""
    if raw is None:
        return "(none)"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"hex {raw.hex(' ')}"
    return text if all(c.isprintable() or c in "\n\t" for c in text) else f"hex {raw.hex(' ')}"


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else raw.hex()
