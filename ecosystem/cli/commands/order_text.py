"""Prints an order and its outcome to the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from ecosystem.cli.discovery import currency
from schemas.api import OrderOutcome, Verdict
from schemas.messages import Order, OrderState, ValidationResult
from schemas.money import format_amount

_STATES = {OrderState.CREATED: "cyan", OrderState.FAILED: "red", OrderState.CANCELLED: "red"}
RESULT_STYLES = {ValidationResult.PASS: "green", ValidationResult.FAIL: "red", ValidationResult.ERROR: "yellow"}


def state_text(state: OrderState) -> Text:
    """Returns the state of an order in its colour."""
    return Text(state, _STATES.get(state, "green"))


def order_line(order: Order) -> Text:
    """Returns one line with id, state, customer, quantity, product and price."""
    price = format_amount(order.price, currency())
    return Text.assemble(
        order.id,
        "  ",
        state_text(order.state),
        f"  customer {order.customer_id}: {order.quantity} × {order.product} at {price}",
    )


def print_order(console: Console, order: Order) -> None:
    """Prints the order on one line, then one line for each reason."""
    console.print(order_line(order), soft_wrap=True)
    _print_reasons(console, order.reasons or ())


def print_outcome(console: Console, outcome: OrderOutcome) -> None:
    """Prints the order, then one line for each verdict, and for each reason that no verdict gives."""
    console.print(order_line(outcome.order.model_copy(update={"state": outcome.state})), soft_wrap=True)
    for verdict in outcome.verdicts:
        console.print(verdict_line(verdict), soft_wrap=True)
    failed = {v.check_type for v in outcome.verdicts if v.validation_result is not ValidationResult.PASS}
    _print_reasons(console, [reason for reason in outcome.reasons if reason.partition(":")[0] not in failed])


def verdict_line(verdict: Verdict) -> Text:
    """Returns one line with result, check and reason."""
    reason = f"  {verdict.reason}" if verdict.reason else ""
    result = (verdict.validation_result, RESULT_STYLES[verdict.validation_result])
    return Text.assemble("  ", result, f"  {verdict.check_type}{reason}")


def _print_reasons(console: Console, reasons: Iterable[str]) -> None:
    for reason in reasons:
        console.print(Text(f"  {reason}"), soft_wrap=True)
