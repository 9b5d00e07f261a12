"""What commands print about an order: each reason once."""

from decimal import Decimal
from io import StringIO

import pytest
from rich.console import Console

from ecosystem.cli.commands.order_text import print_order, print_outcome
from schemas.api import OrderOutcome, Verdict
from schemas.messages import Order, OrderState, ValidationResult

LATE = "BULK_CHECK: no verdict within 60 s"


def order(*reasons):
    found = {"id": "o-1", "customer_id": 7, "product": "mug", "quantity": 2, "price": Decimal(12)}
    return Order(**found, state=OrderState.FAILED if reasons else OrderState.CREATED, reasons=reasons or None)


def verdict(check, result, reason=None):
    return Verdict(check_type=check, validation_result=result, reason=reason)


def printed(show, value):
    output = StringIO()
    show(Console(file=output, width=200), value)
    return output.getvalue().splitlines()[1:]


PASS, FAIL = ValidationResult.PASS, ValidationResult.FAIL


@pytest.mark.parametrize(
    ("verdicts", "reasons", "lines"),
    [
        ([], (), []),
        ([("FRAUD_CHECK", PASS)], (LATE,), ["  PASS  FRAUD_CHECK", f"  {LATE}"]),
        ([("FRAUD_CHECK", FAIL, "too much")], ("FRAUD_CHECK: too much",), ["  FAIL  FRAUD_CHECK  too much"]),
        (
            [("FRAUD_CHECK", FAIL, "too much")],
            ("FRAUD_CHECK: too much", LATE),
            ["  FAIL  FRAUD_CHECK  too much", f"  {LATE}"],
        ),
        ([], (LATE,), [f"  {LATE}"]),
    ],
)
def test_an_outcome_has_verdicts_and_the_reasons_that_no_verdict_gives(verdicts, reasons, lines):
    state = OrderState.FAILED if reasons else OrderState.VALIDATED
    found = [verdict(*said) for said in verdicts]
    outcome = OrderOutcome(id="o-1", state=state, order=order(*reasons), verdicts=found, reasons=reasons)
    assert printed(print_outcome, outcome) == lines


def test_an_order_has_its_reasons():
    assert printed(print_order, order(LATE)) == [f"  {LATE}"]
    assert printed(print_order, order()) == []
