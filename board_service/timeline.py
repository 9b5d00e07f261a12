"""The timeline of one order: from the records that the board follows, else from the history, else its state alone."""

from collections.abc import Iterable, Mapping
from typing import Any

from board_service.explanations import Explanations
from board_service.relay import Relay
from board_service.traces import FINAL, Trace, Traces, milliseconds, shortened
from runtime.hosting import Host
from schemas.messages import Order

_MOST_EVENTS = 60
_SHOWN = {
    "checkType": "check",
    "validationResult": "result",
    "reason": "reason",
    "ccy": "currency",
    "attempt": "attempt",
}
"""Fields of messages that are shown, and as what."""

_WAY = ("CREATED", "VERDICT", "VALIDATED", "FAILED", "ENRICHED", "PAYMENT", "CHECK_IN", "FULFILLED", "SHIPPED")
_RANK = {stage: number for number, stage in enumerate(_WAY)}
"""Order of stages that have the same time: a batch writes all of its records at once."""


class Timelines:
    """Finds timelines.

    Arguments:
        relay: asks other services.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def explanations(self, host: Host, order_id: str) -> Explanations:
        """Explanations of an order, which are asked for while its stream is open."""
        return Explanations(self._relay, host, order_id)

    async def find(self, traces: Traces, host: Host, order_id: str) -> dict[str, Any] | None:
        """The timeline; `None` if nobody knows the order."""
        trace = traces.get(order_id)
        if trace is not None and trace.whole:
            return _of_trace(trace)
        recorded = await self._relay.history(host, order_id)
        if recorded is not None and (found := _of_records(order_id, recorded["records"])) is not None:
            return found
        if trace is not None:
            return _of_trace(trace)
        order = await self._relay.order(host, order_id)
        return None if order is None else _of_order(order)


def _of_trace(trace: Trace) -> dict[str, Any]:
    return {
        **trace.row(),
        "price": trace.price,
        "events": sorted(trace.events, key=lambda event: (event["at"], _RANK.get(event["stage"], 0))),
        "source": "live" if trace.whole else "live, from the middle of its way",
        "final": trace.state in FINAL,
    }


def _of_records(order_id: str, records: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    events: list[dict[str, Any]] = []
    order: Mapping[str, Any] | None = None
    reasons: tuple[str, ...] = ()
    for record in records:
        payload = record.get("payload")
        if record.get("repeated") or not isinstance(payload, dict):
            continue
        event = {"stage": record["stage"], "at": milliseconds(record["producedAt"], 0)}
        event |= {name: payload[field] for field, name in _SHOWN.items() if payload.get(field) is not None}
        if record["stage"] == "PAYMENT":
            event["amount"] = payload.get("amount")
        if "reason" in event:
            event["reason"] = shortened(str(event["reason"]))
        if record["topic"] == "orders":
            order = payload
            if payload.get("reasons"):
                reasons = tuple(shortened(str(reason)) for reason in payload["reasons"])
                event["reasons"] = reasons
        events.append(event)
    if order is None:
        return None
    stages: dict[str, int] = {}
    for event in events:
        stages.setdefault(event["stage"], event["at"])
    return {
        "id": order_id,
        "customer": order["customerId"],
        "product": order["product"],
        "quantity": order["quantity"],
        "price": order["price"],
        "value": round(order["quantity"] * order["price"], 4),
        "state": order["state"],
        "created": milliseconds(order.get("createdAt"), events[0]["at"]),
        "changed": max(event["at"] for event in events),
        "reasons": reasons,
        "stages": stages,
        "events": events[:_MOST_EVENTS],
        "source": "history",
        "final": order["state"] in FINAL,
    }


def _of_order(order: Order) -> dict[str, Any]:
    created = round(order.created_at.timestamp() * 1000)
    return {
        "id": order.id,
        "customer": order.customer_id,
        "product": order.product,
        "quantity": order.quantity,
        "price": float(order.price),
        "value": float(order.value),
        "state": order.state.value,
        "created": created,
        "changed": created,
        "reasons": tuple(shortened(reason) for reason in order.reasons or ()),
        "stages": {"CREATED": created},
        "events": [{"stage": "CREATED", "at": created}],
        "source": "its present state: no history service answers",
        "final": order.state.final,
    }
