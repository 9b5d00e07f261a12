"""Fetches are delayed while they bring nothing but a worker's own records, and never for long."""

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from runtime.kafka.aiokafka_internals import pace_fetches
from runtime.kafka.fetch_pacing import FetchPacer
from tests.simulation.clock import SimulatedLoop

PATIENCE, PAUSE_S = FetchPacer.PATIENCE, FetchPacer.PAUSE_S
REQUEST = SimpleNamespace(topics=[("orders", [(0, 7, 1024)])])


def virtual_time(scenario):
    """Runs a coroutine on a loop whose time advances at once."""
    return SimulatedLoop().run(scenario, most_steps=100_000)


class Assignment:
    """One partition, at offset 7."""

    active = True

    def __init__(self):
        self.state = SimpleNamespace(has_valid_position=True, position=7, paused=False)

    def state_value(self, tp):
        return self.state


class Consumer:
    """Its fetcher answers at once."""

    def __init__(self):
        self._fetcher = self
        self.sent = []

    async def _proc_fetch_request(self, assignment, node, request):
        self.sent.append((node, asyncio.get_running_loop().time()))
        return True


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def pacer(consumer):
    pacer = FetchPacer()
    pace_fetches(consumer, pacer.pause, pacer.answered)
    return pacer


async def gaps(consumer, pacer, fetches, in_vain, node=1, assignment=None):
    """Seconds between so many fetches, of which each is polled at once."""
    began = len(consumer.sent)
    for _ in range(fetches):
        await consumer._fetcher._proc_fetch_request(assignment or Assignment(), node, REQUEST)
        pacer.polled(in_vain=in_vain)
    times = [at for _, at in consumer.sent[began:]]
    return [after - before for before, after in itertools.pairwise(times)]


def test_fetches_in_vain_are_delayed_after_many_of_them(consumer, pacer):
    found = virtual_time(gaps(consumer, pacer, PATIENCE + 3, in_vain=True))

    assert found == pytest.approx([0] * (PATIENCE - 1) + [PAUSE_S] * 3)


def test_fetches_with_records_to_process_are_never_delayed(consumer, pacer):
    async def scenario():
        for _ in range(5):
            pacer.polled(in_vain=False)
            found = await gaps(consumer, pacer, PATIENCE - 1, in_vain=True)
            assert found == pytest.approx([0] * (PATIENCE - 2))

    virtual_time(scenario())


def test_a_record_to_process_ends_a_delay_in_progress(consumer, pacer):
    async def scenario():
        await gaps(consumer, pacer, PATIENCE, in_vain=True)
        next_fetch = asyncio.create_task(consumer._fetcher._proc_fetch_request(Assignment(), 1, REQUEST))
        await asyncio.sleep(PAUSE_S / 3)
        assert not next_fetch.done()
        pacer.polled(in_vain=False)
        before = asyncio.get_running_loop().time()
        await next_fetch
        assert asyncio.get_running_loop().time() == before

    virtual_time(scenario())


def test_a_fetch_from_another_broker_is_not_delayed(consumer, pacer):
    async def scenario():
        await gaps(consumer, pacer, PATIENCE, in_vain=True)
        before = asyncio.get_running_loop().time()
        await consumer._fetcher._proc_fetch_request(Assignment(), 2, REQUEST)
        assert asyncio.get_running_loop().time() == before

    virtual_time(scenario())


def test_a_fetch_that_was_due_long_ago_is_not_delayed(consumer, pacer):
    async def scenario():
        await gaps(consumer, pacer, PATIENCE, in_vain=True)
        await asyncio.sleep(10 * PAUSE_S)
        before = asyncio.get_running_loop().time()
        await consumer._fetcher._proc_fetch_request(Assignment(), 1, REQUEST)
        assert asyncio.get_running_loop().time() == before

    virtual_time(scenario())


@pytest.mark.parametrize(
    ("name", "value"), [("position", 9), ("paused", True), ("has_valid_position", False), ("active", False)]
)
def test_a_request_that_is_outdated_after_its_delay_is_built_again(consumer, pacer, name, value):
    async def scenario():
        await gaps(consumer, pacer, PATIENCE, in_vain=True)
        assignment = Assignment()
        next_fetch = asyncio.create_task(consumer._fetcher._proc_fetch_request(assignment, 1, REQUEST))
        await asyncio.sleep(PAUSE_S / 3)
        setattr(assignment if name == "active" else assignment.state, name, value)
        assert await next_fetch is False
        assert len(consumer.sent) == PATIENCE

    virtual_time(scenario())


def test_a_delay_ends_when_partitions_are_revoked(consumer, pacer):
    async def scenario():
        await gaps(consumer, pacer, PATIENCE, in_vain=True)
        next_fetch = asyncio.create_task(consumer._fetcher._proc_fetch_request(Assignment(), 1, REQUEST))
        await asyncio.sleep(PAUSE_S / 3)
        next_fetch.cancel()  # as aiokafka does
        assert await next_fetch is False

    virtual_time(scenario())
