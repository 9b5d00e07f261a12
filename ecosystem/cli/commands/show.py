"""An order and what became of it, for the terminal."""

from rich.console import Console
from rich.text import Text

from ecosystem.cli.running import currency
from schemas.api import OrderOutcome
from schemas.messages import Order, OrderState, ValidationResult
from schemas.money import format_amount

_STATES = {OrderState.CREATED: "cyan", OrderState.FAILED: "red"}
_RESULTS = {ValidationResult.PASS: "green", ValidationResult.FAIL: "red", ValidationResult.ERROR: "yellow"}


def order_line(order: Order) -> Text:
    """One line, its price in the currency of what runs here."""
    price = format_amount(order.price, currency())
    return Text.assemble(
        order.id,
        "  ",
        (order.state, _STATES.get(order.state, "green")),
        f"  customer {order.customer_id}: {order.quantity} × {order.product} at {price}",
    )


def print_order(console: Console, order: Order) -> None:
    """The order."""
    console.print(order_line(order), soft_wrap=True)


def print_outcome(console: Console, outcome: OrderOutcome) -> None:
    """The order, then its verdicts, a line each."""
    print_order(console, outcome.order.model_copy(update={"state": outcome.state}))
    for verdict in outcome.verdicts:
        said = f"  {verdict.reason}" if verdict.reason else ""
        result = (verdict.validation_result, _RESULTS[verdict.validation_result])
        console.print(Text.assemble("  ", result, f"  {verdict.check_type}{said}"), soft_wrap=True)
    if not outcome.verdicts:
        for reason in outcome.reasons:
            console.print(Text(f"  {reason}"), soft_wrap=True)
