"""The topology of a worker: its services, with the topics, processors and tables of all of them."""

from dataclasses import dataclass, field
from typing import Any

from runtime.model.service import OnKey, Processor, Service, Table
from schemas.topics import Topic


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """The services of one worker. The composition of services names the consumer group.

    >>> from runtime.model.service import Input, Service
    >>> from schemas.topics import ORDERS
    >>> topology = Topology((Service("b", (Input(ORDERS, print),), ()), Service("a", (), (ORDERS,))))
    >>> topology.group
    'a+b'
    >>> list(topology.consumed), list(topology.written)
    (['orders'], ['orders'])
    """

    services: tuple[Service, ...]
    group: str = field(init=False)
    consumed: dict[str, Topic[Any]] = field(init=False)
    processors: dict[str, tuple[tuple[Service, Processor[Any]], ...]] = field(init=False)
    tombstones: dict[str, tuple[tuple[Service, OnKey], ...]] = field(init=False)
    tables: dict[str, Table[Any]] = field(init=False)
    holders: dict[str, Service] = field(init=False)
    written: dict[str, Topic[Any]] = field(init=False)

    def __post_init__(self) -> None:
        names = [s.name for s in self.services]
        if not names:
            raise ValueError("a worker needs at least one service")
        if len(set(names)) < len(names):
            raise ValueError(f"each service once: {', '.join(names)}")
        processors: dict[str, list[tuple[Service, Processor[Any]]]] = {}
        tombstones: dict[str, list[tuple[Service, OnKey]]] = {}
        for service in self.services:
            for i in service.inputs:
                processors.setdefault(i.topic.name, []).append((service, i.processor))
                if i.on_tombstone is not None:
                    tombstones.setdefault(i.topic.name, []).append((service, i.on_tombstone))
        set_ = object.__setattr__
        set_(self, "group", "+".join(sorted(names)))
        set_(self, "consumed", {t.name: t for s in self.services for t in s.topics})
        set_(self, "processors", {name: tuple(p) for name, p in processors.items()})
        set_(self, "tombstones", {name: tuple(t) for name, t in tombstones.items()})
        set_(self, "tables", {t.name: t for s in self.services for t in s.all_tables})
        set_(self, "holders", {t.name: s for s in self.services for t in s.all_tables})
        set_(self, "written", {t.name: t for s in self.services for t in s.outputs})

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """The topics that the services consume or produce, each once."""
        return tuple({**self.consumed, **self.written}.values())
