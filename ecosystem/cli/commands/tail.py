"""`orders tail`: print messages as they arrive."""

import click
from rich.console import Console

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import perform
from ecosystem.cli.stopping import StopRequest, run_until_signal
from ecosystem.clients.readable import line
from ecosystem.clients.reader import Reader, partition_count
from runtime.kafka.topics import public_topics


@click.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC...]")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest message instead of the next one")
@click.option("--follow/--no-follow", default=True, help="Wait for new messages  [default: follow]")
def tail(topics: tuple[str, ...], from_beginning: bool, follow: bool) -> None:
    """Print messages as they arrive, one per line.

    A line has time (UTC), topic, key, content, partition and offset. Without TOPIC: all topics of the catalogue (see
    `orders topics`) and their dead letters. Other topics, such as changelogs and repartition topics, can be named;
    their messages are shown as JSON. Only committed messages are shown. A record in another partition than its key's
    is marked as misplaced.

    \b
    orders tail
    orders tail orders order-validations --from-beginning
    orders tail orders-view-changelog
    orders tail orders.dead-letters --no-follow         existing messages only
    """
    known = public_topics()

    async def show(stop: StopRequest) -> None:
        console, settings, currency = Console(highlight=False), discovery.settings(), discovery.currency()
        async with Reader(settings, topics or tuple(known)) as reader:
            if unknown := [topic for topic in topics if topic not in known and topic not in reader.found]:
                raise click.ClickException(f"no such topic: {', '.join(unknown)}. There are: {', '.join(known)}")
            if not reader.found:
                raise click.ClickException("none of these topics exists yet: the first worker that starts creates them")
            partitions = await partition_count(settings)
            async for record in reader.records(from_beginning or not follow, follow, stop.received):
                console.print(line(record, partitions, currency), soft_wrap=True)

    perform(run_until_signal(show))
