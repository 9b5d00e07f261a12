"""Planted bugs of replays and of attempts to decide an order anew."""

from unittest.mock import patch

from orders_service import processors as orders
from orders_service.processors import OrderAggregator
from orders_service.state import ORDERS_VIEW
from runtime.loop import process
from runtime.loop.overlay import ProcessorContext
from runtime.model.inheritance import NOTHING
from schemas.messages import Order
from tests.simulation.bugs import planted
from tests.simulation.cancelling_bugs import rebuilt
from validators.inventory import processors as inventory


@planted()
def verdicts_of_earlier_attempt_counted():
    """The aggregator decides a new attempt by the verdicts that it has, which are of the one before."""
    start = OrderAggregator._open

    def keep_verdicts(self, view, order, ctx):
        start(self, view.model_copy(update={"order": order}), order, ctx)

    with patch.object(OrderAggregator, "_open", keep_verdicts):
        yield


@planted()
def late_verdict_counted_for_the_next_attempt():
    """The aggregator does not look at the attempt of a verdict."""
    on_verdict = OrderAggregator.on_verdict

    def any_attempt(self, verdict, ctx):
        view = ctx.get(ORDERS_VIEW, verdict.order_id)
        attempt = None if view is None or view.order is None else view.order.attempt
        on_verdict(self, verdict.model_copy(update={"attempt": attempt}), ctx)

    with rebuilt(OrderAggregator, "on_verdict", any_attempt):
        yield


@planted()
def any_order_decided_anew():
    """A later attempt reopens an order that has not failed."""

    def reopens(order, known):
        return order.attempt_number > known.attempt_number and order.same_content(known)

    with patch.object(orders, "_reopens", reopens):
        yield


@planted()
def failed_attempt_keeps_its_pieces():
    """Inventory releases what an order holds by its id alone, and not what a later attempt holds."""
    with patch.object(inventory, "verdict_key", lambda order: order.id):
        yield


@planted(near=250)
def next_attempt_gets_old_verdict():
    """Validators keep their verdicts by order alone: a later attempt passes, and reserves nothing anew."""
    with patch.object(Order, "attempt_key", lambda self, key: key):
        yield


@planted()
def ignored_attempt_reserves():
    """Inventory reserves for an attempt although the one before has not failed."""
    with patch.object(inventory, "_has_failed", lambda attempt, order, ctx: True):
        yield


@planted()
def mark_lost_at_a_timer():
    """What a timer does counts as no replay, even if a replay has set it."""
    with patch.object(process, "from_row", lambda row: NOTHING):
        yield


@planted()
def mark_lost_at_a_fused_message():
    """A fused message counts as no replay, even if it follows from one."""
    item = process.WorkItem

    def unmarked(topic, partition, event_time, subject, processors, depth, record, cause, replayed):
        marks = NOTHING if depth else replayed
        return item(topic, partition, event_time, subject, processors, depth, record, cause, marks)

    with patch.object(process, "WorkItem", unmarked):
        yield


@planted()
def mark_lost_through_kafka():
    """A message that is not fused is written without the marks of the replay that it follows from."""
    headers = process._headers
    with patch.object(process, "_headers", lambda topic, time, replayed: headers(topic, time, NOTHING)):
        yield


@planted()
def replay_enqueues():
    """A replay has its side effects again."""
    enqueue = ProcessorContext.enqueue

    def enqueue_always(self, effect, key, payload):
        with self.acting_for(NOTHING):
            enqueue(self, effect, key, payload)

    with patch.object(ProcessorContext, "enqueue", enqueue_always):
        yield
