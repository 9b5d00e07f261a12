"""The invariants of cancelled orders and of the required checks. Each yields one sentence per violation."""

from collections import Counter

from orders_service.settings import OrdersSettings
from orders_service.state import CHECKS
from schemas.messages import OrderState, Payment, Refund
from schemas.topics import PAYMENTS, REFUNDS
from tests.simulation.cancelling import LATE_S


def cancelled_or_shipped(outcome):
    """A cancelled order is never shipped, and never announced in another state afterwards."""
    for order_id, announced in sorted(outcome.cancelled.items()):
        if outcome.shipped[order_id]:
            yield f"{order_id} is cancelled and shipped"
        if any(order.state is OrderState.FAILED for order, _ in outcome.terminal[order_id]):
            yield f"{order_id} is cancelled and failed"
        if len({(order.state, order.reasons) for order, _ in announced}) > 1:
            yield f"{order_id} is cancelled for {len(announced)} different reasons"
        if (view := outcome.views.get(order_id)) is None or view.order.state is not OrderState.CANCELLED:
            yield f"{order_id} was announced CANCELLED, its view says {view and view.order.state}"


def cancelled_once(outcome):
    for order_id, announced in sorted(outcome.cancelled.items()):
        if len(announced) > 1:
            yield f"{order_id} was announced CANCELLED {len(announced)} times"


def answers_hold(outcome):
    """A DELETE answered 200 means CANCELLED for ever, one answered 409 never."""
    for order_id in sorted(outcome.world.cancelled):
        if not outcome.cancelled[order_id]:
            yield f"DELETE of {order_id} was answered 200, it was never announced CANCELLED"
    for order_id, state in sorted(outcome.world.conflicts):
        view = outcome.views.get(order_id)
        if state is OrderState.FAILED and outcome.last.get(order_id, 1) > 1:
            continue  # it had failed, and was decided anew
        if outcome.cancelled[order_id] or view is None or view.order is None or view.order.state is not state:
            yield f"DELETE of {order_id} was answered 409 for {state}, which it is not"


def released(outcome):
    """A cancelled order holds no stock. The sums are those of `stock_adds_up`."""
    for order_id in sorted(outcome.cancelled):
        reservation = outcome.reservations.get(order_id)
        if reservation is not None and reservation.held:
            yield f"{order_id} is cancelled and holds {reservation.held} of {reservation.product}"


def refunded(outcome):
    """What was paid for a cancelled order, and nothing else, is announced for refund.

    A negative payment may have come before the order was cancelled, and lessens the refund, or later.
    """
    if not outcome.runs("fulfilment"):
        return
    least, most, back = Counter(), Counter(), Counter()
    for payment in {p.id: p for p in outcome.messages(PAYMENTS.name, Payment)}.values():
        if outcome.cancelled[payment.order_id]:
            least[payment.order_id] += payment.amount
            most[payment.order_id] += max(payment.amount, 0)
    for refund in {r.refund_id: r for r in outcome.messages(REFUNDS.name, Refund)}.values():
        back[refund.order_id] += refund.amount
    for order_id in sorted(most.keys() | back.keys()):
        if not max(least[order_id], 0) <= back[order_id] <= most[order_id]:
            yield f"{order_id}: {back[order_id]} announced for refund, {least[order_id]} to {most[order_id]} due"


def refunded_once(outcome):
    for refund_id, count in sorted(Counter(r.refund_id for r in outcome.messages(REFUNDS.name, Refund)).items()):
        if count > 1:
            yield f"refund {refund_id} was announced {count} times"


def checks_everywhere(outcome):
    """Every partition has the last required checks, and orders are judged by sets that were in force."""
    world = outcome.world
    if not world.required or not world.settled:
        return
    for partition in range(world.settings.partitions):
        rows = [CHECKS.model.from_json(value) for value in outcome.rows(CHECKS.changelog)[partition].values()]
        if rows != [world.required[-1]]:
            yield f"partition {partition} does not have the last required checks"
    last = frozenset(world.required[-1].sets[-1].checks)
    written = [frozenset(s.checks) for s in world.required[-1].sets]
    initial = frozenset(world.settings.of(OrdersSettings).required_checks)
    for order_id, view in sorted(outcome.views.items()):
        required = None if view.required is None else frozenset(view.required)
        if required is None or view.order is None:
            continue
        if not any(required <= checks for checks in (initial, *written)):
            yield f"{order_id} was judged by {', '.join(sorted(required))}, which was never in force"
        late = outcome.created.get(order_id, [0])[0] >= world.broker.START_MS + 1000 * LATE_S
        if late and world.last_fault < LATE_S - 5 and required != last:
            yield f"{order_id} was posted under {', '.join(sorted(last))}, judged by {', '.join(sorted(required))}"
