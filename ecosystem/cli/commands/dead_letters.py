"""`orders dead-letters`: list, count, show and redrive messages that could not be processed."""

import json
import sys
from collections import Counter, deque
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from ecosystem.cli import discovery
from ecosystem.cli.commands.dead_letter_options import POSITION, filter_options, max_redrives_option, topics_of
from ecosystem.cli.commands.shared import Real, Whole, bootstrap_option, perform
from ecosystem.clients.dead_letters.dead_letter import MAX_REDRIVES, DeadLetter
from ecosystem.clients.dead_letters.filters import Filters
from ecosystem.clients.wording import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ecosystem.cli.dead_letter_text import Others
    from ecosystem.clients.dead_letters.redrives import Redrives
    from runtime.common.settings import Settings


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show and redrive messages that could not be processed."""


@dead_letters.command("list")
@click.argument("topics", nargs=-1, metavar="[TOPIC...]")
@filter_options
@click.option("--quarantined", is_flag=True, help="Only those that were redriven too often, and failed each time")
@max_redrives_option
@click.option("--limit", type=Whole(1), default=20, show_default=True, help="Latest dead letters shown of each topic")
@click.option("--json", "json_", is_flag=True, help="Print all, one JSON object per line")
@bootstrap_option
def list_(
    topics: tuple[str, ...],
    filters: Filters,
    quarantined: bool,
    max_redrives: int,
    limit: int,
    json_: bool,
    bootstrap: str | None,
) -> None:
    """Count dead letters by topic, and list the latest.

    A line has the position, the time, the service that failed, the key and the error. Without TOPIC: all topics, and
    changelogs that lost records. Listed are those that all filters fit.

    \b
    orders dead-letters list
    orders dead-letters list orders order-validations --limit 100
    orders dead-letters list --service fraud --from 2h --not-redriven
    """
    from ecosystem.cli.dead_letter_text import DeadLetterText, Others
    from ecosystem.clients.dead_letters.redrives import Redrives

    settings = discovery.settings(bootstrap)
    names = topics_of(settings, topics)
    console = Console(highlight=False)
    others = Others()

    async def print_all() -> None:
        counts: Counter[str] = Counter()
        latest: dict[str, deque[DeadLetter]] = {}
        redrives = await Redrives.read(settings, names)
        text = DeadLetterText(redrives, max_redrives)
        async for letter in _fitting(settings, names, filters, redrives, others):
            if quarantined and not redrives.quarantined(letter, max_redrives):
                continue
            if json_:
                click.echo(json.dumps(text.fields(letter)))
                continue
            counts[letter.id.topic] += 1
            latest.setdefault(letter.id.topic, deque(maxlen=limit)).append(letter)
        if json_:
            return
        for topic, shown in latest.items():
            hidden = f", the latest {len(shown)}" if counts[topic] > len(shown) else ""
            console.print(Text(f"{topic}: {counted(counts[topic], 'dead letter')}{hidden}", "bold"))
            for letter in shown:
                console.print(text.line(letter), soft_wrap=True)
        if not latest:
            console.print("No dead letters." if filters == Filters() and not quarantined else "No such dead letters.")
        others.print(console)

    perform(print_all(), bootstrap=bootstrap)


@dead_letters.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC...]")
@filter_options
@max_redrives_option
@click.option("--json", "json_", is_flag=True, help="Print one JSON object per line")
@bootstrap_option
def summary(topics: tuple[str, ...], filters: Filters, max_redrives: int, json_: bool, bootstrap: str | None) -> None:
    """Count dead letters by topic, service and cause.

    Equal kinds of errors are counted together: numbers, ids and quoted values in them are replaced by "…". The example
    is the position of the latest one.

    \b
    orders dead-letters summary
    orders dead-letters summary orders --from 1d --not-redriven
    """
    from ecosystem.cli.dead_letter_text import Others, print_summary, summary_fields
    from ecosystem.clients.dead_letters.redrives import Redrives
    from ecosystem.clients.dead_letters.summary import Summary

    settings = discovery.settings(bootstrap)
    names = topics_of(settings, topics)
    console = Console(highlight=False)
    others = Others()

    async def count() -> Summary:
        redrives = await Redrives.read(settings, names)
        counts = Summary(redrives, max_redrives)
        async for letter in _fitting(settings, names, filters, redrives, others):
            counts.add(letter)
        return counts

    groups = perform(count(), bootstrap=bootstrap).groups
    if json_:
        for group in groups:
            click.echo(json.dumps(summary_fields(group)))
        return
    print_summary(console, groups)
    if not groups:
        console.print("No dead letters." if filters == Filters() else "No such dead letters.")
    others.print(console)


@dead_letters.command()
@click.argument("topic")
@click.argument("position", type=POSITION)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object, key and value in hexadecimal")
@bootstrap_option
def show(topic: str, position: tuple[int, int], json_: bool, bootstrap: str | None) -> None:
    """Show the dead letter of TOPIC at PARTITION@OFFSET.

    Shows the cause, and the original message with its headers.

    \b
    orders dead-letters show orders 2@17
    """
    from ecosystem.cli.dead_letter_text import DeadLetterText
    from ecosystem.clients.dead_letters import records
    from ecosystem.clients.dead_letters.redrives import Redrives

    settings = discovery.settings(bootstrap)
    [name] = topics_of(settings, (topic,))

    async def print_one() -> None:
        letter = await records.find_dead_letter(settings, name, *position)
        text = DeadLetterText(await Redrives.read(settings, [name]), MAX_REDRIVES)
        if json_:
            content = {"key": _hex(letter.key), "value": _hex(letter.value)}
            headers = [[name, _hex(text)] for name, text in letter.headers]
            click.echo(json.dumps({**text.fields(letter), **content, "headers": headers}))
        else:
            for line in text.lines(letter):
                click.echo(line)

    perform(print_one(), bootstrap=bootstrap, expected=(LookupError,))


@dead_letters.command()
@click.argument("topic")
@click.argument("positions", type=POSITION, nargs=-1, metavar="[PARTITION@OFFSET...]")
@click.option("--all", "all_", is_flag=True, help="Redrive all dead letters of the topic, or all that the filters fit")
@filter_options
@click.option("--overwrite", is_flag=True, help="Redrive also those whose key has a newer record")
@max_redrives_option
@click.option("--quarantined-too", is_flag=True, help="Redrive also messages that are quarantined")
@click.option("--dry-run", is_flag=True, help="Show what would be written and what is refused, and write nothing")
@click.option("--rate", type=Real(0.01), metavar="N", help="Messages per second at most  [default: no limit]")
@click.option("--yes", is_flag=True, help="Do not ask before more than one is written")
@bootstrap_option
def redrive(
    topic: str,
    positions: tuple[tuple[int, int], ...],
    all_: bool,
    filters: Filters,
    overwrite: bool,
    max_redrives: int,
    quarantined_too: bool,
    dry_run: bool,
    rate: float | None,
    yes: bool,
    bootstrap: str | None,
) -> None:
    """Write dead letters of TOPIC back to it.

    Those named, all, or all that the filters fit.

    Remove the cause first. Every service that reads the topic reads the message again, not only the one that failed.
    The services recognise a repeated order by its id for seven days; do not redrive messages about older orders.

    Key, value, headers and partition stay as they were; only a misplaced record goes to the partition of its key. The
    header `redriven`, added as the last one, counts the redrives of the message. Each dead letter is written back once,
    even if the command is repeated, interrupted or run by several people. A message that fails again becomes a new dead
    letter; after --max-redrives it is quarantined.

    Not redriven are: messages in quarantine (see --quarantined-too); dead letters of warehouse-inventory and customers
    whose key has a newer record (see --overwrite); dead letters of truncated messages and of lost records.

    Asks on a terminal before it writes more than one that is not named. Exit code 0: all named dead letters are written
    back. 1: some are not.

    \b
    orders dead-letters redrive orders 2@17 0@3
    orders dead-letters redrive orders --cause quantity --from 2h --dry-run
    orders dead-letters redrive order-validations --all --service orders --rate 50
    """
    from ecosystem.cli.redriving import Redriving
    from ecosystem.clients.dead_letters.outcome import Rules

    if (positions and all_) or not (positions or all_ or filters != Filters()):
        raise click.UsageError(
            "name dead letters by PARTITION@OFFSET, as `orders dead-letters list` shows, filter them by --cause and "
            "the like, or redrive --all"
        )
    settings = discovery.settings(bootstrap)
    [name] = topics_of(settings, (topic,))
    rules = Rules(overwrite=overwrite, max_redrives=None if quarantined_too else max_redrives)
    command = Redriving(settings, name, positions, filters, rules, bootstrap)
    if dry_run:
        command.show(command.preview())
    preview = None
    if not positions and not yes and _is_terminal():
        preview = command.preview()
        if (count := len(preview.targets)) > 1:
            click.confirm(f"Write {count} dead letters back to {name}?", abort=True)
    command.write(preview, rate)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


async def _fitting(
    settings: "Settings", names: list[str], filters: Filters, redrives: "Redrives", others: "Others"
) -> "AsyncIterator[DeadLetter]":
    """Yields the dead letters that fit."""
    from ecosystem.clients.dead_letters import records

    async for letter in records.read_dead_letters(settings, names):
        if isinstance(letter, DeadLetter):
            if filters.fits_redrives(letter, redrives):
                yield letter
        else:
            others.add(*letter)


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else raw.hex()
