"""The topology of a worker: its services, with the topics, processors and tables of all of them."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from runtime.model.redo import RedoPiece
from runtime.model.service import OnKey, Processor, Service, Table
from schemas.topics import Topic

REDO = "-redo"
"""Suffix of the redo table of each service."""


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """The services of one worker. The composition of services names the consumer group.

    Arguments:
        services: the services.
        redo: names of services that have a redo table. Those without state have none in any case.

    >>> from runtime.model.service import Input, Service
    >>> from schemas.topics import ORDERS
    >>> topology = Topology((Service("b", (Input(ORDERS, print),), ()), Service("a", (), (ORDERS,))))
    >>> topology.group
    'a+b'
    >>> list(topology.consumed), list(topology.written)
    (['orders'], ['orders'])
    """

    services: tuple[Service, ...]
    redo: Collection[str] = ()
    group: str = field(init=False)
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
        set_(self, "group", "+".join(sorted(names)))
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

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """The topics that the services consume or produce, each once."""
        return tuple({**self.consumed, **self.written}.values())
