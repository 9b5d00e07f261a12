"""Faults under load: no order is lost, decided twice or stuck, and the stock adds up."""

import random

import pytest

from tests.chaos.brokers import brokers
from tests.chaos.campaign import LAYOUTS, MOST_WORKERS, campaign
from tests.chaos.faults import KINDS, NETWORK
from tests.chaos.toxiproxy import installed
from tests.go_modules import NotInstalled


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory):
    """Three nodes, and a lane for each worker."""
    async with brokers(tmp_path_factory.mktemp("cluster"), lanes=MOST_WORKERS) as cluster:
        yield cluster


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=lambda layout: layout.name)
async def test_kills_pauses_stops_and_lost_brokers_lose_and_duplicate_nothing(
    cluster, tmp_path, record_property, layout
):
    await hold(cluster, tmp_path, record_property, layout, KINDS - NETWORK)


async def test_network_faults_lose_and_duplicate_nothing(cluster, tmp_path, record_property):
    try:
        installed()
    except NotInstalled as missing:
        pytest.skip(str(missing))
    [layout] = [layout for layout in LAYOUTS if layout.name == "in-pairs"]
    await hold(cluster, tmp_path, record_property, layout, NETWORK | {"kill", "broker"})


async def hold(cluster, folder, record_property, layout, kinds):
    seed = random.randrange(10**6)
    record_property("seed", seed)
    print("seed", seed)
    rng = random.Random(seed)
    report = await campaign(
        cluster, folder, layout, rng, faults_a_round=8, enough=lambda rounds: rounds >= 1, kinds=kinds
    )
    print("\n".join(report.lines()))
    assert not report.violations
    assert report.acknowledged > 100
    assert report.faults.total() == 8
