"""`orders checks`: list and change the checks that orders must pass."""

from collections.abc import Callable
from datetime import UTC, datetime

import click
from pydantic import TypeAdapter, ValidationError

from ecosystem import services
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import bootstrap_option, perform
from ecosystem.clients.checks import plan, store
from ecosystem.clients.checks.plan import Edit, TooManySets, UnknownCheck
from ecosystem.clients.checks.store import ChecksError, StoredChecks
from orders_service.settings import OrdersSettings
from runtime.common.settings import Settings
from schemas.messages import CheckSet, CheckType, RequiredChecks

_EXPECTED = (ChecksError, TooManySets, UnknownCheck)
_CHECK: TypeAdapter[CheckType] = TypeAdapter(CheckType)


class _Check(click.ParamType):
    name = "check"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return _CHECK.validate_python(value)
        except ValidationError:
            self.fail(f"{value!r} is not a check such as BULK_CHECK: up to 64 of A-Z, 0-9 and _", param, ctx)


class _Start(click.ParamType):
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime | None:
        if value == "now":
            return None
        try:
            start = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither 'now' nor a time such as 2026-07-01T12:00:00Z", param, ctx)
        if start.tzinfo is None:
            self.fail(f"{value!r} has no time zone: append Z for UTC", param, ctx)
        if start <= datetime.now(UTC):
            self.fail(f"{value!r} is not in the future: leave --from out for a change from now on", param, ctx)
        return start.astimezone(UTC)


_from_option = click.option(
    "--from",
    "start",
    type=_Start(),
    default="now",
    show_default=True,
    metavar="TIME",
    help="When the change takes effect: now, or a time in the future with its zone",
)


@click.group()
def checks() -> None:
    """List and change the checks that orders must pass."""


@checks.command("list")
@click.option("--repair", is_flag=True, help="Write the newest record to all partitions, if they differ")
@bootstrap_option
def list_(repair: bool, bootstrap: str | None) -> None:
    """Show all sets, and which one is in force.

    Tells whether all partitions agree.

    \b
    orders checks list
    """
    settings = discovery.settings(bootstrap)
    stored = perform(store.read(settings), bootstrap=bootstrap, expected=_EXPECTED)
    _show(stored.newest, settings)
    if not stored.differing:
        click.echo(f"All {len(stored.partitions)} partitions agree.")
    elif repair:
        perform(store.change(settings, _repaired), bootstrap=bootstrap, expected=_EXPECTED)
        click.echo(f"Repaired partition {_join(stored.differing)}.")
    else:
        text = f"Partition {_join(stored.differing)} has another record: run `orders checks list --repair`"
        raise click.ClickException(text)


@checks.command()
@click.argument("check", type=_Check())
@_from_option
@bootstrap_option
def add(check: str, start: datetime | None, bootstrap: str | None) -> None:
    """Require CHECK of new orders.

    Orders that were placed before TIME are decided without it. Start its validator first: an order without a verdict
    fails after VALIDATION_DEADLINE_S.

    \b
    orders checks add BULK_CHECK
    orders checks add BULK_CHECK --from 2027-01-01T00:00:00Z
    """
    settings = discovery.settings(bootstrap)
    if check not in services.checks(settings):
        seconds = settings.of(OrdersSettings).validation_deadline_s
        click.echo(
            f"Warning: no service installed here gives {check}. Unless a validator elsewhere does, orders that "
            f"require it fail after VALIDATION_DEADLINE_S ({seconds:g} s here).",
            err=True,
        )
    _change(settings, bootstrap, plan.addition(check), start, f"{check} is required already.")


@checks.command()
@click.argument("check", type=_Check())
@_from_option
@bootstrap_option
def remove(check: str, start: datetime | None, bootstrap: str | None) -> None:
    """Require CHECK no longer.

    Orders that wait for its verdict are decided without it. Stop its validator afterwards.

    \b
    orders checks remove BULK_CHECK
    """

    def require_known(record: RequiredChecks) -> None:
        plan.require_known(record, check)

    settings = discovery.settings(bootstrap)
    _change(settings, bootstrap, plan.removal(check), start, f"{check} is not required any more.", require_known)


def _change(
    settings: Settings,
    bootstrap: str | None,
    edit: Edit,
    start: datetime | None,
    unchanged: str,
    require: Callable[[RequiredChecks], None] = lambda record: None,
) -> None:
    initial = tuple(dict.fromkeys(settings.of(OrdersSettings).required_checks))
    written: RequiredChecks | None = None

    def next_record(stored: StoredChecks) -> RequiredChecks | None:
        nonlocal written
        now = datetime.now(UTC)
        record = plan.starting_with(stored.newest, initial, now)
        require(record)
        after = plan.changed(record, edit, start or now, now)
        if after is not record:
            written = after
            return after
        return _repaired(stored)

    before = perform(store.change(settings, next_record), bootstrap=bootstrap, expected=_EXPECTED)
    if written is None:
        click.echo(f"Nothing to do: {unchanged}")
        if before.differing:
            click.echo(f"Repaired partition {_join(before.differing)}.")
        return
    if before.newest is None:
        click.echo(f"The first change: it starts from REQUIRED_CHECKS of this environment, {_checks(initial)}.")
    _show(written, settings)


def _repaired(stored: StoredChecks) -> RequiredChecks | None:
    """The newest record under a new version, if partitions differ: two may have one version and other content."""
    if stored.newest is None or not stored.differing:
        return None
    return stored.newest.model_copy(update={"version": stored.newest.version + 1})


def _show(record: RequiredChecks | None, settings: Settings) -> None:
    now = datetime.now(UTC)
    if record is None or record.at(now) is None:
        initial = _checks(settings.of(OrdersSettings).required_checks)
        click.echo(f"No set is in force: each worker requires its REQUIRED_CHECKS, in this environment {initial}.")
    for one in sorted(record.sets, key=lambda s: s.since) if record else ():
        click.echo(f"{_status(one, record, now):<8}  from {_moment(one.since)}  {_checks(one.checks)}")


def _status(one: CheckSet, record: RequiredChecks | None, now: datetime) -> str:
    if one.since > now:
        return "to come"
    started = [s.since for s in record.sets if s.since <= now] if record else []
    return "in force" if one.since == max(started) else "over"


def _moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _checks(names: tuple[CheckType, ...]) -> str:
    return ", ".join(names) or "no check: every order is validated"


def _join(partitions: list[int]) -> str:
    return ", ".join(map(str, partitions))
