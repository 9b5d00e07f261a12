"""The audit on a real Kafka: nothing to find after a day's work, and each kind of violation once a topic holds it."""

import pytest

from ecosystem.audit import audit
from orders_service.state import ORDERS_VIEW
from schemas.messages import OrderState
from tests.workers import until


@pytest.fixture(params=["composed", "apart"])
async def worked(deployment, request):
    """A deployment that decided orders of every fate."""
    [worker] = await deployment.start_core(apart=request.param == "apart")
    await deployment.stock(MUG=10, KETTLE=1000)
    for n in range(8):
        _, body = await deployment.post(worker, id=f"o{n}", customerId=n, product="MUG", quantity=2, price=1)
        await deployment.outcome(worker, body["id"])
    await deployment.post(worker, id="dear", customerId=99, product="KETTLE", quantity=50, price=60)
    await deployment.post(worker, id="none", customerId=98, product="KETTLE", quantity=0, price=60)
    await deployment.outcome(worker, "dear")
    await deployment.outcome(worker, "none")
    return deployment


async def test_what_the_services_did_is_found_sound(worked):
    async def settled():
        report = await audit(worked.settings())
        assert report.violations == []
        return report if report.open == 0 else None

    report = await until(settled, "nothing open")
    print(report)
    assert report.counts["orders"] == 10
    assert report.counts[OrderState.VALIDATED] == 5
    assert report.counts[OrderState.FAILED] == 5
    assert report.counts["reserved"] == 10
    assert report.counts["products"] == 2
    assert not report.missing
