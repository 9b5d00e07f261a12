"""What a worker has written to redo tables since its restore: where they end, and which redo records are not cleared.

The redo records of a batch are cleared with those of the next one, which mostly overwrite them: the keys of pieces are
the same from restore to restore. Tombstones are for the other ones. Pure.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from runtime.model.records import LastOffsets, TopicPartition, Write


class RedoProgress:
    """The end of each redo table, and the redo records of the last batch.

    Arguments:
        ends: last offset of each partition of a redo table, as the restore left it.
    """

    def __init__(self, ends: Mapping[TopicPartition, int]) -> None:
        self._ends = dict(ends)
        self._uncleared: dict[tuple[str, int, bytes | None], None] = {}
        """Topic, partition and key of each redo record."""

    def next(self, redo: Sequence[Write]) -> list[Write]:
        """The records to write before the rows of a batch: tombstones of the batch before, then its redo records.

        Nothing may be written between: a tombstone after the redo record that has its key would clear that one.

        Arguments:
            redo: redo records of the batch; empty to clear those of the last batch.
        """
        overwritten = {write[:3] for write in redo}
        return [*(Write(*place, None) for place in self._uncleared if place not in overwritten), *redo]

    def wrote(self, writes: Sequence[Write], ends: LastOffsets) -> bool:
        """Notes that what `next` returned is written. Returns whether no other worker wrote to these redo tables.

        Arguments:
            writes: tombstones and redo records.
            ends: last offset of each partition that they were written to.
        """
        self._uncleared = {write[:3]: None for write in writes if write.value is not None}
        written = Counter(TopicPartition(write.topic, write.partition) for write in writes)
        for tp, count in written.items():
            self._ends[tp] = self._ends.get(tp, -1) + count
        return all(ends[tp] == self._ends[tp] for tp in written)
