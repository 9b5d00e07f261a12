"""A history that an earlier version has filled: the current version answers for its orders, and stores on."""

from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from history_service import lists, queries, store
from history_service.explanations import Explainer
from history_service.filters import Filters
from history_service.freshness import read_lag_s
from history_service.projection import project
from history_service.settings import HistorySettings
from history_service.timeline import order_at, timeline
from history_service.timings import read_timings
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.model.records import TopicPartition
from runtime.model.sink import SinkRecord
from runtime.sink.placement import LogState, SinkPosition
from runtime.sink.ports import Move
from runtime.sink.postgres import PostgresSinkDatabase
from schemas.messages import OrderState, Payment
from schemas.topics import PAYMENTS
from tests.integration.test_migrations import EARLIER, filled
from tests.workers import PATIENCE_S

CLOCK = datetime(2026, 11, 7, tzinfo=UTC)


@pytest.fixture(params=[revision for service, revision in EARLIER if service == "history"])
async def upgraded(request, database_url):
    """The database of a history, filled at an earlier revision, then opened by the current version."""
    await filled(database_url, "history", request.param)
    settings = Settings(database_timeout_s=30)
    database = Database("history", SecretStr(database_url), "history_service:migrations", settings)
    async with database.open():
        await database.ready(PATIENCE_S)
        yield database


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), ["Old-3", "Old-2", "Old-1"]),
        (Filters(states=(OrderState.FAILED, OrderState.SHIPPED)), ["Old-2", "Old-1"]),
        (Filters(customer_id=8), ["Old-3"]),
        (Filters(part="old-"), ["Old-3", "Old-2", "Old-1"]),
        (Filters(part="PAY-1"), ["Old-1"]),
        (Filters(part="trace-2"), ["Old-2"]),
        (Filters(part="R-3"), ["Old-3"]),
        (Filters(reason="fraud_check"), ["Old-2"]),
    ],
)
async def test_lists_have_the_orders_of_before(upgraded, filters, expected):
    async with upgraded.transaction() as connection:
        page = await lists.read_page(connection, filters, None, 10)
    assert [order.id for order in page.orders] == expected


async def test_each_question_is_answered_for_the_orders_of_before(upgraded):
    explainer = Explainer.of(HistorySettings())
    async with upgraded.transaction() as connection:
        shipped = timeline(await queries.records_of_order(connection, "Old-1"))
        states = await queries.states_of_order(connection, "Old-3")
        failed = await explainer.explain(connection, "Old-2", CLOCK, 0.0)
        timings = await read_timings(connection, None, None)
        lag_s = await read_lag_s(connection)
    way = "CREATED VERDICT VERDICT VERDICT VALIDATED PAYMENT ENRICHED CHECK_IN FULFILLED SHIPPED"
    assert [record.stage for record in shipped] == way.split()
    at = datetime(2026, 11, 5, 0, 0, 1, tzinfo=UTC)
    assert [order_at("Old-3", states, time).state for time in (at, CLOCK)] == ["VALIDATED", "CANCELLED"]
    assert {v.check_type: v.agrees for v in failed.verdicts} == {
        "FRAUD_CHECK": True,
        "INVENTORY_CHECK": True,
        "ORDER_DETAILS_CHECK": None,
    }
    assert timings.orders == 3
    assert {(step.start, step.end): step.count for step in timings.steps}["POSTED", "SHIPPED"] == 1
    assert lag_s > 0, "no partition was checked since"


async def test_the_sink_reads_on_where_the_version_before_stopped(upgraded):
    tp = TopicPartition(PAYMENTS.name, 0)
    message = Payment(id="Pay-9", order_id="Old-2", ccy="EUR", amount=24)
    sink = PostgresSinkDatabase(upgraded)
    [(position, placement)] = (await sink.place({tp: LogState(f"cluster/{tp.topic}", 0, 9)})).values()
    assert (position, placement.lost) == (SinkPosition(41, 8), None)
    new = SinkRecord(tp.topic, 0, 41, 8, int(CLOCK.timestamp() * 1000), b"Pay-9", message.to_json())
    async with sink.transaction({tp: Move(41, 8, 9, 9)}) as writer:
        await store.write(writer, [project([new], utc_now)])
    await sink.close()
    async with upgraded.transaction() as connection:
        [order] = (await lists.read_page(connection, Filters(part="pay-9"), None, 10)).orders
        records = await queries.records_of_order(connection, "Old-2")
    assert (order.id, order.state, order.updated_at, order.stages["PAYMENT"]) == ("Old-2", "FAILED", CLOCK, CLOCK)
    assert len(records) == 6
