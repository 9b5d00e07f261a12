"""The topology of a worker: its services, with the topics, processors and tables of all of them."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from runtime.model.progress import services_of
from runtime.model.redo import RedoPiece
from runtime.model.service import OnKey, Processor, Service, Start, Table
from schemas.topics import Topic

REDO = "-redo"
"""Suffix of the redo table of each service."""


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """The services of one worker. The composition of services names the consumer group.

    Arguments:
        services: the services.
        redo: names of services that have a redo table. Those without state have none in any case.
        group: the consumer group, if the worker joins one that runs already with fewer services.

    >>> from runtime.model.service import Input, Service
    >>> from schemas.topics import ORDERS
    >>> topology = Topology((Service("b", (Input(ORDERS, print),), ()), Service("a", (), (ORDERS,))))
    >>> topology.group
    'a+b'
    >>> list(topology.consumed), list(topology.written)
    (['orders'], ['orders'])
    >>> Topology(topology.services, group="a").joined
    frozenset({'b'})
    """

    services: tuple[Service, ...]
    redo: Collection[str] = ()
    group: str = ""
    joined: frozenset[str] = field(init=False)
    readers: dict[str, frozenset[str]] = field(init=False)
    consumed: dict[str, Topic[Any]] = field(init=False)
    processors: dict[str, tuple[tuple[Service, Processor[Any]], ...]] = field(init=False)
    tombstones: dict[str, tuple[tuple[Service, OnKey], ...]] = field(init=False)
    tables: dict[str, Table[Any]] = field(init=False)
    holders: dict[str, Service] = field(init=False)
    written: dict[str, Topic[Any]] = field(init=False)
    redo_tables: dict[str, Table[RedoPiece]] = field(init=False)

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
        group = self.group or "+".join(sorted(names))
        set_(self, "group", group)
        set_(self, "joined", frozenset(names) - services_of(group))
        set_(self, "readers", {topic: frozenset(s.name for s, _ in p) for topic, p in processors.items()})
        set_(self, "consumed", {t.name: t for s in self.services for t in s.topics})
        set_(self, "processors", {name: tuple(p) for name, p in processors.items()})
        set_(self, "tombstones", {name: tuple(t) for name, t in tombstones.items()})
        holders = {t: s for s in self.services for t in s.all_tables}
        redo_tables = {
            s.name: Table(f"{s.name}{REDO}", RedoPiece) for s in self.services if s.name in self.redo and s.all_tables
        }
        for service in self.services:
            if any(t.name == f"{service.name}{REDO}" for t in service.all_tables):
                raise ValueError(
                    f"table '{service.name}{REDO}' is the runtime's: name the table of the service otherwise"
                )
            if service.name in redo_tables:
                holders[redo_tables[service.name]] = service
        set_(self, "redo_tables", redo_tables)
        set_(self, "tables", {t.name: t for t in holders})
        set_(self, "holders", {t.name: s for t, s in holders.items()})
        set_(self, "written", {t.name: t for s in self.services for t in s.outputs})

    def in_group(self, group: str) -> "Topology":
        """These services as a member of another group."""
        return Topology(self.services, self.redo, group)

    def joined_readers(self, topic: str) -> frozenset[str]:
        """The services that read the topic and that the group's name does not contain."""
        return self.joined & self.readers.get(topic, frozenset())

    def start(self, service: str, topic: str) -> Start:
        """Where a service starts in a topic that it has never read: from now on if any of its inputs says so."""
        starts = {i.start for s in self.services if s.name == service for i in s.inputs if i.topic.name == topic}
        return Start.NOW if Start.NOW in starts else Start.BEGINNING

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """The topics that the services consume or produce, each once."""
        return tuple({**self.consumed, **self.written}.values())
