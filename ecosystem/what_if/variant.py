"""The services that decide orders, under certain settings: validators, which judge, and the others."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ecosystem.what_if.memory import Undo
from ecosystem.what_if.runner import ProcessorRunner
from runtime.hosting import ServiceDefinition
from runtime.loop.overlay import OutputRecord
from runtime.model.service import Service
from schemas.messages import Order, OrderValidation
from schemas.topics import CANCELLATIONS, CATALOGUE, FULFILMENTS, ORDER_VALIDATIONS, ORDERS, Topic

_DECIDING = {ORDERS, ORDER_VALIDATIONS, FULFILMENTS, CANCELLATIONS}
"""A service that writes one of these topics has a part in how orders end."""

Processor = Callable[[Any, Any], None]


class Message(NamedTuple):
    """A message to a service, or the key of a tombstone."""

    topic: str
    subject: Any
    partition: int
    time: datetime
    tombstone: bool = False


def deciding(definitions: Iterable[ServiceDefinition]) -> list[ServiceDefinition]:
    """Returns the services that have a part in how orders end."""
    return [d for d in definitions if _DECIDING.intersection(d.service.outputs)]


def repartition_topic(service: Service) -> Topic[Order] | None:
    """The topic by which a validator repartitions orders; `None` if it keeps its state by order."""
    return next((topic for topic in service.outputs if topic.internal and topic.model is Order), None)


class Variant:
    """Services under certain settings, with their state, timers and time.

    Arguments:
        definitions: the services that decide orders.
        partitions: of every topic.
    """

    def __init__(self, definitions: Sequence[ServiceDefinition], partitions: int) -> None:
        self.runner = ProcessorRunner([d.service for d in definitions], partitions)
        self.validators = {d.check: d.service for d in definitions if d.check is not None}
        topology = self.runner.topology
        names = {service.name for service in self.validators.values()}
        self._processors: dict[tuple[str, str, bool], list[Processor]] = {}
        self._deciding: dict[str, list[tuple[Service, Processor]]] = {}
        for topic in topology.consumed:
            for service, processor in topology.processors[topic]:
                self._processors.setdefault((service.name, topic, False), []).append(processor)
                if service.name not in names:
                    self._deciding.setdefault(topic, []).append((service, processor))
            for service, on_tombstone in topology.tombstones.get(topic, ()):
                self._processors.setdefault((service.name, topic, True), []).append(on_tombstone)
        public = {topic.name for topic in CATALOGUE}
        self.topics = sorted(public.intersection(topology.consumed))
        """Public topics that the services consume."""
        self.outside = {
            topic: [service for service in self.validators.values() if (service.name, topic, False) in self._processors]
            for topic in self.topics
            if topic not in {ORDERS.name, ORDER_VALIDATIONS.name}
        }
        """By topic other than orders: the validators that consume it."""

    def process(self, service: Service, message: Message, undo: Undo | None = None) -> list[OutputRecord]:
        """Processes a message in a service, with what that repartitions. Returns the public messages sent."""
        public: list[OutputRecord] = []
        for processor in self._processors.get((service.name, message.topic, message.tombstone), ()):
            sent = self.runner.run(service, processor, message.subject, message.partition, message.time, undo)
            public += self._repartitioned(service, sent, message.time, undo)
        return public

    def judge(self, service: Service, message: Message, undo: Undo | None = None) -> OrderValidation | None:
        """Lets a validator judge a new order, and returns the verdict."""
        for sent in self.process(service, message, undo):
            if sent.topic.name == ORDER_VALIDATIONS.name and isinstance(sent.value, OrderValidation):
                return sent.value
        return None

    def decide(self, message: Message) -> list[OutputRecord]:
        """Processes a message in the services that are no validators. Returns the public messages sent."""
        public: list[OutputRecord] = []
        for service, processor in self._deciding.get(message.topic, ()):
            sent = self.runner.run(service, processor, message.subject, message.partition, message.time)
            public += self._repartitioned(service, sent, message.time, None)
        return public

    def fire(self) -> list[OutputRecord]:
        """Fires the next timer. Returns the public messages sent."""
        service, sent = self.runner.fire()
        return self._repartitioned(service, sent, self.runner.memory.now, None)

    def _repartitioned(
        self, service: Service, sent: Sequence[OutputRecord], time: datetime, undo: Undo | None
    ) -> list[OutputRecord]:
        public = []
        for output in sent:
            if output.topic.internal:
                message = Message(output.topic.name, output.value, output.partition, time)
                public += self.process(service, message, undo)
            else:
                public.append(output)
        return public
