"""The records in `orders` by attempt to decide an order, as a read_committed client reads them."""

from collections import Counter, defaultdict

from runtime.model.inheritance import inheritable
from runtime.model.replays import suppresses_side_effects
from schemas.messages import FIRST_ATTEMPT, Order, OrderState
from schemas.topics import ORDERS
from tests.simulation.replaying import REPLAYED


class Attempts:
    """What `orders` says, by order id and number of the attempt. Records sent again by an operator announce nothing."""

    def __init__(self, broker):
        self.orders = {}
        """The first order of each id."""
        self.written = defaultdict(list)
        """Timestamps of the CREATED records of an attempt."""
        self.announced = defaultdict(list)
        """Other states, with their timestamps, in the order of the log."""
        self.asked = Counter()
        """Decided states whose side effects are due, by id, attempt and state. Unmarked repetitions count, too."""
        self.told_at = defaultdict(list)
        """Times at which a state was announced whose side effects are due."""
        for log in broker.topic(ORDERS.name):
            for entry in log.committed():
                self._read(entry)

    def _read(self, entry):
        order = Order.from_json(entry.value)
        attempt = order.id, order.attempt_number
        if order.state is OrderState.CREATED:
            self.written[attempt].append(entry.timestamp_ms)
            first = self.orders.setdefault(order.id, order)
            if order.created_at < first.created_at:
                self.orders[order.id] = order
            return
        due = not suppresses_side_effects(inheritable(entry.headers))
        self.asked[(*attempt, order.state)] += due
        if REPLAYED not in entry.headers:
            self.announced[attempt].append((order, entry.timestamp_ms))
            if due:
                self.told_at[attempt].append(entry.timestamp_ms)

    def last(self, order_id, view):
        """The attempt that counts: the last one that was accepted."""
        known = {number for id_, number in self.announced if id_ == order_id}
        if view is not None and view.order is not None:
            known.add(view.attempt)
        return max(known, default=FIRST_ATTEMPT)

    def accepted_before(self, order_id, last):
        """The attempts before the last one that were announced in some state."""
        return sorted(number for id_, number in self.announced if id_ == order_id and number < last)
