"""Options of `orders dead-letters` that select dead letters, and the types of its arguments."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

import click

from ecosystem import services
from ecosystem.cli.commands.shared import TIME, Whole
from ecosystem.clients.dead_letters.dead_letter import MAX_REDRIVES
from ecosystem.clients.dead_letters.filters import Filters
from runtime.common.settings import Settings
from schemas.topics import DEAD_LETTERS


class _Position(click.ParamType):
    name = "partition@offset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([0-9]{1,9})@([0-9]{1,18})", str(value))
        if not found:
            self.fail(f"{value!r} is not a position such as 2@17: partition and offset, as `list` shows it", param, ctx)
        return int(found[1]), int(found[2])


class _Part(click.ParamType):
    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty, and would fit everything: leave the option out", param, ctx)
        return str(value)


POSITION = _Position()
"""Position of a dead letter."""
_PART = _Part()

_OPTIONS = (
    click.option("--service", type=_PART, help="Only those on which this service failed"),
    click.option("--cause", type=_PART, metavar="TEXT", help="Only those with this text in the error, in any case"),
    click.option("--key", type=_PART, help="Only those with this text in the key"),
    click.option("--from", "since", type=TIME, help="Failed since this time, or since 12h ago"),
    click.option("--to", "before", type=TIME, help="Failed before this time"),
    click.option("--redriven/--not-redriven", default=None, help="Only those that were, or were not, written back"),
)

max_redrives_option = click.option(
    "--max-redrives",
    type=Whole(1, 100),
    default=MAX_REDRIVES,
    show_default=True,
    metavar="N",
    help="Quarantine a message that was redriven so often and failed each time",
)


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of filters. The command gets them as `filters`."""

    @wraps(function)
    def command(
        *,
        service: str | None,
        cause: str | None,
        key: str | None,
        since: datetime | None,
        before: datetime | None,
        redriven: bool | None,
        **others: Any,
    ) -> Any:
        if since and before and since >= before:
            raise click.BadParameter("it must be before --to", param_hint="--from")
        return function(filters=Filters(service, cause, key, since, before, redriven), **others)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def topics_of(settings: Settings, wanted: tuple[str, ...]) -> list[str]:
    """Returns the names without the suffix of dead-letter topics; without `wanted`, all topics and changelogs."""
    topics, changelogs = services.consumed_topics(settings), services.changelogs(settings)
    names = [name.removesuffix(DEAD_LETTERS) for name in wanted]
    if unknown := [name for name in names if name not in topics and name not in changelogs]:
        raise click.UsageError(f"no such topic: {', '.join(unknown)}. There are: {', '.join(topics)}")
    return names or [*topics, *changelogs]
