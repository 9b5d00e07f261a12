"""Divides records into waves, so that no two of a wave bear on the same thing. Pure."""

from collections.abc import Hashable, Iterable, Iterator

from ecosystem.replay.records import Resubmission
from history_service.stages import Stage


class Waves:
    """Assigns waves to records that come in the order in which they are to be processed.

    Two records that share an order, a product or a customer are in different waves, in their order. A wave is the
    earliest that this allows. The required checks bear on every order: all records before them are in earlier waves,
    all after them in later ones.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, int] = {}
        self._floor = 0
        self._highest = 0

    def assign(self, record: Resubmission) -> int:
        """The wave of the next record, from 1."""
        keys = [*keys_of(record)]
        last = max([self._last.get(key, 0) for key in keys], default=0)
        if record.stage != Stage.REQUIRED_CHECKS:
            wave = max(last, self._floor) + 1
        else:
            # Records of several partitions that follow each other are one change of the checks.
            joins = last < self._floor == self._highest
            wave = self._floor = self._floor if joins else self._highest + 1
        for key in keys:
            self._last[key] = wave
        self._highest = max(self._highest, wave)
        return wave


def keys_of(record: Resubmission) -> Iterator[Hashable]:
    """What a record bears on."""
    if record.order_id is not None:
        yield "order", record.order_id
    if record.product is not None:
        yield "product", record.product
    if record.customer_id is not None:
        yield "customer", record.customer_id
    if record.stage == Stage.REQUIRED_CHECKS:
        yield "checks", record.partition


def waves(records: Iterable[Resubmission]) -> Iterator[tuple[int, Resubmission]]:
    """Each record with its wave."""
    assigner = Waves()
    for record in records:
        yield assigner.assign(record), record
