"""`orders what-if` on a real deployment: what it recomputes is what is recorded, in the topics and in the history."""

import asyncio
import json
import os
import sys

from ecosystem.services import CORE
from schemas.messages import Payment
from schemas.topics import PAYMENTS
from tests.integration.test_history_sink import is_read
from tests.workers import until


async def what_if(deployment, *arguments, **environment):
    """Runs the command. Returns its exit code and its answer."""
    mine = {
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "UNKNOWN_PRODUCTS": "pass",
        **environment,
    }
    command = [sys.executable, "-m", "ecosystem.cli", "what-if", "--json", "--processes", "1", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | mine, stdout=-1, stderr=-1)
    out, err = await process.communicate()
    assert out, err.decode()
    return process.returncode, json.loads(out)


async def test_a_day_is_recomputed_from_the_topics_and_from_the_history(deployment, database_url):
    services = (*CORE, "fulfilment", "history")
    worker = await deployment.start(*services, history_database_url=database_url)
    # Many at once, and stock meanwhile: orders, stock and each other's outcomes race.
    posts = [
        deployment.post(
            worker,
            id=f"o-{n}",
            customerId=n % 4,
            product=("mug", "pot")[n % 2],
            quantity=1 + n % 3,
            price=20 * (n % 7),
        )
        for n in range(80)
    ]
    await asyncio.gather(*posts[:10], deployment.stock(mug=50, pot=30))
    for begin in range(10, 80, 20):
        await asyncio.gather(*posts[begin : begin + 20], deployment.stock(mug=50 + begin))
    for n in range(80):
        await deployment.outcome(worker, f"o-{n}")
    await deployment.send(PAYMENTS, Payment(id="p", order_id="o-79", ccy="EUR", amount=1))
    await deployment.repeated(worker, "DELETE", "/v1/orders/o-78")
    await deployment.caught_up("+".join(sorted(services)))
    await until(lambda: is_read(deployment, database_url), "stored", every=0.2)

    code, from_topics = await what_if(deployment, "--topics", HISTORY_DATABASE_URL=database_url)
    assert from_topics["undecided"]["cases"] == []
    assert (code, from_topics["orders"]["orders"], from_topics["changes"]) == (0, 80, [])
    assert {"VALIDATED", "FAILED"} <= set(from_topics["states"])

    _, from_history = await what_if(deployment, HISTORY_DATABASE_URL=database_url)
    for answer in (from_topics, from_history):
        del answer["seconds"]
    assert from_history == from_topics

    code, other = await what_if(deployment, "--set", "FRAUD_LIMIT=500")
    assert code == 0
    assert ("FAILED", "FRAUD_CHECK") in {(c["to"]["state"], *c["to"]["reasons"]) for c in other["changes"]}
    assert other["undecided"]["orders"] == 0
