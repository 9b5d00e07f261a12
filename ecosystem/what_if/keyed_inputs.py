"""The order in which a validator processed what bears on one key, such as a product, as its verdicts show it.

Kafka keeps no order between topics and partitions. What is kept is each verdict, with the numbers behind it. So an
order is judged where its verdict is recorded, and of the other inputs only as many are processed before as make the
validator give the recorded verdict (decision 42).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from ecosystem.what_if.memory import Undo
from ecosystem.what_if.recorded import Entry
from ecosystem.what_if.variant import Message, Variant
from runtime.loop.overlay import OutputRecord
from runtime.model.service import Service
from schemas.messages import OrderValidation

SLACK_MS = 1000
"""Milliseconds by which a validator may have read another input later than an order that was written after it.

Ten times what a poll takes. A validator that lags by more may have read its inputs in any order since it fell behind.
"""

SKEW_MS = 100
"""Milliseconds that an order waits for what its verdict needs: clocks differ, and many records have one time."""

_MOST_HELD = 64
"""Inputs that are held back at a time. Bounds the tries for one verdict."""

InputId = tuple[str, str, int]


class HeldInput(NamedTuple):
    """An input of a validator other than new orders. It has one id in both variants."""

    id: InputId
    ms: int
    message: Message


@dataclass(slots=True, eq=False)
class Judgement:
    """An order to be judged where its verdict is recorded.

    Inputs from before `horizon_ms` have been processed by then. `verdicts` are those of the variants, once judged.
    """

    entry: Entry
    message: Message
    recorded: OrderValidation
    horizon_ms: int
    verdicts: list[OrderValidation | None] | None = None


Proved = Callable[[HeldInput | Judgement, HeldInput | Judgement], None]


@dataclass(slots=True, eq=False)
class KeyedInputs:
    """What a validator processes under one key.

    Arguments:
        services: the validator in each variant.
        variants: as it was and, if asked for, under other settings.
        judged: called when an order is judged.
        sent: called with what an input other than an order made the validator send, and the number of the variant.
        proved: called with two of the first variant of which the first was processed before the second.
    """

    services: tuple[Service, ...]
    variants: tuple[Variant, ...]
    judged: Callable[[Judgement], None]
    sent: Callable[[int, list[OutputRecord]], None]
    proved: Proved | None = None
    held: deque[HeldInput] = field(default_factory=deque)
    twins: dict[InputId, HeldInput] = field(default_factory=dict)
    """Inputs held in the second variant, until those of the same id are processed in the first."""
    waiting: list[Judgement] = field(default_factory=list)
    last: Judgement | None = None

    def add(self, number: int, given: HeldInput) -> None:
        """Adds an input. It is held, unless nothing depends on when it is processed."""
        if number == 0:
            if not self._has_effect(given):
                return
            self.held.append(given)
            if len(self.held) > _MOST_HELD:
                self._process_first()
            self._retry()
        elif any(given.id == other.id for other in self.held):
            self.twins[given.id] = given
        else:
            self._process(number, given)

    def judge(self, judgement: Judgement) -> bool:
        """Judges an order if that gives the recorded verdict; otherwise it waits. Returns whether it was judged."""
        while self.held and self.held[0].ms < judgement.horizon_ms:
            self._process_first()
        if self._try(judgement):
            self._retry()
            return True
        self.waiting.append(judgement)
        return False

    def force(self, judgement: Judgement) -> None:
        """Judges an order that still waits, whatever verdict that gives."""
        if judgement in self.waiting:
            self.waiting.remove(judgement)
            while self.held:
                self._process_first()
            self._commit(judgement, self.variants[0].judge(self.services[0], judgement.message))
            self._retry()

    def _has_effect(self, given: HeldInput) -> bool:
        undo: Undo = []
        sent = self.variants[0].process(self.services[0], given.message, undo)
        changes = bool(undo or sent)
        self.variants[0].runner.memory.roll_back(undo)
        return changes or bool(self.held)

    def _try(self, judgement: Judgement) -> bool:
        """Processes as few of the held inputs as the recorded verdict needs. Changes nothing if it cannot be had."""
        variant, service = self.variants[0], self.services[0]
        memory = variant.runner.memory
        undo: Undo = []
        before: Undo = []
        for number in range(len(self.held) + 1):
            verdict = variant.judge(service, judgement.message, undo)
            if verdict is not None and _equal(verdict, judgement.recorded):
                if self.proved is not None:
                    memory.roll_back(undo)
                    self._prove(judgement, number, self.proved)
                    verdict = variant.judge(service, judgement.message, undo)
                if number:  # again, with what these inputs make the validators send
                    memory.roll_back(undo)
                    memory.roll_back(before)
                    for _ in range(number):
                        self._process_first()
                    verdict = variant.judge(service, judgement.message)
                self._commit(judgement, verdict)
                return True
            memory.roll_back(undo)
            if number < len(self.held):
                variant.process(service, self.held[number].message, before)
        memory.roll_back(before)
        return False

    def _prove(self, judgement: Judgement, number: int, proved: Proved) -> None:
        """Tells which of the held inputs must have been processed before an order, and which one behind it.

        Arguments:
            judgement: the order, which is not judged yet.
            number: of the held inputs, those that have been processed, as the recorded verdict needs them.
            proved: is told.
        """
        if number:
            proved(self.held[number - 1], judgement)
        variant, service = self.variants[0], self.services[0]
        further: Undo = []
        for given in islice(self.held, number, None):
            variant.process(service, given.message, further)
            tried: Undo = []
            verdict = variant.judge(service, judgement.message, tried)
            variant.runner.memory.roll_back(tried)
            if verdict is None or not _equal(verdict, judgement.recorded):
                proved(judgement, given)
                break
        variant.runner.memory.roll_back(further)

    def _commit(self, judgement: Judgement, verdict: OrderValidation | None) -> None:
        others = [s.judge(v, judgement.message) for s, v in zip(self.variants[1:], self.services[1:], strict=True)]
        judgement.verdicts = [verdict, *others]
        if self.proved is not None and self.last is not None:
            self.proved(self.last, judgement)
        self.last = judgement
        self.judged(judgement)

    def _process_first(self) -> None:
        given = self.held.popleft()
        self._process(0, given)
        twin = self.twins.pop(given.id, None)
        if twin is not None:
            self._process(1, twin)

    def _process(self, number: int, given: HeldInput) -> None:
        if sent := self.variants[number].process(self.services[number], given.message):
            self.sent(number, sent)

    def _retry(self) -> None:
        """Judges the orders that wait, as long as one of them gets its recorded verdict."""
        again = bool(self.waiting)
        while again:
            again = False
            for judgement in list(self.waiting):
                if judgement in self.waiting and self._try(judgement):
                    self.waiting.remove(judgement)
                    again = True


def _equal(verdict: OrderValidation, recorded: OrderValidation) -> bool:
    return verdict.validation_result is recorded.validation_result and verdict.reason == recorded.reason
