"""Whether a group has read what was written for it, as it is seen from outside."""

import asyncio

from ecosystem.clients.groups import lagging_groups
from schemas.messages import StockLevel
from schemas.topics import ORDERS, PRODUCTS, WAREHOUSE_INVENTORY
from tests.workers import Deployment, until

TOPICS = (WAREHOUSE_INVENTORY.name, PRODUCTS.name)


async def test_a_group_lags_until_it_has_committed_all_records(deployment: Deployment):
    settings = deployment.settings()
    worker = await deployment.start("inventory")
    assert await lagging_groups(settings, ["inventory"], TOPICS) == []
    release, commit = asyncio.Event(), worker._member.engine.loop._checkpoint.commit

    async def held(*arguments):
        await release.wait()
        return await commit(*arguments)

    worker._member.engine.loop._checkpoint.commit = held
    await deployment.send(WAREHOUSE_INVENTORY, StockLevel(product="MUG", count=1))
    assert await lagging_groups(settings, ["inventory"], TOPICS) == ["inventory"]
    assert await lagging_groups(settings, ["inventory"], [PRODUCTS.name, ORDERS.name]) == []
    release.set()

    async def up_to_date():
        return await lagging_groups(settings, ["inventory"], TOPICS) == []

    await until(up_to_date, "has read it")


async def test_a_group_without_members_lags(deployment: Deployment):
    worker = await deployment.start("inventory", "details")
    assert await lagging_groups(deployment.settings(), [worker.topology.group, "details"], TOPICS) == ["details"]
    await deployment.stop(worker)
    assert await lagging_groups(deployment.settings(), [worker.topology.group], TOPICS) == [worker.topology.group]
