"""The log reader of restores, on the simulated broker."""

import asyncio
from contextlib import asynccontextmanager

from aiokafka.errors import KafkaError

from tests.simulation.group import UnstableOffsets
from tests.simulation.network import Channel

POLL_S = 0.05


class SimulatedRequests:
    """Implements `runtime.state.restore.LogReader`."""

    def __init__(self, process, network, broker, group, rows_at_once):
        self._network = network
        self._broker = broker
        self._group = broker.group(group)
        self._rows = rows_at_once
        self._coordinator = Channel(process, "requests:coordinator")
        self._nodes = [Channel(process, f"requests:{node}") for node in range(broker.NODES)]

    async def stable_commits(self, partitions):
        partitions = list(partitions)
        while True:
            offsets = await self._ask(self._coordinator, "OffsetFetch", lambda: self._fetch_offsets(partitions))
            if offsets is not None:
                return offsets
            await asyncio.sleep(POLL_S)

    async def log_ids(self, topics):
        return {}  # like a broker from before Kafka 2.8

    async def log_starts(self, partitions):
        return await self._of_each("ListOffsets", partitions, self._broker.starts)

    async def log_ends(self, partitions, *, committed):
        return await self._of_each(
            "ListOffsets", partitions, lambda asked: self._broker.ends(asked, committed=committed)
        )

    @asynccontextmanager
    async def reading(self, positions):
        yield _Reading(self, dict(positions))

    def _fetch_offsets(self, partitions):
        try:
            return self._group.fetch(partitions, stable=True)
        except UnstableOffsets:
            return None

    async def _of_each(self, name, partitions, operation):
        result = {}
        for node, asked in self._by_node(partitions).items():
            result |= await self._ask(self._nodes[node], name, lambda tps=asked: operation(tps))
        return result

    def _by_node(self, partitions):
        by_node = {}
        for tp in partitions:
            by_node.setdefault(self._broker.node(tp), []).append(tp)
        return by_node

    async def _ask(self, channel, name, operation):
        while True:
            try:
                return await self._network.call(channel, name, operation)
            except KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(POLL_S)

    async def fetch(self, positions):
        found = {}
        for node, asked in self._by_node(positions).items():
            wanted = {tp: positions[tp] for tp in asked}
            found |= await self._ask(
                self._nodes[node], "FetchChangelog", lambda w=wanted: self._broker.fetch_now(w, self._rows)
            )
        return found

    async def wait(self, positions):
        """Returns when more records may be available."""
        await self._ask(self._nodes[0], "Fetch", lambda: self._broker.fetch(positions, 1))


class _Reading:
    """Implements `runtime.state.restore.Reading`."""

    def __init__(self, requests, positions):
        self._requests = requests
        self._positions = positions

    async def rows(self):
        found = await self._requests.fetch(self._positions)
        rows = {}
        for tp, (_, records, behind) in found.items():
            self._positions[tp] = behind
            if records:
                rows[tp] = records
        if not found:
            await self._requests.wait(self._positions)
        return rows

    def positions(self):
        return dict(self._positions)
