"""`orders replay`: send records of the history again."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TextIO

import click

from ecosystem import services
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import TIME, Real, Whole, bootstrap_option, temp_option
from ecosystem.clients.wording import counted
from runtime.common.settings import Settings
from schemas.messages import OrderState

if TYPE_CHECKING:
    from ecosystem.replay.selection import Service
    from history_service.stages import Stage

_STATE = click.Choice([state.value for state in OrderState], case_sensitive=False)
_STAGES = (
    *("CREATED", "VERDICT", "VALIDATED", "FAILED", "ENRICHED", "LEVEL", "PAYMENT", "CHECK_IN", "CHECK_IN_REJECTED"),
    *("FULFILLED", "SHIPPED", "CANCELLATION", "CANCELLED", "REFUND"),
    *("STOCK", "CUSTOMER", "PRODUCT", "PRODUCT_ALERT", "REQUIRED_CHECKS"),
)
"""Those of `ecosystem/replay/stages.py`, which imports too much for `--help`."""


@click.command()
@click.argument("order_ids", nargs=-1, metavar="[ORDER_ID...]")
@click.option(
    "--ids", type=click.File(encoding="utf-8"), metavar="FILE", help="Orders by id, one a line; -: standard input"
)
@click.option("--all", "all_", is_flag=True, help="All orders of the history")
@click.option("--state", "states", type=_STATE, multiple=True, help="Only orders in this state; may be repeated")
@click.option("--reason", metavar="TEXT", help="Only orders with this text in a reason, FRAUD_CHECK for example")
@click.option("--from", "since", type=TIME, help="Only what was created from then on, or since 12h ago")
@click.option("--to", "before", type=TIME, help="Only what was created before")
@click.option("--product", metavar="CODE", help="Only orders of this product")
@click.option("--customer", type=Whole(), metavar="ID", help="Only orders of this customer")
@click.option(
    "--failed-service", metavar="SERVICE", help="Only orders with a dead letter of it, or that its check did not pass"
)
@click.option(
    "--stage",
    "stages",
    type=click.Choice(_STAGES, case_sensitive=False),
    multiple=True,
    metavar="STAGE",
    help="Send the records of this stage; may be repeated  [default: CREATED]",
)
@click.option("--inputs", is_flag=True, help="Send what came from outside, so that all else is computed anew")
@click.option("--redecide", is_flag=True, help="Decide FAILED orders anew, as a new attempt")
@click.option("--in-order", is_flag=True, help="Send in the order of processing; wait for what each wave changes")
@click.option("--replays-too", is_flag=True, help="Also send records that are replays, or follow from one")
@click.option("--max-replays", type=Whole(1), default=3, show_default=True, help="Replays of a record at most")
@click.option("--with-side-effects", is_flag=True, help="Repeat side effects outside, such as e-mails")
@click.option("--overwrite", is_flag=True, help="Set back stock and customers that have newer records")
@click.option("--dry-run", is_flag=True, help="Show what would be sent and changed, and send nothing")
@click.option("--yes", is_flag=True, help="Do not ask before sending")
@click.option("--rate", type=Real(0.01), metavar="N", help="Records per second at most  [default: no limit]")
@click.option(
    "--resume",
    "resume_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Record in it what is sent; continue where a replay with this file stopped",
)
@click.option("--limit", type=Whole(0), default=5, show_default=True, help="Records that are shown of the plan")
@click.option(
    "--history",
    metavar="URL",
    envvar="HISTORY_DATABASE_URL",
    help="Database of the history service  [env: HISTORY_DATABASE_URL; default: that of `orders up`]",
)
@click.option("--url", envvar="ORDERS_URL", metavar="URL", help="Orders service of the target, for the dry run")
@temp_option("what is sent")
@bootstrap_option
def replay(
    order_ids: tuple[str, ...],
    ids: TextIO | None,
    all_: bool,
    states: tuple[str, ...],
    reason: str | None,
    since: datetime | None,
    before: datetime | None,
    product: str | None,
    customer: int | None,
    failed_service: str | None,
    stages: tuple[str, ...],
    inputs: bool,
    redecide: bool,
    in_order: bool,
    replays_too: bool,
    max_replays: int,
    with_side_effects: bool,
    overwrite: bool,
    dry_run: bool,
    yes: bool,
    rate: float | None,
    resume_file: Path | None,
    limit: int,
    history: str | None,
    url: str | None,
    temp: Path | None,
    bootstrap: str | None,
) -> None:
    """Send records of the history again.

    Each goes to the topic of its stage, byte for byte, with its headers, time and partition, and is marked by
    `replayed-from`. Services process it as any other record: what is decided stays decided, so a repetition changes
    nothing. Side effects outside, such as e-mails, are not repeated.

    Orders are those named, or those that all of the filters fit. Shown first is what would be sent and what that
    changes; nothing is sent before you agree. Replays are not replayed, and no record more than --max-replays times.

    Stages of orders: CREATED, VERDICT, VALIDATED, FAILED, ENRICHED, LEVEL, PAYMENT, CHECK_IN, CHECK_IN_REJECTED,
    FULFILLED, SHIPPED, CANCELLATION, CANCELLED, REFUND. Others: STOCK, CUSTOMER, PRODUCT, PRODUCT_ALERT,
    REQUIRED_CHECKS.

    With --bootstrap the records go to another cluster, where workers must run. With --inputs --in-order an empty one
    comes to the same states.

    Exit code 0: all sent. 1: something could not be sent. 2: wrong usage.

    \b
    orders replay my-order --dry-run
    orders replay --state FAILED --reason FRAUD_CHECK --redecide
    orders replay --failed-service email --stage VALIDATED --with-side-effects
    orders replay --all --inputs --in-order --bootstrap test:9092 --resume day
    """
    from ecosystem.cli.replaying import Replaying
    from ecosystem.replay.selection import Selection
    from history_service.filters import Filters

    if sum(map(bool, (stages, inputs, redecide))) > 1:
        raise click.UsageError("--stage, --inputs and --redecide exclude each other: give one of them")
    if since and before and since >= before:
        raise click.BadParameter("it must be before --to", param_hint="--from")
    _check_part(reason)
    named = (*order_ids, *_ids_of(ids))
    filters = Filters(
        states=tuple(sorted(OrderState(state) for state in set(states))),
        customer_id=customer,
        product=product,
        reason=reason,
        since=since,
        before=before,
    )
    _check_orders(named, filters != Filters() or failed_service is not None, all_, given=bool(order_ids or ids))
    settings = discovery.settings(bootstrap)
    # That of `orders up` as well for another cluster: its records are what is replayed there.
    history = history or discovery.history_database()
    if not history:
        raise click.UsageError("name the database of the history by --history or HISTORY_DATABASE_URL")
    wanted = Selection(
        ids=named,
        filters=filters,
        failed=_failed(settings, failed_service),
        stages=_stages(stages, inputs),
        replays_too=replays_too,
        max_replays=max_replays,
        redecide=redecide,
        in_order=in_order,
        side_effects=with_side_effects,
    )
    if stages and set(wanted.stages) - {*wanted.of_orders, *wanted.of_no_order}:
        only = ", ".join(sorted(set(wanted.stages) - set(wanted.of_orders)))
        raise click.UsageError(f"{only} is about no order: leave out ids, --state, --reason and --failed-service")
    if not dry_run and not yes and not _is_terminal():
        raise click.UsageError("nobody can be asked, as the input is no terminal: add --yes, or --dry-run")
    orders_url = url or (discovery.url("orders") if bootstrap is None else None)
    command = Replaying(settings, wanted, history, orders_url, bootstrap)
    with TemporaryDirectory(prefix="replay-", dir=temp) as folder, ExitStack() as stack:
        resume = None if dry_run else command.resume(resume_file, stack)
        prepared = command.prepare(Path(folder), stack, resume)
        command.show(prepared, limit)
        if dry_run:
            return
        if prepared.obstacle is not None and not overwrite:
            raise click.ClickException(prepared.obstacle)
        total = prepared.plan.total
        if total and not yes:
            click.confirm(f"Send {counted(total, 'record')}?" if total > 1 else "Send it?", abort=True)
        command.send(prepared, resume, rate, resume_file)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _ids_of(file: TextIO | None) -> Sequence[str]:
    if file is None:
        return ()
    try:
        return [line.strip() for line in file if line.strip()]
    except UnicodeDecodeError:
        raise click.BadParameter("it is not UTF-8 text", param_hint="--ids") from None


def _check_part(reason: str | None) -> None:
    from history_service.filters import FEWEST_CHARACTERS, MOST_CHARACTERS

    if reason is not None and not FEWEST_CHARACTERS <= len(reason) <= MOST_CHARACTERS:
        raise click.BadParameter(
            f"it must have {FEWEST_CHARACTERS} to {MOST_CHARACTERS} characters", param_hint="--reason"
        )


def _check_orders(named: Sequence[str], filtered: bool, all_: bool, *, given: bool) -> None:
    if given and (filtered or all_):
        raise click.UsageError("name orders, or filter them, not both")
    if all_ and filtered:
        raise click.UsageError("--all is for all orders: leave it out, or the filters")
    if given and not named:
        raise click.BadParameter("it names no order", param_hint="--ids")
    if not (named or filtered or all_):
        raise click.UsageError("say which: ORDER_ID, --ids, filters such as --state FAILED, or --all")


def _stages(names: Sequence[str], inputs: bool) -> "tuple[Stage, ...]":
    from ecosystem.replay.stages import INPUTS
    from history_service.stages import Stage

    if inputs:
        return INPUTS
    return tuple(Stage(name) for name in dict.fromkeys(names)) or (Stage.CREATED,)


def _failed(settings: Settings, name: str | None) -> "Service | None":
    from ecosystem.replay.selection import Service

    if name is None:
        return None
    for definition in services.build_all(settings):
        if definition.service.name == name:
            return Service(name, definition.check)
    raise click.BadParameter(
        f"there is no service {name!r}; there are {', '.join(services.NAMES)}", param_hint="--failed-service"
    )
