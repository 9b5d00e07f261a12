"""What the board knows: takes records of all topics, and says what changed. Pure but for its clock."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from board_service import emails, sessions, stock
from board_service.dead_letters import REDRIVE_NOTES, DeadLetters
from board_service.flow import SECONDS, Flow
from board_service.sessions import Sessions
from board_service.stock import StockLevels
from board_service.traces import Trace, Traces, shortened
from runtime.observation.feed import ObservedRecord, Stream
from schemas import topics
from schemas.topics import DEAD_LETTERS

SHOWN_ORDERS = 60
"""Orders in each list."""
CHARTED = ("CREATED", "VALIDATED", "FAILED", "SHIPPED")
_PAST_S = 300.0
"""Seconds of the past that a board shows at once."""
_PAST_RECORDS = 500
"""Records of each partition that are read of the past at most."""

_RARE_S = 2.0
"""Seconds for which the broker gathers dead letters: of many topics, and few."""

_EVENTS = (
    *(topics.ORDER_VALIDATIONS, topics.ORDERS_ENRICHED, topics.PAYMENTS, topics.HOME_CHECKINS),
    *(topics.CHECKIN_REJECTIONS, topics.FULFILMENTS, topics.CANCELLATIONS, topics.REFUNDS),
)
"""Topics about orders, besides their own."""
_EVENT_NAMES = frozenset(topic.name for topic in _EVENTS)
_BY_ORDER = (_EVENT_NAMES | {topics.ORDERS.name}) - {topics.PAYMENTS.name}
"""Those whose key is the order's id."""
_CHANGELOGS = frozenset((stock.CHANGELOG, sessions.CHANGELOG))

DEAD_LETTER_STREAM = Stream(lambda topic: topic.endswith(DEAD_LETTERS), 500, gather_s=_RARE_S)

STREAMS = (
    Stream(lambda topic: topic == topics.ORDERS.name, _PAST_RECORDS, _PAST_S, sampled=True, keyed=True),
    Stream(lambda topic: topic in _BY_ORDER, _PAST_RECORDS, _PAST_S, sampled=True, keyed=True),
    Stream(lambda topic: topic in _EVENT_NAMES, _PAST_RECORDS, _PAST_S, sampled=True),
    Stream(lambda topic: topic == emails.CHANGELOG, _PAST_RECORDS, _PAST_S, sampled=True),
    Stream(lambda topic: topic == REDRIVE_NOTES, 5000, gather_s=_RARE_S),
    DEAD_LETTER_STREAM,
    Stream(lambda topic: topic in _CHANGELOGS, 2000, latest=True, gather_s=1.0),
)
"""What a board reads. Orders first: a verdict in the same poll finds its order."""


class BoardObserver:
    """Implements `runtime.observation.feed.Observer`.

    Arguments:
        fraud_limit: total of a session at which orders fail.
        fraud_gap_s: seconds without an order that end a session.
        now_ms: the time, milliseconds since 1970.
    """

    def __init__(self, fraud_limit: float, fraud_gap_s: float, now_ms: Callable[[], int]) -> None:
        self._fraud = fraud_limit, fraud_gap_s
        self._now_ms = now_ms
        self.restart()

    def restart(self) -> None:
        """Forgets everything."""
        self.flow, self.traces, self.stock, self.dead_letters = Flow(), Traces(), StockLevels(), DeadLetters()
        self.sessions = Sessions(*self._fraud)
        self.started_ms = self._now_ms()
        self.records = 0
        self.unreadable = 0

    def observe(self, topic: str, records: Sequence[ObservedRecord], share: float) -> None:
        """Takes records of a partition."""
        self.records += len(records)
        if topic in _CHANGELOGS:
            # Only the last row of a key counts.
            self._rows(topic, {record.key: record for record in records}.values())
            return
        for record in records:
            try:
                if topic == emails.CHANGELOG:
                    if record.value is None:
                        self._email_sent(record.key, record.timestamp, share)
                elif topic == REDRIVE_NOTES:
                    self.dead_letters.redriven((record.key or b"").decode())
                elif topic.endswith(DEAD_LETTERS):
                    position = record.partition, record.offset
                    error = self.dead_letters.put(topic, position, record.timestamp, record.headers)
                    if topic == emails.REJECTED and error is not None:
                        self._email_rejected(record.key, record.timestamp, shortened(error))
                elif record.value is not None and record.unreadable is None:
                    self._message(topic, from_json(record.value), record.timestamp, share)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.unreadable += 1  # services dead-letter it

    def skip(self, from_ms: int, to_ms: int) -> None:
        """Takes note of a gap."""
        self.flow.skip(from_ms, to_ms)

    def narrow(self) -> None:
        """Forgets orders on their way: what becomes of some of them will not be read. The others come again."""
        self.traces.forget_undecided()

    def _rows(self, topic: str, records: Any) -> None:
        for record in records:
            try:
                row = None if record.value is None else from_json(record.value)
                key = (record.key or b"").decode()
                if topic == stock.CHANGELOG:
                    self.stock.put(key, row)
                else:
                    self.sessions.put(key, row)
            except (ValueError, TypeError, AttributeError):
                self.unreadable += 1

    def _message(self, topic: str, message: Mapping[str, Any], at_ms: int, share: float) -> None:
        if topic == topics.ORDERS.name:
            self._state(message, at_ms, share)
            return
        stage, order_id, details = _EVENTS_OF[topic](message)

        def add(trace: Trace) -> None:
            trace.add(stage, at_ms, **details)
            if stage == "VERDICT":
                self.flow.time(str(details["check"]), at_ms, at_ms - trace.created_ms)

        self.traces.whenever(order_id, add)
        counted = f"{details['check']} {details['result']}" if stage == "VERDICT" else stage
        self.flow.count(counted, at_ms, share)

    def _email_sent(self, key: bytes | None, at_ms: int, share: float) -> None:
        order_id, email = emails.parse(key)

        def add(trace: Trace) -> None:
            if emails.sent(trace, email, at_ms) and (since_ms := trace.latest(email.kind.upper(), at_ms)) is not None:
                self.flow.time("emailed", at_ms, at_ms - since_ms)

        self.traces.whenever(order_id, add)
        self.flow.count(emails.SENT_STAGE, at_ms, share)

    def _email_rejected(self, key: bytes | None, at_ms: int, reason: str) -> None:
        order_id, email = emails.parse(key)
        self.traces.whenever(order_id, lambda trace: emails.rejected(trace, email, at_ms, reason))

    def _state(self, order: Mapping[str, Any], at_ms: int, share: float) -> None:
        before = self.traces.get(str(order["id"]))
        undecided = before is None or before.decided_ms is None
        trace = self.traces.state(order, at_ms)
        self.flow.count(trace.state, at_ms, share)
        if trace.state in {"VALIDATED", "FAILED"} and undecided:
            self.flow.time("decided", at_ms, at_ms - trace.created_ms)
        elif trace.state == "SHIPPED" and trace.stages.get("VALIDATED") is not None:
            self.flow.time("shipped", at_ms, at_ms - trace.stages["VALIDATED"])

    def flow_snapshot(self, now_ms: int) -> dict[str, Any]:
        """Rates, charts and times."""
        self.flow.expire(now_ms)
        waiting, since = self.traces.undecided()
        return {
            "at": now_ms,
            "seconds": SECONDS,
            "rates": {stage: round(rate, 2) for stage, rate in self.flow.rates(now_ms).items()},
            "series": {stage: self.flow.series(stage, now_ms) for stage in CHARTED},
            "times": self.flow.times(now_ms),
            "undecided": waiting,
            "oldest": None if since is None else max(0, now_ms - since),
        }

    def orders_snapshot(self) -> dict[str, Any]:
        """The newest orders of each filter: rows, and the ids of each list."""
        rows: dict[str, Trace] = {}
        lists = {}
        for filter_ in ("all", "in-flight", "failed"):
            found = list(self.traces.newest(SHOWN_ORDERS, filter_))
            rows.update((trace.id, trace) for trace in found)
            lists[filter_] = [trace.id for trace in found]
        return {"known": len(self.traces), "rows": [trace.row() for trace in rows.values()], "lists": lists}


def _payment(message: Mapping[str, Any]) -> Any:
    amount, currency = float(message["amount"]), str(message["ccy"])
    return "PAYMENT", str(message["orderId"]), {"amount": amount, "currency": currency}


def _verdict(message: Mapping[str, Any]) -> Any:
    details = {"check": str(message["checkType"])[:64], "result": str(message["validationResult"])[:8]}
    if message.get("reason"):
        details["reason"] = shortened(str(message["reason"]))
    return "VERDICT", str(message["orderId"]), details


def _stage(stage: str, id_field: str, *shown: str) -> Callable[[Mapping[str, Any]], Any]:
    def read(message: Mapping[str, Any]) -> Any:
        details = {name: shortened(str(message[name])) for name in shown if message.get(name) is not None}
        return stage, str(message[id_field]), details

    return read


_EVENTS_OF: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    topics.ORDER_VALIDATIONS.name: _verdict,
    topics.ORDERS_ENRICHED.name: _stage("ENRICHED", "id"),
    topics.PAYMENTS.name: _payment,
    topics.HOME_CHECKINS.name: _stage("CHECK_IN", "orderNo"),
    topics.CHECKIN_REJECTIONS.name: _stage("CHECK_IN_REJECTED", "orderNo", "reason"),
    topics.FULFILMENTS.name: _stage("FULFILLED", "orderId"),
    topics.CANCELLATIONS.name: _stage("CANCELLATION", "orderId", "reason"),
    topics.REFUNDS.name: _stage("REFUND", "orderId", "amount"),
}
"""Stage, order and details of a message, by topic."""
