"""The log of a partition as Kafka keeps it: records, transaction markers with offsets, the last stable offset."""

from typing import NamedTuple

from aiokafka.errors import InvalidProducerEpoch, OutOfOrderSequenceNumber

COMMITTED, OPEN, ABORTED, MARKER, COMPACTED = "committed", "open", "aborted", "marker", "compacted"


class Entry(NamedTuple):
    """A record or a marker. The fields of a record are those of `runtime.model.records.Record`."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple
    producer: int
    transactional: bool
    unreadable: str | None = None
    last_offset: int | None = None


class _Writer:
    """The state of a producer at a partition."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.next = 0
        self.acks = {}


class PartitionLog:
    def __init__(self, topic, partition):
        self.topic = topic
        self.partition = partition
        self.entries = []
        self.start = 0
        """The log start offset."""
        self.states = []
        self._writers = {}
        self._open = {}
        self._waiting = []

    @property
    def end(self):
        return len(self.entries)

    @property
    def stable(self):
        """The last stable offset: no transaction is open before it."""
        return min(self._open.values(), default=len(self.entries))

    def append(self, producer, epoch, sequence, transactional, writes, timestamp_ms):
        """Appends a batch of an idempotent producer, once. Returns the offset of its first record."""
        writer = self._writers.setdefault(producer, _Writer(epoch))
        if epoch < writer.epoch:
            raise InvalidProducerEpoch
        if epoch > writer.epoch:
            writer = self._writers[producer] = _Writer(epoch)
        if sequence in writer.acks:
            return writer.acks[sequence]
        if sequence != writer.next:
            raise OutOfOrderSequenceNumber
        base = len(self.entries)
        for write in writes:
            at_ms = getattr(write, "timestamp_ms", timestamp_ms)  # a replay has the timestamp of its original
            self._add(at_ms, write.key, write.value, tuple(write.headers), producer, transactional)
        if transactional:
            self._open.setdefault(producer, base)
        writer.acks[sequence] = base
        writer.next = sequence + len(writes)
        self._wake()
        return base

    def end_transaction(self, producer, epoch, committed, timestamp_ms):
        """Writes a transaction marker, which commits or aborts its records."""
        writer = self._writers.get(producer)
        if writer is None or writer.epoch < epoch:
            self._writers[producer] = _Writer(epoch)
        start = self._open.pop(producer, None)
        if start is not None:
            for offset in range(start, len(self.entries)):
                if self.entries[offset].producer == producer and self.states[offset] is OPEN:
                    self.states[offset] = COMMITTED if committed else ABORTED
        self.entries.append(Entry(len(self.entries), timestamp_ms, None, None, (), producer, True))
        self.states.append(MARKER)
        self._wake()

    def read(self, position, most):
        """Committed records from `position` on, and the next position, behind aborted records and markers."""
        records, states, stable = [], self.states, self.stable
        while position < stable and len(records) < most:
            if states[position] is COMMITTED:
                records.append(self.entries[position])
            position += 1
        while position < stable and states[position] is not COMMITTED:
            position += 1
        return records, position

    def committed(self):
        """Every record that was ever visible, in order, including compacted ones."""
        return [
            e for e, state in zip(self.entries, self.states, strict=True) if state is COMMITTED or state is COMPACTED
        ]

    def compact(self):
        """Removes records with a later record of the same key, up to the stable offset, as the log cleaner does."""
        latest = {}
        for offset in range(self.stable):
            if self.states[offset] is COMMITTED:
                key = self.entries[offset].key
                if key in latest:
                    self.states[latest[key]] = COMPACTED
                latest[key] = offset

    def expire(self, offset):
        """Removes records before an offset, as retention and DeleteRecords do, up to the last stable offset."""
        self.start = max(self.start, min(offset, self.stable))
        self._wake()

    def when_readable(self, pending, look):
        """Calls `look` at the next append, unless `pending` is answered by then."""
        if len(self._waiting) > 8:
            self._waiting = [waiting for waiting in self._waiting if not waiting[0].done]
        self._waiting.append((pending, look))

    def _add(self, timestamp_ms, key, value, headers, producer, transactional):
        self.entries.append(Entry(len(self.entries), timestamp_ms, key, value, headers, producer, transactional))
        self.states.append(OPEN if transactional else COMMITTED)

    def _wake(self):
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for pending, look in waiting:
                if not pending.done:
                    look()
                if not pending.done:
                    self._waiting.append((pending, look))
