"""A broker is unavailable for a while: acknowledged orders are decided, and no worker is restarted."""

import random

from ecosystem.services import CORE
from tests.chaos.books import Books
from tests.chaos.brokers import brokers
from tests.chaos.fleet import Fleet
from tests.chaos.load import Load
from tests.workers import Deployment

AWAY_S = 30.0
"""Seconds without the broker: longer than sessions, transactions and client timeouts."""


async def test_an_unavailable_broker_costs_no_order_and_no_restart(tmp_path, prefix):
    async with (
        brokers(tmp_path / "kafka", nodes=1) as broker,
        Deployment(broker.servers, prefix, tmp_path) as deployment,
        Fleet(deployment, CORE, CORE) as fleet,
    ):
        load = Load(fleet, random.Random(7), rate=40)
        await load.stock()
        async with load.running():
            await load.more(100)
            await broker.lose(1, AWAY_S)  # the duration of the fault, not a wait for a condition
            await load.more(100)
        await fleet.ready()

        async with Books(deployment) as books:
            violations = await books.audit(load)
        print("acknowledged", len(load.acknowledged), "refused", dict(load.refused), "asked", dict(load.answers))
        assert not violations
        assert load.refused.keys() <= {"503"}, "who was not acknowledged was told so, and when to come again"
        assert load.refused["503"] > 100
        assert fleet.exits.total() + len(fleet.crashes) == 0, "no worker ended"
