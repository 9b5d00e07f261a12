"""`orders checks` changes what orders must pass on running workers: every worker at once, without a restart."""

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from ecosystem.clients.checks import store
from ecosystem.clients.checks.plan import addition, changed, starting_with
from orders_service.state import CHECKS, ORDERS_VIEW
from schemas.messages import BuiltInCheck, OrderValidation, RequiredChecks, ValidationResult
from schemas.topics import ORDER_VALIDATIONS, ORDERS, REQUIRED_CHECKS
from tests.commands import orders
from tests.workers import WAIT_MS, Deployment, until

CREDIT = "CREDIT_CHECK"
BUILT_IN = [check.value for check in BuiltInCheck]


@contextlib.asynccontextmanager
async def credit_validator(deployment: Deployment):
    """Gives the verdict PASS of `CREDIT_CHECK` on every order."""

    async def judge():
        seen = set()
        while True:
            for order in await deployment.values(ORDERS):
                if order.id not in seen:
                    seen.add(order.id)
                    verdict = OrderValidation(
                        order_id=order.id, check_type=CREDIT, validation_result=ValidationResult.PASS
                    )
                    await deployment.send(ORDER_VALIDATIONS, verdict)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(judge())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def post(deployment, worker, *ids):
    for id_ in ids:
        await deployment.post(worker, id=id_, customerId=7, product="MUG", quantity=1, price=1)


async def validated(deployment, worker, order_id):
    status, body = await deployment.get(worker, order_id, "validated", timeout=WAIT_MS)
    assert status == 200
    return body


async def holds(deployment, required):
    """Waits until every partition of the aggregator has the set in force."""

    async def everywhere():
        rows = [RequiredChecks.from_json(r.value) for r in await deployment.records(CHECKS.changelog)]
        newest = max((row.version for row in rows), default=0)
        last = [row for row in rows if row.version == newest]
        return len(last) == 4 and all(row.at(datetime.now(UTC)) == tuple(required) for row in last)

    await until(everywhere, f"{required} on every partition", every=0.1)


def ids(name):
    """Ids that lie in all partitions, with a probability of all but 4 * 0.75 ** 24."""
    return [f"{name}-{n}" for n in range(24)]


async def test_checks_are_added_and_removed_while_orders_flow(deployment: Deployment, apart):
    workers = await deployment.start_core(apart=apart, orders=2)
    await deployment.stock(MUG=1000)
    await post(deployment, workers[0], *ids("before"))

    code, output = await orders(deployment, "checks", "add", CREDIT)
    assert code == 0, output
    assert "no service installed here gives CREDIT_CHECK" in output
    assert "it starts from REQUIRED_CHECKS of this environment" in output
    await holds(deployment, [*BUILT_IN, CREDIT])
    await post(deployment, workers[1], *ids("after"))

    for order_id in ids("before"):
        outcome = await validated(deployment, workers[1], order_id)
        assert (outcome["state"], outcome["required"], outcome["missing"]) == ("VALIDATED", BUILT_IN, [])
    for order_id in ids("after"):
        answered = await until(lambda id_=order_id: lacks_only_credit(deployment, workers[0], id_), "three verdicts")
        assert (answered["status"], answered["required"]) == (504, [*BUILT_IN, CREDIT])

    async with credit_validator(deployment):
        outcome = await validated(deployment, workers[0], "after-0")
    assert outcome["state"] == "VALIDATED"

    await post(deployment, workers[0], *ids("late"))
    for order_id in ids("late"):
        await until(lambda id_=order_id: lacks_only_credit(deployment, workers[0], id_), "three verdicts")
    code, output = await orders(deployment, "checks", "remove", CREDIT)
    assert code == 0, output
    for order_id in ids("late"):
        outcome = await validated(deployment, workers[1], order_id)
        assert (outcome["state"], outcome["required"]) == ("VALIDATED", BUILT_IN)


async def lacks_only_credit(deployment, worker, order_id):
    status, body = await deployment.get(worker, order_id, "validated", timeout=0)
    return body if status == 504 and body.get("missing") == [CREDIT] else None


async def test_the_set_survives_a_rebalance_and_a_restart(deployment: Deployment):
    stays, goes = await deployment.start_core(apart=False, orders=2)
    await deployment.stock(MUG=1000)
    assert (await orders(deployment, "checks", "remove", "FRAUD_CHECK"))[0] == 0
    without = [check for check in BUILT_IN if check != "FRAUD_CHECK"]
    await holds(deployment, without)

    await deployment.stop(goes)
    await post(deployment, stays, *ids("moved"))
    await deployment.stop(stays)
    (worker,) = await deployment.start_core(apart=False)
    await post(deployment, worker, *ids("restarted"))

    for order_id in [*ids("moved"), *ids("restarted")]:
        assert (await validated(deployment, worker, order_id))["required"] == without
    rows = await deployment.rows(ORDERS_VIEW)
    assert {row.required for row in rows.values()} == {tuple(without)}


async def test_commands_name_what_is_wrong_and_repair_what_differs(deployment: Deployment):
    code, output = await orders(deployment, "checks", "list")
    assert code == 1
    assert "does not exist: start a worker of the orders service" in output

    await deployment.start("orders")
    code, output = await orders(deployment, "checks", "list")
    assert code == 0
    assert "No set is in force: each worker requires its REQUIRED_CHECKS" in output
    code, output = await orders(deployment, "checks", "remove", CREDIT)
    assert code == 1
    assert "CREDIT_CHECK is not required, and never was. The checks are: FRAUD_CHECK" in output
    code, output = await orders(deployment, "checks", "add", "FRAUD_CHECK")
    assert (code, output) == (0, "Nothing to do: FRAUD_CHECK is required already.\n")
    assert await deployment.values(REQUIRED_CHECKS) == []

    assert (await orders(deployment, "checks", "remove", "FRAUD_CHECK"))[0] == 0
    code, output = await orders(deployment, "checks", "add", CREDIT, "--from", "2199-01-01T01:00:00+01:00")
    assert code == 0
    assert "to come   from 2199-01-01 00:00:00Z  INVENTORY_CHECK, ORDER_DETAILS_CHECK, CREDIT_CHECK" in output
    code, output = await orders(deployment, "checks", "list")
    assert code == 0
    assert "in force" in output
    assert "All 4 partitions agree." in output

    written = (await deployment.values(REQUIRED_CHECKS))[-1]
    foreign = written.model_copy(update={"version": 9, "sets": written.sets[:1]})
    await deployment.producer.send_and_wait(
        deployment.prefix + REQUIRED_CHECKS.name, foreign.to_json(), key=b"required-checks", partition=2
    )
    code, output = await orders(deployment, "checks", "list")
    assert code == 1
    assert "Partition 0, 1, 3 has another record: run `orders checks list --repair`" in output
    assert (await orders(deployment, "checks", "list", "--repair"))[0] == 0
    assert (await store.read(deployment.settings())).differing == []


async def test_of_concurrent_changes_each_holds_everywhere_or_nowhere(deployment: Deployment):
    await deployment.start("orders")
    settings = deployment.settings()

    async def add(check):
        def next_record(stored):
            now = datetime.now(UTC)
            return changed(starting_with(stored.newest, (), now), addition(check), now, now)

        try:
            await store.change(settings, next_record)
        except store.ChecksError as error:
            assert "another change of the required checks has begun" in str(error)  # noqa: PT017
            return None
        return check

    names = [f"CHECK_{n}" for n in range(6)]
    made = {check for check in await asyncio.gather(*map(add, names)) if check}

    assert made
    stored = await store.read(settings)
    assert stored.differing == []
    assert set(stored.newest.at(datetime.now(UTC))) == made
    by_partition = {}
    for record in await deployment.records(REQUIRED_CHECKS.name):
        by_partition.setdefault(record.partition, []).append(record.value)
    assert len(by_partition) == 4
    assert len(set(map(tuple, by_partition.values()))) == 1, "every partition has the same records, in the same order"


@pytest.fixture(params=[False, True], ids=["composed", "apart"])
def apart(request):
    return request.param
