"""Replays the records of a history in virtual time, in two variants: as it was, and under other settings.

Records from outside are processed when they were written. What services sent is recomputed; its records only say when.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from ecosystem.what_if.agenda import Agenda
from ecosystem.what_if.keyed_inputs import SKEW_MS, SLACK_MS, HeldInput, Judgement, KeyedInputs, Proved
from ecosystem.what_if.memory import Undo
from ecosystem.what_if.outcomes import Outcome
from ecosystem.what_if.recorded import Entry
from ecosystem.what_if.runner import NEVER, at_ms
from ecosystem.what_if.variant import Message, Variant, repartition_topic
from runtime.loop.overlay import OutputRecord
from runtime.loop.process import BatchProcessor, WorkItem
from runtime.model.records import Record
from runtime.model.service import Service
from schemas.messages import Cancellation, CheckType, Order, OrderState, OrderValidation, ValidationResult
from schemas.topics import CANCELLATIONS, FULFILMENTS, ORDER_VALIDATIONS, ORDERS

RANKS: Mapping[str, int] = {ORDERS.name: 1, ORDER_VALIDATIONS.name: 2}
"""Which of the records of one time come first: those from outside, then orders, then verdicts."""


class NotDivisible(Exception):
    """The orders cannot be divided among processes. Ask for one process."""


class Replay:
    """Replays records.

    Arguments:
        variants: the services as they were and, if asked for, under other settings.
        partitions: of every topic.
        entries: the orders that are replayed in full, with what is recorded of them. Of others, only the validators
            judge that keep state across products.
        deadline_ms: deadline of verdicts under the settings that were in force.
        own_product: whether the orders of a product are among `entries`; `None`: all are.
        proved: called with two inputs or judgements of which a validator must have processed the first one first.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        partitions: int,
        entries: Mapping[str, Entry],
        deadline_ms: float,
        own_product: Callable[[str], bool] | None = None,
        proved: Proved | None = None,
    ) -> None:
        self._proved = proved
        self._variants = tuple(variants)
        self._entries = entries
        self._deadline_ms = deadline_ms
        self._own_product = own_product
        self._agenda = Agenda(variants, lambda number, sent: self._route(number, sent, at_once=True))
        self._processor = BatchProcessor(variants[0].runner.topology, partitions, variants[0].runner.memory.store)
        self._validators = variants[0].validators
        self._topics = {check: repartition_topic(service) for check, service in self._validators.items()}
        self._everywhere = {
            check
            for check, topic in self._topics.items()
            if own_product is not None and topic is not None and topic.key_field != "product"
        }
        """Checks that judge all orders, because their state spans products."""
        self._inputs: dict[tuple[CheckType, str], KeyedInputs] = {}
        self._behind_ms: dict[CheckType, int] = {}
        """When each validator was last seen to lag."""
        self._kept_up_ms: dict[CheckType, int] = {}
        """When the last order was created that each validator judged before it lagged."""
        self._others: dict[str, Entry] = {}
        self._early: dict[str, list[OrderValidation]] = {}
        self.rejected = 0
        """Records that are no message of their topic, or lie in a wrong partition: they are dead-lettered."""

    def run(self, records: Iterable[Record], until_ms: int = NEVER) -> None:
        """Processes records, which come by time, until one is not before `until_ms`."""
        for ms, together in _by_time(records):
            if ms >= until_ms:
                break
            self._agenda.advance(ms)
            items = [(self._rank(item), item) for record in together if (item := self._read(record)) is not None]
            if len(items) > 1:
                items.sort(key=lambda ranked: ranked[0])
            for _, item in items:
                self._process(item)
                self._agenda.settle()
        self._agenda.finish()

    def _read(self, record: Record) -> WorkItem | None:
        if record.topic == ORDER_VALIDATIONS.name and not self._is_wanted(record):
            return None
        memory = self._variants[0].runner.memory
        item = self._processor.read(memory, record)
        if item is None:
            self.rejected += 1
            memory.outputs.clear()
        elif isinstance(item.subject, Order | OrderValidation) and item.subject.attempt is not None:
            return None  # judged is the first attempt to decide an order
        return item

    def _is_wanted(self, verdict: Record) -> bool:
        """Whether a verdict is of an order of this process, or of a check that judges all orders. Cheap."""
        if self._own_product is None or verdict.key is None or verdict.value is None:
            return True
        value = verdict.value
        return verdict.key.decode(errors="replace") in self._entries or any(
            check.encode() in value for check in self._everywhere
        )

    def _rank(self, item: WorkItem) -> int:
        """Order of the messages of one time. Failures come first: they change no state that passes depend on."""
        if isinstance(item.subject, Order):
            return 1 if item.subject.state is OrderState.CREATED else 4
        if isinstance(item.subject, OrderValidation):
            return 2 if item.subject.validation_result is ValidationResult.FAIL else 3
        return 0

    def _process(self, item: WorkItem) -> None:
        subject, topic = item.subject, item.topic
        if isinstance(subject, Order):
            if subject.state is OrderState.CREATED:
                self._create(subject, item)
            elif subject.state is OrderState.CANCELLED:
                self._cancel(subject)
        elif isinstance(subject, OrderValidation):
            self._follow(subject)
        elif topic not in {FULFILMENTS.name, CANCELLATIONS.name}:
            self._process_from_outside(item)

    def _create(self, order: Order, item: WorkItem) -> None:
        entry = self._entries.get(order.id)
        if entry is None:
            if not self._everywhere or order.id in self._others:
                return
            entry = self._others[order.id] = Entry()
        if entry.created_ms == NEVER:
            entry.created_ms, entry.partition, entry.order = self._agenda.now_ms, item.partition, order
            entry.value = order.value
        if order.id in self._entries:
            entry.queue = entry.queue or []
            message = Message(ORDERS.name, order, item.partition, item.time)
            self._agenda.at(self._seen_ms(entry), partial(self._decide, message))
        for verdict in self._early.pop(order.id, ()):
            self._follow(verdict)

    def _seen_ms(self, entry: Entry) -> int:
        """When the aggregator saw an order, as the time shows at which it was decided: deadlines count from then."""
        if entry.missing:
            seen = entry.decided_ms - max(entry.missing.values()) * 1000
        elif entry.decided_ms < NEVER:
            seen = entry.decided_ms - self._deadline_ms + 1
        elif entry.cancelled:
            seen = entry.final_ms - self._deadline_ms + 1
        else:
            return entry.created_ms
        return max(entry.created_ms, int(seen))

    def _cancel(self, order: Order) -> None:
        """Cancels an order as somebody outside did."""
        entry = self._entries.get(order.id)
        if entry is not None and entry.cancelled and entry.created_ms < NEVER:
            reason = (order.reasons or ("",))[0]
            cancellation = Cancellation(order_id=order.id, reason=reason)
            self._decide(Message(CANCELLATIONS.name, cancellation, entry.partition, at_ms(self._agenda.now_ms)))

    def _follow(self, recorded: OrderValidation) -> None:
        """Lets a validator judge an order whose verdict is recorded now. Verdicts of unknown checks stay."""
        check, order_id = recorded.check_type, recorded.order_id
        entry = self._entries.get(order_id) or self._others.get(order_id)
        if entry is None or entry.created_ms == NEVER:
            self._early.setdefault(order_id, []).append(recorded)
            return
        if check in entry.judged or entry.order is None:
            return  # repeated
        service = self._validators.get(check)
        own = order_id in self._entries
        if service is None:
            if own:
                self._pass_on(entry, recorded, [recorded for _ in self._variants])
            return
        if not own and check not in self._everywhere:
            return
        order = entry.order
        entry.judged |= {check}
        if entry.judged >= (self._validators.keys() if own else self._everywhere):
            entry.order = None
            self._others.pop(order_id, None)
        message = Message(ORDERS.name, order, entry.partition, at_ms(entry.created_ms))
        judgement = Judgement(entry, message, recorded, self._horizon_ms(check, entry.created_ms))
        if own and entry.queue is not None:
            entry.queue.append(judgement)
        inputs = self._inputs_of(check, self._key(check, order))
        if not inputs.judge(judgement):
            self._agenda.at(self._agenda.now_ms + SKEW_MS, partial(inputs.force, judgement))

    def _horizon_ms(self, check: CheckType, created_ms: int) -> int:
        """The time before which a validator has processed all inputs when it judges an order."""
        now = self._agenda.now_ms
        if now - created_ms > SLACK_MS:
            self._behind_ms[check] = now
        if now - self._behind_ms.get(check, -SLACK_MS) > SLACK_MS:
            self._kept_up_ms[check] = created_ms
        return min(created_ms, self._kept_up_ms.get(check, 0)) - SLACK_MS

    def _judged(self, judgement: Judgement) -> None:
        """Passes verdicts on in the order in which they are recorded."""
        queue = judgement.entry.queue
        while queue and queue[0].verdicts is not None:
            first = queue.pop(0)
            self._pass_on(first.entry, first.recorded, first.verdicts)

    def _pass_on(self, entry: Entry, recorded: OrderValidation, verdicts: Sequence[OrderValidation | None]) -> None:
        """Passes a verdict on to the aggregator, after its decision if that was made without the verdict."""
        due = self._agenda.now_ms
        if entry.missing and recorded.check_type in entry.missing:
            due = max(due, entry.decided_ms + SLACK_MS)
        elif entry.decided_ms == NEVER and entry.cancelled and due >= entry.final_ms - SLACK_MS:
            due = entry.final_ms + 1
        for number, verdict in enumerate(verdicts):
            if verdict is not None:
                self._agenda.at(due, partial(self._decide_in, number, ORDER_VALIDATIONS.name, verdict, entry.partition))

    def _process_from_outside(self, item: WorkItem) -> None:
        message = Message(item.topic, item.subject, item.partition, item.time, isinstance(item.subject, str))
        record = item.record
        assert record is not None
        for service in self._variants[0].outside.get(item.topic, ()):
            check = next(c for c, s in self._validators.items() if s is service)
            key = (record.key or b"").decode(errors="replace")
            topic = self._topics[check]
            if self._own_product is None or topic is None or check in self._everywhere or self._own_product(key):
                self._add(check, key, (item.topic, str(item.partition), record.offset), message)
        order_id = getattr(item.subject, "order_id", None) or getattr(item.subject, "order_no", None)
        if not message.tombstone and (order_id is None or order_id in self._entries):
            self._decide(message)

    def _add(self, check: CheckType, key: str, id_: tuple[str, str, int], message: Message) -> None:
        for number in range(len(self._variants)):
            self._inputs_of(check, key).add(number, HeldInput(id_, self._agenda.now_ms, message))

    def _decide(self, message: Message) -> None:
        """Processes a message in the services that are no validators, in each variant."""
        for number, variant in enumerate(self._variants):
            self._route(number, variant.decide(message))

    def _decide_in(self, number: int, topic: str, subject: object, partition: int) -> None:
        message = Message(topic, subject, partition, at_ms(self._agenda.now_ms))
        self._route(number, self._variants[number].decide(message))

    def _route(self, number: int, sent: Iterable[OutputRecord], *, at_once: bool = False) -> None:
        """Delivers what services sent, when its recorded counterpart was written; what timers sent, at once."""
        for topic, partition, _, value, _ in sent:
            now = self._agenda.now_ms
            entry = self._entries.get(getattr(value, "id" if topic.name == ORDERS.name else "order_id", ""))
            if entry is None:
                continue
            deliver = partial(self._decide_in, number, topic.name, value, partition)
            if isinstance(value, Order):
                outcome = Outcome.of(value.state, value.reasons)
                first, second = entry.outcomes
                entry.outcomes = (outcome, second) if number == 0 else (first, outcome)
                decided = value.state in {OrderState.VALIDATED, OrderState.FAILED}
                due = entry.decided_ms if decided and not at_once else now
                self._agenda.at(due, partial(self._distribute, number, value, partition))
            elif topic.name == FULFILMENTS.name:
                final = entry.recorded.state
                due = {OrderState.SHIPPED: entry.final_ms, OrderState.CANCELLED: entry.final_ms + 1}.get(final, now)
                self._agenda.at(due, deliver)
            elif topic.name in {CANCELLATIONS.name, ORDER_VALIDATIONS.name}:
                self._agenda.at(now, deliver)

    def _distribute(self, number: int, order: Order, partition: int) -> None:
        """Delivers the change of an order to all services."""
        self._decide_in(number, ORDERS.name, order, partition)
        message = Message(ORDERS.name, order, partition, at_ms(self._agenda.now_ms))
        given = HeldInput((order.id, order.state, 0), self._agenda.now_ms, message)
        for check in self._validators:
            if check in self._everywhere:
                self._require_no_effect(number, check, message)
            else:
                self._inputs_of(check, self._key(check, order)).add(number, given)

    def _require_no_effect(self, number: int, check: CheckType, message: Message) -> None:
        variant = self._variants[number]
        undo: Undo = []
        if variant.process(variant.validators[check], message, undo) or undo:
            raise NotDivisible(
                f"the validator of {check} keeps state across products and reacts to the outcome of orders, so they "
                "cannot be divided among processes: use --processes 1"
            )

    def _key(self, check: CheckType, order: Order) -> str:
        topic = self._topics[check]
        return order.id if topic is None else topic.key(order)

    def _inputs_of(self, check: CheckType, key: str) -> KeyedInputs:
        inputs = self._inputs.get((check, key))
        if inputs is None:
            services: tuple[Service, ...] = tuple(variant.validators[check] for variant in self._variants)
            inputs = KeyedInputs(services, self._variants, self._judged, self._route, self._proved)
            self._inputs[check, key] = inputs
        return inputs


def _by_time(records: Iterable[Record]) -> Iterator[tuple[int, list[Record]]]:
    """Groups successive records of one time."""
    together: list[Record] = []
    for record in records:
        if together and record.timestamp_ms != together[0].timestamp_ms:
            yield together[0].timestamp_ms, together
            together = []
        together.append(record)
    if together:
        yield together[0].timestamp_ms, together
