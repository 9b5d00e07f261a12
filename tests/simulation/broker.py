"""The simulated broker: partitions, transactions and groups behind the requests of clients."""

from zlib import crc32

from aiokafka.errors import InvalidTxnState, NotEnoughReplicasError

from runtime.model.records import TopicPartition
from tests.simulation.group import Group
from tests.simulation.log import PartitionLog
from tests.simulation.network import Pending
from tests.simulation.newcomer import Starts
from tests.simulation.transactions import TransactionCoordinator


class Broker:
    """A cluster of `NODES` that never loses an acknowledged record. Leaders are spread over all nodes."""

    NODES = 2
    START_MS = 1_577_880_000_000  # 2020-01-01T12:00:00Z
    FETCH_WAIT_S = 0.5

    def __init__(self, loop, random, trace):
        self.loop = loop
        self.random = random
        self.trace = trace
        self.logs = {}
        self._leaders = {}
        self._placement = random.randrange(1000)
        self.groups = {}
        self.newcomer_starts = Starts(self)
        self.transactions = TransactionCoordinator(self)
        self.marker_delay = 1.0
        """Factor by which transaction markers are delayed."""

    def now_ms(self):
        return self.START_MS + int(self.loop.now * 1000)

    def log(self, tp):
        log = self.logs.get(tp)
        if log is None:
            log = self.logs[tp] = PartitionLog(*tp)
        return log

    def group(self, name):
        if name not in self.groups:
            self.groups[name] = Group(self, name)
        return self.groups[name]

    def node(self, tp):
        """The leader of a partition. It differs between runs."""
        leader = self._leaders.get(tp)
        if leader is None:
            leader = self._leaders[tp] = (
                crc32(b"%d %s" % (self._placement + tp.partition, tp.topic.encode())) % self.NODES
            )
        return leader

    def topic(self, name):
        """The logs of a topic by partition."""
        return [self.logs[tp] for tp in sorted(self.logs) if tp.topic == name]

    def produce(self, producer, epoch, transactional_id, batches):
        """Produce to several partitions of one leader: {partition: (sequence, writes)}. Returns the first offsets."""
        result = {}
        for tp, (sequence, writes) in batches.items():
            if transactional_id is not None:
                try:
                    self.transactions.holds(transactional_id, producer, epoch, partition=tp)
                except InvalidTxnState:
                    raise NotEnoughReplicasError from None  # the error that a client from before KIP-890 gets
            log = self.log(tp)
            result[tp] = log.append(producer, epoch, sequence, transactional_id is not None, writes, self.now_ms())
            if self.trace:
                self.trace("broker", f"appends {len(writes)} to {tp.topic}[{tp.partition}] at {result[tp]}")
        return result

    def commit_offsets_in_transaction(self, group, transactional_id, producer, epoch, membership, offsets):
        self.transactions.holds(transactional_id, producer, epoch, group=group)
        self.group(group).commit_in_transaction(producer, membership.member_id, membership.generation, offsets)

    def write_marker(self, kind, target, transaction, done):
        """Writes a transaction marker to a partition or to the offsets of a group, after a delay."""
        epoch, committed = transaction.epoch, transaction.committed
        delay = 0.0005 + 0.004 * self.random.random() * self.marker_delay
        if self.random.random() < 0.05:
            delay = min(1.5, delay + 0.3 * self.random.random() * self.marker_delay)

        def write():
            if kind == "partition":
                self.log(target).end_transaction(transaction.producer, epoch, committed, self.now_ms())
            else:
                self.group(target).end_transaction(transaction.producer, committed)
            if self.trace:
                self.trace("broker", f"marks {'commit' if committed else 'abort'} in {_name(target)}")
            done(transaction)

        self.loop.at(self.loop.now + delay, None, write)

    def fetch(self, positions, most):
        """Committed records from the positions on. Waits up to the fetch timeout for the first one.

        Returns {partition: (requested position, records, next position)}. A partition may skip ahead without records.
        """
        found = self.fetch_now(positions, most)
        if found or not positions:
            return found
        pending = Pending()

        def look():
            found = self.fetch_now(positions, most)
            if found:
                pending.answer(found)

        for tp in positions:
            self.log(tp).when_readable(pending, look)
        self.loop.at(self.loop.now + self.FETCH_WAIT_S, None, pending.answer, {})
        return pending

    def ends(self, partitions, *, committed):
        """ListOffsets, latest."""
        return {tp: self.log(tp).stable if committed else self.log(tp).end for tp in partitions}

    def starts(self, partitions):
        """ListOffsets, earliest."""
        return {tp: self.log(tp).start for tp in partitions}

    def fetch_now(self, positions, most):
        """Like `fetch`, without waiting."""
        found = {}
        for tp, position in positions.items():
            log = self.log(tp)
            if position < log.start:
                found[tp] = (position, None, position)
            elif log.stable > position:
                records, behind = log.read(position, most)
                if behind > position:
                    found[tp] = (position, records, behind)
        return found


def _name(target):
    return f"{target.topic}[{target.partition}]" if isinstance(target, TopicPartition) else f"group {target}"
