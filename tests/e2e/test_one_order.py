"""One order through the whole core."""

from schemas.topics import ORDERS
from tests.workers import Deployment


async def test_a_posted_order_is_validated_and_read_back(deployment: Deployment):
    worker = await deployment.start()
    await deployment.stock(JUMPERS=10)

    status, order = await deployment.post(worker, customerId=1, product="JUMPERS", quantity=1, price=1)
    outcome = await deployment.outcome(worker, order["id"])

    assert status == 201
    assert outcome["state"] == "VALIDATED"
    assert [o.state for o in await deployment.values(ORDERS)] == ["CREATED", "VALIDATED"]
