"""The order flow on Restate: a workflow for each order, a virtual object for each customer and for each product.

An order is placed by `POST /OrderFlow/{id}/run/send`, its outcome awaited by `GET
/restate/workflow/OrderFlow/{id}/attach`. Runs in an environment of its own (`requirements.txt`):

    granian --interface asgi --http 2 --port 9080 services:app
"""

from datetime import timedelta
from typing import Any

import restate

FRAUD_LIMIT = 2000
PLENTY = 1_000_000_000_000
"""Stock of a product: the generator never exhausts it."""
CHECKS = ("ORDER_DETAILS_CHECK", "FRAUD_CHECK", "INVENTORY_CHECK")
NO_JOURNAL = timedelta(0)
"""Journals of completed invocations are for debugging. Keeping them for a day, the default, costs disk and time."""

customer = restate.VirtualObject("Customer")
product = restate.VirtualObject("Product")
order_flow = restate.Workflow("OrderFlow")


@customer.handler("check", journal_retention=NO_JOURNAL)
async def check_customer(ctx: restate.ObjectContext, order: dict[str, Any]) -> bool:
    """Fails orders of a customer who reaches the limit.

    The sum has no end of a session, unlike elsewhere: reading the clock would be a durable step of its own.
    """
    total = (await ctx.get("total") or 0) + order["quantity"] * order["price"]
    ctx.set("total", total)
    return bool(total < FRAUD_LIMIT)


@product.handler("reserve", journal_retention=NO_JOURNAL)
async def reserve(ctx: restate.ObjectContext, quantity: int) -> bool:
    """Reserves stock, and fails orders for more than is left."""
    reserved = (await ctx.get("reserved") or 0) + quantity
    if reserved > PLENTY:
        return False
    ctx.set("reserved", reserved)
    return True


@order_flow.main("run", journal_retention=NO_JOURNAL)
async def run(ctx: restate.WorkflowContext, order: dict[str, Any]) -> dict[str, Any]:
    """Runs the three checks, two of them at the same time, and returns the outcome, which Restate keeps."""
    pending = [
        ctx.object_call(check_customer, key=str(order["customerId"]), arg=order),
        ctx.object_call(reserve, key=order["product"], arg=order["quantity"]),
    ]
    answers = [order["quantity"] > 0 and order["price"] >= 0, *[await call for call in pending]]
    verdicts = [
        {"checkType": check, "validationResult": "PASS" if passed else "FAIL"}
        for check, passed in zip(CHECKS, answers, strict=True)
    ]
    return order | {"state": "VALIDATED" if all(answers) else "FAILED", "verdicts": verdicts}


app = restate.app([customer, product, order_flow])
