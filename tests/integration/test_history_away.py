"""The database of the history is away: questions are answered 503, the rest of the worker goes on, all by itself."""

import asyncio
import os
import signal
from contextlib import contextmanager

import psutil
import pytest

from ecosystem.embedded.postgres import Postgres
from ecosystem.services import CORE
from tests.workers import PATIENCE_S, until

QUESTIONS = (
    "/v1/timings",  # first: it gets a connection that was open before
    "/v1/orders",
    "/v1/orders?q=first",
    "/v1/orders/first/history",
    "/v1/orders/first/explain",
    "/v1/orders/first?at=2026-11-29T00:00:00Z",
)
LIMIT_S = 1.0
"""Seconds of a request of the database. A question that may take longer must not take as long to be refused."""


@pytest.fixture
def server(tmp_path):
    with Postgres(tmp_path / "postgres") as server:
        yield server


@contextmanager
def killed(server):
    server.kill()
    yield
    server.restart()


@contextmanager
def frozen(server):
    """All its processes stand still: connections are open, and nothing answers."""
    postmaster = psutil.Process(server.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("away", [killed, frozen])
async def test_questions_are_refused_while_the_database_is_away_and_the_rest_goes_on(
    deployment, server, away, monkeypatch
):
    monkeypatch.setattr("history_service.http.LONGEST_S", 10 * PATIENCE_S)
    url = await asyncio.to_thread(server.database, "history")
    worker = await deployment.start(
        *CORE, "history", history_database_url=url, database_timeout_s=LIMIT_S, database_pool=2
    )

    async def place(order_id):
        await deployment.post(worker, id=order_id, customerId=1, product="mug", quantity=1, price=5)
        assert (await deployment.outcome(worker, order_id))["state"] == "VALIDATED"

    async def statuses():
        return [(await deployment.ask(worker, "GET", path)).status for path in QUESTIONS]

    async def knows(order_id):
        answer = await deployment.ask(worker, "GET", f"/v1/orders/{order_id}/history")
        stages = [record["stage"] for record in answer.json()["records"]] if answer.status == 200 else []
        return "VALIDATED" in stages and answer.json().get("lagSeconds") == 0

    def shown():
        return worker.readiness()["databases"]["history"], worker.readiness()["sinks"]["history"]

    await deployment.stock(mug=10)
    await place("first")
    await until(lambda: knows("first"), "stored", every=0.2)
    assert set(await statuses()) <= {200, 404}
    await until(lambda: shown() == ("open", "storing"), "shown open")

    with away(server):
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(*(deployment.ask(worker, "GET", path) for path in QUESTIONS * 3))
        for answer in answers:
            assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
            assert int(answer.headers["Retry-After"]) > 0
        await place("meanwhile")
        await until(lambda: "open" not in shown() and "storing" not in shown(), "shown away")
        assert (await deployment.ask(worker, "GET", "/readyz")).status == 200, "other services work"
        assert (await deployment.ask(worker, "GET", "/healthz")).status == 200
        lag = (await deployment.ask(worker, "GET", "/metrics")).body.decode()
        assert 'faust_orders_sink_lag_seconds{service="history",topic="orders"}' in lag

    await until(lambda: shown() == ("open", "storing"), "shown open before anybody asks")
    await until(lambda: knows("meanwhile"), "stored by itself", every=0.2)
    assert set(await statuses()) <= {200, 404}
