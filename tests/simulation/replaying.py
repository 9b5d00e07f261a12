"""An operator who replays records, and has failed orders decided anew: its events, and how these happen."""

import asyncio
from typing import Any

from ecosystem.replay.records import Place, original_headers, replay_headers
from orders_service.state import ORDERS_VIEW
from runtime.model.records import Write
from schemas.messages import Order, OrderState, Payment
from schemas.topics import CANCELLATIONS, FULFILMENTS, HOME_CHECKINS, ORDER_VALIDATIONS, ORDERS, PAYMENTS, Topic
from tests.simulation import messenger
from tests.simulation.schedule import LAST_FAULT_S, PRODUCTS, Event

REPLAYED = ("replayed", b"1")
"""Header of records that an operator has sent again as they were."""

STAGES: dict[str, tuple[Topic[Any], OrderState | None]] = {
    **{str(state): (ORDERS, state) for state in OrderState},
    "VERDICT": (ORDER_VALIDATIONS, None),
    "PAYMENT": (PAYMENTS, None),
    "CHECK_IN": (HOME_CHECKINS, None),
    "CANCELLATION": (CANCELLATIONS, None),
    "FULFILLED": (FULFILMENTS, None),
}
"""Topic of each stage, and the state of its orders."""
LATEST_S = LAST_FAULT_S + 6.0


class TimedWrite(Write):
    """A record with the timestamp of its original."""

    timestamp_ms: int


def with_messenger(random, groups):
    """The groups. In some worlds with replays one runs the messenger."""
    if random.random() < 0.4 and random.random() < 0.5:
        chosen = random.randrange(len(groups))
        return tuple(group + (messenger.NAME,) * (n == chosen) for n, group in enumerate(groups))
    return groups


def replays(random, events, *, fulfilment):
    """Events that replay stages of orders and decide failed ones anew.

    Some worlds get more stock for these, and payments and check-ins after them.
    """
    if random.random() >= 0.4:
        return
    orders = [event for event in events if event.what == "post"]
    if random.random() < 0.6:
        at = random.uniform(3, LATEST_S)
        for product in PRODUCTS:
            most = max(event.quantity for event in events if event.what == "stock" and event.product == product)
            # later than any other: stock only grows
            yield Event(max(at, 10.5), "stock", product=product, quantity=most + 30)
    if random.random() < 0.8:
        for order in orders:
            for _ in range(random.choice((0, 0, 1, 1, 2))):
                at = random.uniform(order.at, LATEST_S)
                yield Event(
                    at,
                    random.choice(("redecide", "redecide", "redecide", "redecide", "redecide wrongly")),
                    number=order.number,
                    name=random.choice(("", "perform")),
                    quantity=random.choice((1, 1, 2)),  # operators who read the log at the same time
                    seconds=random.choice((0.0, 0.05, 1.0)) * random.random(),
                )
        for order in orders if fulfilment else ():
            if random.random() < 0.5:
                paid = max(order.quantity, 0) * order.price
                at = LATEST_S + random.uniform(1, 3)
                yield Event(at, "pay", number=order.number, name=f"p{order.number}-late", price=paid)
                yield Event(at, "check in", number=order.number, name=f"c{order.number}-late")
    if random.random() < 0.7:
        for order in orders:
            for _ in range(random.choice((0, 0, 1, 2))):
                at, stage = random.uniform(order.at, LATEST_S), random.choice(tuple(STAGES))
                yield Event(at, "replay stage", number=order.number, name=stage)


class Replays:
    """The part of a world that replays and decides anew. The world has the other attributes."""

    broker: Any
    clients_process: Any
    trace: Any
    loop: Any
    _until_answered: Any
    _send: Any

    def prepare_replays(self):
        self.reopened = set()
        """Ids of orders of which a later attempt was sent."""
        self.redecided = self.resent = 0
        """Attempts and replays that were sent."""
        self._times = {}
        """How often each record was replayed."""

    def _replay_stage(self, event):
        """Sends the records of a stage again: byte for byte, with their headers and timestamps."""
        topic, state = STAGES[event.name]
        for log in self.broker.topic(topic.name):
            for entry in log.committed():
                about = _about(topic, entry)
                if about[0] != f"o{event.number}" or state not in (None, about[1]) or REPLAYED in entry.headers:
                    continue
                if any(name == "replayed-from" for name, _ in entry.headers):
                    continue  # the command replays no replays
                marks = self._marks(Place(topic.name, log.partition, entry.offset), perform=False)
                headers = (*original_headers(entry.headers), *marks, REPLAYED)
                write = TimedWrite(topic.name, log.partition, entry.key, entry.value, headers)
                write.timestamp_ms = entry.timestamp_ms
                self.resent += 1
                self.clients_process.start(self._until_answered(self._send(write, None)))

    def _redecide(self, event):
        """Sends a failed order as a new attempt, as the command does: only if the log says that it has failed."""
        place, known = self._known(f"o{event.number}")
        if known is not None and known.state is OrderState.FAILED:
            self._send_attempt(event, place, known)

    def _redecide_wrongly(self, event):
        """A client sends an attempt that nobody asked for: the order has not failed."""
        place, known = self._known(f"o{event.number}")
        if known is not None and known.state is not OrderState.FAILED:
            self._send_attempt(event, place, known)

    def _send_attempt(self, event, place, known):
        update = {"state": OrderState.CREATED, "reasons": None, "attempt": known.attempt_number + 1}
        value = known.model_copy(update=update).to_json()
        self.reopened.add(known.id)
        for n in range(event.quantity):
            headers = self._marks(place, perform=event.name == "perform")
            write = Write(ORDERS.name, place.partition, known.id.encode(), value, headers)
            self.redecided += 1
            self.clients_process.start(self._until_answered(self._send_later(n * event.seconds, write)))

    async def _send_later(self, seconds, write):
        await asyncio.sleep(seconds)
        await self._send(write, None)

    def _marks(self, place, *, perform):
        self._times[place] = self._times.get(place, 0) + 1
        return replay_headers(place, self._times[place], side_effects=perform)

    def _known(self, order_id):
        """Where the order was created first, and its state by the last attempt in the log, as in the history."""
        place, known = None, None
        for log in self.broker.topic(ORDERS.name):
            for entry in log.committed():
                if entry.key == order_id.encode():
                    order = Order.from_json(entry.value)
                    place = place or Place(ORDERS.name, log.partition, entry.offset)
                    if known is None or _rank(order) > _rank(known):
                        known = order
        return place, known

    def _reopened_and_open(self):
        """Whether an order of which a later attempt was sent is undecided."""
        rows = {}
        for log in self.broker.topic(ORDERS_VIEW.changelog) if self.reopened else ():
            rows |= {entry.key: entry.value for entry in log.committed()}
        found = (rows.get(order_id.encode()) for order_id in sorted(self.reopened))
        return any(raw is not None and not ORDERS_VIEW.model.from_json(raw).decided for raw in found)


_ORDER = tuple(OrderState)


def _rank(order):
    return order.attempt_number, _ORDER.index(order.state)


def _about(topic, entry):
    """The order that a record is about, and its state if it is an order."""
    if topic is ORDERS:
        return entry.key.decode(), Order.from_json(entry.value).state
    if topic is PAYMENTS:
        return Payment.from_json(entry.value).order_id, None
    return entry.key.decode(), None
