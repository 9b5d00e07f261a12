"""The transaction coordinator: producer epochs, the partitions of transactions, and their markers.

Behaves like Apache Kafka 4.1 towards clients from before KIP-890 part 2: no new epoch for each transaction, but a
partition accepts records only of a transaction that it was added to.
"""

from aiokafka.errors import ConcurrentTransactions, InvalidProducerEpoch, InvalidTxnState, ProducerFenced

EMPTY, ONGOING, COMMITTING, ABORTING, DONE = "empty", "ongoing", "committing", "aborting", "done"


class Transaction:
    def __init__(self, producer, timeout_s):
        self.producer = producer
        self.epoch = -1
        self.state = EMPTY
        self.committed = None
        self.partitions = {}
        self.groups = {}
        self.timeout_s = timeout_s
        self.number = 0
        self.markers_due = 0


class TransactionCoordinator:
    """One coordinator for all transactional ids.

    `mark(target, transaction_number, …)` writes a marker and calls back when it is written.
    """

    CLEANUP_S = 0.5
    """Seconds between checks for transactions past their timeout."""

    def __init__(self, broker):
        self._broker = broker
        self._by_id = {}
        self._producers = 0

    def new_producer(self):
        self._producers += 1
        return self._producers

    def start(self, transactional_id, timeout_s):
        """InitProducerId. First aborts the open transaction of an older producer. Returns producer id and epoch."""
        found = self._by_id.get(transactional_id)
        if found is None:
            found = self._by_id[transactional_id] = Transaction(self.new_producer(), timeout_s)
        if found.state is ONGOING:
            found.epoch += 1
            self._finish(found, committed=False)
            raise ConcurrentTransactions
        if found.state in (COMMITTING, ABORTING):
            raise ConcurrentTransactions
        found.epoch += 1
        found.state = EMPTY
        return found.producer, found.epoch

    def add(self, transactional_id, producer, epoch, partitions=(), group=None):
        """AddPartitionsToTxn and AddOffsetsToTxn."""
        found = self._checked(transactional_id, producer, epoch)
        if found.state in (COMMITTING, ABORTING):
            raise ConcurrentTransactions
        if found.state is not ONGOING:
            found.state = ONGOING
            found.number += 1
            found.partitions, found.groups = {}, {}
            loop = self._broker.loop
            late = loop.now + found.timeout_s + self.CLEANUP_S * self._broker.random.random()
            loop.at(late, None, self._expire, found, found.number)
        found.partitions.update(dict.fromkeys(partitions))
        if group is not None:
            found.groups[group] = None

    def end(self, transactional_id, producer, epoch, committed):
        """EndTxn. Returns when the decision is durable. The markers follow."""
        found = self._checked(transactional_id, producer, epoch)
        if found.state is ONGOING:
            self._finish(found, committed)
        elif found.state in (COMMITTING, ABORTING):
            if found.committed is not committed:
                raise InvalidTxnState
            raise ConcurrentTransactions
        elif not (found.state is DONE and found.committed is committed):
            raise InvalidTxnState

    def holds(self, transactional_id, producer, epoch, partition=None, group=None):
        """Verifies that a partition belongs to an open transaction (KIP-890 part 1)."""
        found = self._checked(transactional_id, producer, epoch)
        inside = partition in found.partitions if group is None else group in found.groups
        if found.state is not ONGOING or not inside:
            raise InvalidTxnState

    def _checked(self, transactional_id, producer, epoch):
        found = self._by_id.get(transactional_id)
        if found is None or found.producer != producer:
            raise InvalidTxnState
        if epoch < found.epoch:
            raise ProducerFenced if found.state is not ONGOING else InvalidProducerEpoch
        return found

    def _finish(self, transaction, committed):
        transaction.state = COMMITTING if committed else ABORTING
        transaction.committed = committed
        targets = [("partition", tp) for tp in transaction.partitions] + [("group", g) for g in transaction.groups]
        transaction.markers_due = len(targets)
        if not targets:
            transaction.state = DONE
        for kind, target in targets:
            self._broker.write_marker(kind, target, transaction, self._marked)

    def _marked(self, transaction):
        transaction.markers_due -= 1
        if transaction.markers_due == 0:
            transaction.state = DONE

    def _expire(self, transaction, number):
        if transaction.number == number and transaction.state is ONGOING:
            transaction.epoch += 1
            self._finish(transaction, committed=False)
