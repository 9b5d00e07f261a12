"""A service that joins a group in the middle of a world. It counts the records of each key that it has processed."""

from runtime.hosting import ServiceDefinition
from runtime.model.log_ids import OffsetMetadata
from runtime.model.service import Input, Service, Start, Table
from schemas.topics import ORDERS, WAREHOUSE_INVENTORY, repartition
from schemas.wire import Message

NAME = "newcomer"
BY_PRODUCT = repartition(NAME, ORDERS, "product", lambda order: order.product)


class Count(Message):
    records: int = 0


TOPICS = {topic.name: topic for topic in (ORDERS, WAREHOUSE_INVENTORY, BY_PRODUCT)}
COUNTS = {name: Table(f"{NAME}-of-{name}", Count) for name in TOPICS}


def _counter(topic):
    table = COUNTS[topic.name]

    def count(message, ctx):
        key = topic.key(message)
        ctx.put(table, key, Count(records=(ctx.get(table, key) or Count()).records + 1))
        if topic is ORDERS:
            ctx.send(BY_PRODUCT, message)

    return count


def build(settings):
    inputs = (
        Input(ORDERS, _counter(ORDERS), start=Start.NOW),
        Input(WAREHOUSE_INVENTORY, _counter(WAREHOUSE_INVENTORY), lambda key, ctx: None),
        Input(BY_PRODUCT, _counter(BY_PRODUCT)),
    )
    return ServiceDefinition(Service(NAME, inputs, (BY_PRODUCT,), tuple(COUNTS.values())))


class Starts(dict):
    """Where the newcomer started in each partition: its first committed position, or the log start offset then."""

    def __init__(self, broker):
        super().__init__()
        self._broker = broker
        self.catches_up = False
        self._positions = {}

    def observe(self, group, offsets):
        """Reads committed offsets with their metadata."""
        for tp, committed in offsets.items():
            metadata = OffsetMetadata.parse(committed.metadata)
            position = metadata and metadata.progress.position(NAME, group, committed.offset)
            if position is None:
                continue
            self._positions[tp] = max(position, self._positions.get(tp, 0))
            if tp.topic == ORDERS.name and not self.catches_up:
                self[tp] = min(position, self.get(tp, position))  # transactions may end in another order
            else:
                self.setdefault(tp, self._broker.log(tp).start)

    def read(self, tp, read):
        """How far all services got, of which the others got up to `read`."""
        if tp.topic not in TOPICS or (tp.topic == ORDERS.name and not self.catches_up):
            return read
        return min(read, self._positions.get(tp, 0))
