"""`orders pay`: write a payment to Kafka in place of a payment provider."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial

import click
from pydantic import ValidationError
from rich.console import Console

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import AMOUNT, NAME, perform, service_url_option, timeout_option
from ecosystem.clients.api import FulfilmentApi, RequestRejected
from ecosystem.clients.writer import Writer
from schemas.api import FulfilmentStatus
from schemas.identifiers import new_event_id
from schemas.messages import OrderState, Payment
from schemas.money import format_amount
from schemas.topics import PAYMENTS
from schemas.validation import describe_invalid

_POLL_S = 0.1


class _AmountUnknown(Exception):
    """The amount due is unknown: no order, or a failed one, or another currency."""


_ENDED = {OrderState.FAILED: "has FAILED", OrderState.CANCELLED: "was CANCELLED"}
"""States of an order for which nothing is due."""


@click.command()
@click.argument("order_id", metavar="ORDER_ID", type=NAME)
@click.option("--amount", type=AMOUNT, help="Amount of the payment  [default: what is missing of the order's value]")
@click.option("--ccy", help="Currency of the payment, three letters  [default: the currency of orders]")
@click.option("--wait/--no-wait", default=True, help="Wait until fulfilment has read the payment  [default: wait]")
@timeout_option
@service_url_option("fulfilment")
def pay(order_id: str, amount: Decimal | None, ccy: str | None, wait: bool, timeout: int, url: str) -> None:
    """Write a payment for ORDER_ID to Kafka.

    Shows what is still missing before the order is shipped.

    An order may be paid in parts, or before it is posted; then name the --amount. A payment in another currency than
    that of orders does not count.

    \b
    orders pay my-order
    orders pay my-order --amount 10 --ccy THB
    """
    if amount is not None and amount <= 0:
        raise click.UsageError("--amount must be more than 0")

    async def write_payment() -> None:
        console = Console(highlight=False)
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(FulfilmentApi(url))
            before = await _status(api, order_id) if wait or amount is None else None
            order_currency = before.currency if before else discovery.currency()
            due = _due(order_id, before, ccy) if amount is None else amount
            if due <= 0:
                console.print(f"{order_id} is paid already", markup=False, soft_wrap=True)
                return
            payment = Payment(id=f"p-{new_event_id()}", order_id=order_id, ccy=ccy or order_currency, amount=due)
            writer = await stack.enter_async_context(Writer(discovery.settings()))
            await writer.write(PAYMENTS, [payment])
            line = f"{format_amount(due, payment.ccy)} for {order_id}, payment {payment.id}"
            console.print(line, markup=False, soft_wrap=True)
            if wait:
                status = await _wait_for(api, order_id, partial(_includes, payment, before), timeout)
                console.print(_result(status, payment), markup=False, soft_wrap=True)

    try:
        perform(write_payment(), url, expected=(_AmountUnknown,))
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error


async def _status(api: FulfilmentApi, order_id: str) -> FulfilmentStatus | None:
    try:
        return await api.status(order_id, 0)
    except RequestRejected as refusal:
        if refusal.status != 404:
            raise
        return None


def _due(order_id: str, status: FulfilmentStatus | None, ccy: str | None) -> Decimal:
    if status is None or status.value is None:
        raise _AmountUnknown(f"There is no order {order_id!r} (yet). To pay nevertheless, name an --amount.")
    if status.state in _ENDED:
        ended = _ENDED[status.state]
        raise _AmountUnknown(f"{order_id} {ended}: nothing is due. To pay nevertheless, name an --amount.")
    if ccy is not None and ccy.upper() != status.currency:
        missing = format_amount(status.value - status.paid, status.currency)
        raise _AmountUnknown(
            f"{order_id} lacks {missing}; a payment in {ccy} does not count. To pay nevertheless, name an --amount."
        )
    return status.value - status.paid


def _includes(payment: Payment, before: FulfilmentStatus | None, now: FulfilmentStatus) -> bool:
    """Whether fulfilment has read the payment: its sums have grown since `before`."""
    if payment.ccy != now.currency:
        return now.ignored_payments > (before.ignored_payments if before else 0)
    return now.paid >= payment.amount + (before.paid if before else 0)


async def _wait_for(
    api: FulfilmentApi, order_id: str, condition: Callable[[FulfilmentStatus], bool], timeout_ms: int
) -> FulfilmentStatus | None:
    """Polls the status of the order until the condition holds; `None` if it does not in time."""
    deadline = time.monotonic() + timeout_ms / 1000
    while True:
        status = await _status(api, order_id)
        if status is not None and condition(status):
            return status
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_POLL_S)


def _result(status: FulfilmentStatus | None, payment: Payment) -> str:
    if status is None:
        return "The payment is written; the fulfilment service has not read it yet."
    if payment.ccy != status.currency:
        return f"The payment does not count: orders are in {status.currency}. {_missing(status)}"
    return _missing(status)


def _missing(status: FulfilmentStatus) -> str:
    if status.state is OrderState.CANCELLED:
        return "The order is CANCELLED: the payment is to be refunded."
    missing = ", ".join(status.missing)
    return f"Missing before it is shipped: {missing}" if missing else "Nothing is missing: it is shipped."
