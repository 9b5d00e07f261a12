"""A processing loop without a broker."""

import pytest

from runtime.loop.partitions import Partitions
from runtime.loop.timers import Timers
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects


def owned_by(service, ownership, stores):
    """The one partition of a service without side effects."""
    topology = Topology((service,))
    return Partitions(topology, 1, ownership, stores, Timers(topology), SideEffects(topology, pytest.fail), Watches())
