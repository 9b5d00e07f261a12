"""Parts of a processing loop, without a broker."""

import pytest

from runtime.loop.partitions import Partitions
from runtime.loop.timers import Timers
from runtime.model.records import TopicPartition
from runtime.model.service import Input, Service, Table
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY

TP = TopicPartition(WAREHOUSE_INVENTORY.name, 0)
LEVELS = Table("keeper-levels", StockLevel)
KEEPER = Service(
    "keeper", (Input(WAREHOUSE_INVENTORY, lambda level, ctx: ctx.put(LEVELS, level.product, level)),), (), (LEVELS,)
)
"""Keeps the last stock level of each product."""


def owned_by(service, ownership, stores):
    """The one partition of a service without side effects."""
    topology = Topology((service,))
    return Partitions(topology, 1, ownership, stores, Timers(topology), SideEffects(topology, pytest.fail), Watches())
