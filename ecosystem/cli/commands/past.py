"""`orders list`, `orders history`, `orders explain`: ask the history about orders."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecosystem.cli.commands.order_text import RESULT_STYLES, state_text
from ecosystem.cli.commands.shared import TIME, Whole, perform, service_url_option
from ecosystem.cli.discovery import currency
from ecosystem.clients.api import HistoryApi
from schemas.history import ListedOrder, OrderExplanation, OrderHistory, OrderPage
from schemas.messages import OrderState
from schemas.money import format_amount
from schemas.wire import Message

_MOST_OF_PAGE = 500
_UNLIMITED = 100_000
"""Columns of output that is not a terminal. Ids, header values and reasons are shorter."""

_url_option = service_url_option("history")
_json_option = click.option("--json", "json_", is_flag=True, help="Print the answer as JSON")


_STATE = click.Choice([state.value for state in OrderState], case_sensitive=False)


@click.command("list")
@click.option("--state", "states", type=_STATE, multiple=True, help="Only orders in this state; may be repeated")
@click.option("--customer", type=Whole(), metavar="ID", help="Only orders of this customer")
@click.option("--product", metavar="CODE", help="Only orders of this product")
@click.option("--reason", metavar="TEXT", help="Only orders with this text in a reason, FRAUD_CHECK for example")
@click.option("--from", "since", type=TIME, help="Created since this time, or since 12h ago")
@click.option("--to", "before", type=TIME, help="Created before this time")
@click.option("-q", "part", metavar="TEXT", help="Only orders with this text in an id, a reason or a header")
@click.option("--limit", type=Whole(1), default=50, show_default=True, help="Orders to show at most")
@click.option("--cursor", metavar="CURSOR", help="Continue where an earlier list ended")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object per order")
@_url_option
def list_(
    states: Sequence[str],
    customer: int | None,
    product: str | None,
    reason: str | None,
    since: datetime | None,
    before: datetime | None,
    part: str | None,
    limit: int,
    cursor: str | None,
    json_: bool,
    url: str,
) -> None:
    """List orders, newest first.

    \b
    orders list --state FAILED --from 24h
    orders list --customer 15 --product mug --limit 10
    orders list --reason FRAUD_CHECK --json
    orders list -q my-order
    """
    given = {"customerId": customer, "product": product, "reason": reason, "q": part}
    times = {name: _text(at) for name, at in (("from", since), ("to", before)) if at is not None}
    query = [*(("state", state) for state in states), *times.items()]
    query += [(name, str(value)) for name, value in given.items() if value is not None]

    async def read() -> OrderPage:
        shown: tuple[ListedOrder, ...] = ()
        following = cursor
        async with HistoryApi(url) as api:
            while True:
                more = [] if following is None else [("cursor", following)]
                page = await api.orders([*query, ("limit", str(min(limit - len(shown), _MOST_OF_PAGE))), *more])
                shown, following = shown + page.orders, page.next
                if following is None or len(shown) == limit:
                    return page.model_copy(update={"orders": shown})

    page = perform(read(), url)
    if json_:
        for order in page.orders:
            _print(order)
    else:
        _show_orders(page)
    _tell_lag(page.lag_seconds)
    if page.next is not None:
        click.echo(f"There are more orders: --cursor {page.next}", err=True)


@click.command()
@click.argument("order_id", metavar="ID")
@_json_option
@_url_option
def history(order_id: str, json_: bool, url: str) -> None:
    """Show every record about an order, from POST to e-mail.

    A line has the stage, the time, the seconds since the record before, and where the record lies.

    \b
    orders history my-order
    orders history my-order --json
    """

    async def read() -> OrderHistory:
        async with HistoryApi(url) as api:
            return await api.history(order_id)

    found = perform(read(), url)
    if json_:
        _print(found)
    else:
        _show_records(found)
    if found.more:
        click.echo("There are more records than the history shows of one order.", err=True)
    _tell_lag(found.lag_seconds)


@click.command()
@click.argument("order_id", metavar="ID")
@_json_option
@_url_option
def explain(order_id: str, json_: bool, url: str) -> None:
    """Explain why an order is in its state.

    Shows each verdict with the numbers behind it. They are recomputed from the records, under FRAUD_LIMIT,
    FRAUD_SESSION_GAP_S, CURRENCY and REQUIRED_CHECKS of the worker that answers.

    \b
    orders explain my-order
    orders explain my-order --json
    """

    async def read() -> OrderExplanation:
        async with HistoryApi(url) as api:
            return await api.explain(order_id)

    found = perform(read(), url)
    if json_:
        _print(found)
    else:
        _show_explanation(found)
    _tell_lag(found.lag_seconds)


def _show_orders(page: OrderPage) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("created", "id", "state", "customer", "quantity", "product", "value", "reasons"):
        table.add_column(name, overflow="fold")
    for o in page.orders:
        cells = (
            str(o.customer_id),
            str(o.quantity),
            o.product,
            format_amount(o.value, currency()),
            "; ".join(o.reasons),
        )
        table.add_row(_text(o.created_at), Text(o.id), state_text(o.state), *map(Text, cells))
    _console().print(table)


def _show_records(found: OrderHistory) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "produced", "after", "topic", "partition", "offset", ""):
        table.add_column(name, overflow="fold")
    for r in found.records:
        after = "" if r.seconds_since_previous is None else f"{r.seconds_since_previous:+.3f} s"
        place = (r.topic, str(r.partition), str(r.offset))
        table.add_row(r.stage, _text(r.produced_at), after, *map(Text, place), "repeated" if r.repeated else "")
    _console().print(table)


def _show_explanation(found: OrderExplanation) -> None:
    console = _console()
    console.print(Text.assemble(found.id, "  ", state_text(found.state), "  ", found.explanation), soft_wrap=True)
    for v in found.verdicts:
        result = (v.validation_result, RESULT_STYLES[v.validation_result])
        optional = "" if v.required else " (not required)"
        reason = f"  {v.reason}" if v.reason else ""
        console.print(Text.assemble("  ", result, f"  {v.check_type}{optional}{reason}"), soft_wrap=True)
        console.print(Text(f"        {v.explanation}"), soft_wrap=True)
        if v.agrees is False:
            doubt = "Other settings were in force, or records of that moment came in another order."
            console.print(Text(f"        These numbers do not give this verdict. {doubt}", "yellow"), soft_wrap=True)
    for check in found.missing:
        console.print(Text(f"  missing  {check}", "yellow"), soft_wrap=True)


def _print(body: Message) -> None:
    click.echo(body.to_json())


def _tell_lag(lag_s: float | None) -> None:
    if lag_s is None:
        click.echo("The history does not know yet how far it is behind.", err=True)
    elif lag_s:
        click.echo(f"The history is up to {lag_s:.0f} s behind.", err=True)


def _console() -> Console:
    """Tables are as wide as they need to be, unless a terminal is narrower: no id is cut for the next program."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
