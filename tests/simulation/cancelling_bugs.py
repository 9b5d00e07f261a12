"""Planted bugs of cancelling and of the required checks."""

from contextlib import contextmanager
from unittest.mock import patch

from fulfilment_service import processors as fulfilment
from orders_service.processors import OrderAggregator
from orders_service.state import ORDERS_VIEW
from schemas.messages import OrderState
from tests.simulation.bugs import planted
from tests.simulation.worker import topology_of
from validators.inventory import processors as inventory


@planted()
def stock_released_twice_by_cancel():
    """A cancelled order gives back its pieces two times."""
    release = inventory._release

    def release_again(reservation, order, ctx):
        release(reservation, order, ctx)
        if order.state is OrderState.CANCELLED:
            release(reservation, order, ctx)

    with patch.object(inventory, "_release", release_again):
        yield


@planted()
def cancel_overtaken_by_shipping():
    """Cancelling looks only at whether the order has failed: a shipped order is cancelled all the same."""
    cancellable = property(lambda state: state is not OrderState.FAILED and state is not OrderState.CANCELLED)
    with patch.object(OrderState, "cancellable", cancellable):
        yield


@planted()
def cancelled_order_shipped():
    """A fulfilment that was under way ships an order although it has been cancelled meanwhile."""

    def ship(self, fulfilled, ctx):
        view = ctx.get(ORDERS_VIEW, fulfilled.order_id)
        if view is not None and view.order is not None and view.order.state is not OrderState.SHIPPED:
            self._move(view, view.order, OrderState.SHIPPED, view.reasons, ctx)

    with rebuilt(OrderAggregator, "on_fulfilled", ship):
        yield


@planted()
def payment_after_cancelling_not_refunded():
    """Only what was paid before an order was cancelled is refunded, not what is paid afterwards."""
    refund = fulfilment._refund

    def refund_earlier_alone(order_id, refund_id, ccy, amount, ctx):
        if refund_id == order_id:
            refund(order_id, refund_id, ccy, amount, ctx)

    with patch.object(fulfilment, "_refund", refund_earlier_alone):
        yield


@planted()
def checks_seen_by_half_of_the_partitions():
    """A record of required checks takes effect in every second partition only."""
    store = OrderAggregator.on_required_checks

    def store_in_half(self, required, ctx):
        if ctx._partition % 2 == 0:
            store(self, required, ctx)

    with rebuilt(OrderAggregator, "on_required_checks", store_in_half):
        yield


@contextmanager
def rebuilt(cls, name, function):
    """Patches a processor. Topologies are kept between worlds, with the processors they were built from."""
    with patch.object(cls, name, function):
        topology_of.cache_clear()
        try:
            yield
        finally:
            topology_of.cache_clear()
