"""Spans of attempts at side effects, below the message that enqueued them."""

from typing import Any

from pydantic import ValidationError

from runtime.model.service import PendingSideEffect, SideEffect
from runtime.model.traces import TraceContext
from runtime.side_effects.attempt import Attempt
from runtime.tracing.spans import ORDER_ID, Kind, Span, order_id_of
from runtime.tracing.tracer import Tracer


class SideEffectTracer:
    """Begins and ends the spans of attempts.

    Arguments:
        tracer: the tracer of the worker.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, service: str, effect: SideEffect[Any], pending: PendingSideEffect) -> Span | None:
        """Begins the span of an attempt; `None` if the row has no trace."""
        parent = TraceContext.of_row(pending.trace)
        if parent is None:
            return None
        span = self._tracer.begin(f"perform {effect.name}", parent, Kind.CLIENT, service)
        span.attributes["faust_orders.side_effect"] = effect.name
        return span

    def end(self, span: Span, attempt: Attempt) -> None:
        """Ends the span of an attempt that succeeded, failed or was cancelled."""
        if not span.context.sampled:
            return
        try:
            order_id = order_id_of(attempt.effect.model.from_json(attempt.pending.payload))
        except ValidationError:  # of another version of the service
            order_id = None
        if order_id is not None:
            span.attributes[ORDER_ID] = order_id
        error = attempt.failure
        cancelled = None if attempt.done else "CancelledError"
        self._tracer.end(span, cancelled if error is None else type(error).__name__)
