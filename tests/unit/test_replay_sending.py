"""Selecting and sending records of a replay, on a history and a cluster that are scripts."""

import asyncio
import io
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition as Physical
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from rich.console import Console

from ecosystem.clients.api import RequestRejected, Unreachable
from ecosystem.clients.backlog.lags import Reader
from ecosystem.clients.backlog.unprocessed import Unprocessed
from ecosystem.replay import asking, report, run, selecting, sending, settling, target
from ecosystem.replay.database import KnownOrder, KnownRecord
from ecosystem.replay.plan import Plan, PlannedRecord
from ecosystem.replay.records import Place, Resubmission, replay_headers
from ecosystem.replay.resume import ResumeFile
from ecosystem.replay.selecting import Selector
from ecosystem.replay.selection import Selection, Service
from ecosystem.replay.stages import INPUTS
from ecosystem.replay.target import Target
from history_service.stages import Stage
from history_service.timeline import StoredRecord
from runtime.common.settings import Settings
from runtime.model.dead_letters import REASON_HEADERS
from runtime.model.records import TopicPartition
from schemas.api import Problem
from schemas.messages import Order, OrderState

AT = datetime(2026, 11, 5, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 6, tzinfo=UTC)


def order(id_, state=OrderState.CREATED, reasons=None):
    content = {"customer_id": 7, "product": "mug", "quantity": 1, "price": 5, "created_at": AT}
    return Order(id=id_, state=state, reasons=reasons, **content).to_json()


class History:
    """Orders and records, as `HistoryReader` reads them."""

    def __init__(self, states, records, nobodys=()):
        self._orders = [KnownOrder(id_, state, "mug", 7, 1, {"FRAUD_CHECK"}) for id_, state in states.items()]
        self._records = [self._record(n, *given) for n, given in enumerate(records)]
        self._nobodys = [self._record(100 + n, None, *given) for n, given in enumerate(nobodys)]

    @staticmethod
    def _record(offset, order_id, topic, stage, value=b"{}", headers=()):
        flat = [part for name, text in headers for part in (name.encode(), text)] or None
        return KnownRecord(StoredRecord(AT, AT, offset, 1, 0, stage, topic, b"mug", value, flat), order_id)

    async def orders(self, _):
        yield self._orders
        yield []

    async def orders_by_id(self, ids):
        yield [one for one in self._orders if one.id in ids]

    async def records_of_orders(self, ids, stages):
        replays = [r for r in self._records if any(name == "replayed-from" for name, _ in r.stored.header_pairs)]
        return [r for r in self._records if r.order_id in ids and (r.stored.stage in stages or r in replays)]

    async def dead_letters(self, ids):
        return [r for r in self._records if r.order_id in ids and r.stored.stage == Stage.DEAD_LETTER]

    async def records_about_no_order(self, topic, stage, _filters, key):
        wanted = [r for r in self._nobodys if (r.stored.topic, r.stored.stage) == (topic, stage)]
        yield [r for r in wanted if key is None or r.stored.key == key.encode()]


@pytest.fixture
def plan(tmp_path):
    with Plan(tmp_path, 3) as plan:
        yield plan


async def selected(history, plan, **wanted):
    left_out = await Selector(history, Selection(**wanted), plan, lambda: NOW).run()
    plan.complete()
    found = [(str(planned.record.place), planned.record.topic, planned.replays) for planned in plan.records()]
    return found, left_out


def marked(place, replays):
    return replay_headers(Place.parse(place), replays, side_effects=False)


async def test_replays_are_counted_and_not_replayed(plan):
    records = [
        ("a", "orders", "CREATED"),
        ("a", "orders", "CREATED", b"{}", marked("orders/0/0", 1)),
        ("a", "order-validations", "VERDICT", b"{}", marked("orders/0/0", 2)),
        ("b", "orders", "CREATED"),
    ]
    found, left_out = await selected(History({"a": "FAILED", "b": "FAILED"}, records), plan)
    assert found == [("orders/0/0", "orders", 3), ("orders/0/3", "orders", 1)]
    assert left_out.replays == 1


async def test_replays_too_count_on(plan):
    records = [("a", "orders", "CREATED"), ("a", "orders", "CREATED", b"{}", marked("orders/9/0", 2))]
    found, _ = await selected(History({"a": "FAILED"}, records), plan, replays_too=True)
    assert found == [("orders/0/0", "orders", 1), ("orders/0/1", "orders", 3)]


async def test_inputs_are_what_came_from_outside(plan):
    records = [
        ("a", "orders", "CREATED", order("a")),
        ("a", "order-validations", "VERDICT"),
        ("a", "payments", "PAYMENT"),
        ("a", "orders", "CANCELLED", order("a", OrderState.CANCELLED, ("by the client",))),
        ("b", "cancellations", "CANCELLATION", b'{"orderId": "b", "reason": "unpaid"}'),
        ("b", "orders", "CANCELLED", order("b", OrderState.CANCELLED, ("unpaid",))),
    ]
    nobodys = [("warehouse-inventory", "STOCK"), ("customers", "CUSTOMER"), ("product-alerts", "PRODUCT_ALERT")]
    found, _ = await selected(History({"a": "CANCELLED", "b": "CANCELLED"}, records, nobodys), plan, stages=INPUTS)
    assert sorted(found) == [
        ("cancellations/0/4", "cancellations", 1),
        ("customers/0/101", "customers", 1),
        ("orders/0/0", "orders", 1),
        ("orders/0/3", "cancellations", 1),
        ("payments/0/2", "payments", 1),
        ("warehouse-inventory/0/100", "warehouse-inventory", 1),
    ]


async def test_only_failed_orders_are_decided_anew(plan):
    records = [(id_, "orders", "CREATED", order(id_)) for id_ in "abc"]
    history = History({"a": "FAILED", "b": "VALIDATED", "c": None}, records)
    found, left_out = await selected(history, plan, ids=("a", "b", "c", "d"), redecide=True)
    assert found == [("orders/0/0", "orders", 1)]
    [sent] = [planned.record for planned in plan.records()]
    assert sent.timestamp_ms == NOW.timestamp() * 1000
    assert {id_ for ids in left_out.examples.values() for id_ in ids} == {"b", "c", "d"}
    assert "VALIDATED: cancel it instead" in next(iter(left_out.counts))


@pytest.mark.parametrize(("failed", "found"), [(Service("email"), "a"), (Service("fraud", "FRAUD_CHECK"), "ab")])
async def test_orders_that_a_service_failed_on(plan, failed, found):
    reason = dict.fromkeys(REASON_HEADERS, b"0") | {"service": b"email,portal", "topic": b"orders"}
    records = [
        ("a", "orders", "CREATED"),
        ("b", "orders", "CREATED"),
        ("a", "orders.dead-letters", "DEAD_LETTER", b"{}", [*reason.items()]),
        ("b", "orders.dead-letters", "DEAD_LETTER", b"odd"),
    ]
    await selected(History({"a": "FAILED", "b": "FAILED"}, records), plan, failed=failed)
    assert "".join(sorted(planned.record.order_id for planned in plan.records())) == found


class Producer:
    """A producer whose brokers refuse a batch with a record that is too large, and are away if told so."""

    started = 0

    def __init__(self):
        self.written = []
        self.away = False

    async def start(self):
        type(self).started += 1

    async def stop(self):
        pass

    async def send(self, topic, value, key, *, partition, timestamp_ms, headers):
        future = asyncio.get_running_loop().create_future()
        self._batch = [*getattr(self, "_batch", ()), (future, value, partition)]
        asyncio.get_running_loop().call_soon(self._deliver)
        return future

    def _deliver(self):
        batch, self._batch = getattr(self, "_batch", []), []
        refused = any(value == b"large" for _, value, _ in batch)
        for future, value, partition in batch:
            if self.away:
                future.set_exception(KafkaConnectionError("no broker"))
            elif refused:
                future.set_exception(MessageSizeTooLargeError("too large"))
            else:
                self.written.append(value)
                future.set_result(SimpleNamespace(partition=partition, offset=len(self.written)))


@pytest.fixture
def producer(monkeypatch):
    one = Producer()

    async def ends(target, topics):
        return {(topic, 0): 0 for topic in topics}

    monkeypatch.setattr("ecosystem.replay.sending.clients.producer", lambda _: one)
    monkeypatch.setattr(sending, "ends", ends)
    return one


def planned(offset, value):
    record = Resubmission(Place("orders", 0, offset), "CREATED", "orders", 0, b"k", value, (), 0, f"o-{offset}")
    return PlannedRecord(record, 1, 1)


async def test_only_the_record_that_is_too_large_is_refused(producer, tmp_path):
    batch = [planned(0, b"a"), planned(1, b"large"), planned(2, b"b")]
    batch.append(planned(3, None)._replace(record=planned(3, None).record._replace(key=None)))
    sent, there = sending.Sent(), Target(Settings(), {"orders": 1}, {})
    with ResumeFile(tmp_path / "file", {}) as file:
        async with sending.Sender(there, ["orders"], side_effects=False, resume=file, sent=sent) as sender:
            await sender.send(batch)
    assert producer.written == [b"a", b"b"]
    assert sent.records == 2
    assert {place.offset: reason.split()[-1] for place, reason in sent.refused.items()} == {1: "large", 3: "record"}
    with ResumeFile(tmp_path / "file", {}) as file:
        assert {place.offset for place in file.sent} == {0, 2}
        assert file.doubtful.replays == {}


async def test_a_batch_is_in_doubt_if_the_brokers_are_away(producer, tmp_path):
    sent, there = sending.Sent(), Target(Settings(), {"orders": 1}, {})
    producer.away = True
    with ResumeFile(tmp_path / "file", {}) as file, pytest.raises(KafkaConnectionError):
        async with sending.Sender(there, ["orders"], side_effects=False, resume=file, sent=sent) as sender:
            await sender.send([planned(0, b"a")])
    assert (sent.records, sent.refused) == (0, {})
    with ResumeFile(tmp_path / "file", {}) as file:
        assert file.doubtful.replays == {Place("orders", 0, 0): 1}


async def test_a_service_that_stands_still_is_named(monkeypatch):
    monkeypatch.setattr(settling, "PATIENCE_S", 0.0)
    found = Unprocessed({Reader("fraud", TopicPartition("orders", 0)): 3})

    class Backlog:
        async def read(self):
            return found

    waiting = []
    with pytest.raises(settling.NotSettled, match="fraud has made no progress"):
        await settling.Settling(Backlog(), lambda: False, waiting.append).wait()
    found = Unprocessed(open=("orders",))
    with pytest.raises(settling.NotSettled, match="an open transaction"):
        await settling.Settling(Backlog(), lambda: False, waiting.append).wait()
    found = Unprocessed()
    assert await settling.Settling(Backlog(), lambda: False, waiting.append).wait()
    assert not await settling.Settling(Backlog(), lambda: True, waiting.append).wait()


def test_a_plan_is_shown_with_what_is_left_out(plan):
    for offset in range(3):
        plan.add(1, offset, planned(offset, b"{}").record)
    plan.complete()
    left_out = selecting.LeftOut()
    for number in range(7):
        left_out.add("is not in the history", f"o-{number}\n")
    prepared = run.Prepared(plan, Target(Settings(), {}, {}), ["orders"], left_out, sent_before=4, lag_s=2.4)
    console = Console(record=True, width=200, file=io.StringIO())
    report.print_plan(console, prepared, Selection(), report.States({"FAILED": 2, None: 1}), 2)
    said = console.export_text()
    assert "3 records to send" in said
    assert "nothing: 2 decided; 1 processed as new" in said
    assert "and 1 more" in said
    assert "4 records sent before" in said
    assert "skipped: o-0\\n, o-1\\n, o-2\\n, o-3\\n, o-4\\n and 2 more: is not in the history" in said
    assert "behind by up to 2 s" in said
    assert report.incomplete(prepared)


async def test_a_target_without_the_topics_is_refused(monkeypatch):
    async def found(_settings, topics):
        return [Physical(f"p-{topic}", number) for topic in topics if topic != "payments" for number in range(3)]

    monkeypatch.setattr(target, "partitions_of", found)
    settings = Settings(topic_prefix="p-", kafka_bootstrap_servers="test:9092")
    with pytest.raises(target.TargetError, match=r"no topic p-payments at test:9092: start workers there"):
        await target.find_target(settings, ["orders", "payments"], {})
    there = await target.find_target(settings, ["orders"], {"orders": 3})
    assert there.partitions == {"orders": 3}


@pytest.mark.parametrize(("end", "refused"), [(0, None), (5, "warehouse-inventory has records already")])
async def test_stock_is_not_set_back_unless_the_topic_is_empty(monkeypatch, end, refused):
    async def ends(_, topics):
        assert topics == ["warehouse-inventory"]
        return {("warehouse-inventory", 0): 0, ("warehouse-inventory", 1): end}

    monkeypatch.setattr(target, "ends", ends)
    there = Target(Settings(), {}, {})
    said = await target.set_already(there, {"orders": "CREATED", "warehouse-inventory": "STOCK"})
    assert said == refused or refused in said


def api(answers):
    class Orders:
        def __init__(self, url):
            assert url == "http://orders"

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            pass

        async def get(self, order_id, timeout_ms):
            answer = answers[order_id]
            if isinstance(answer, Exception):
                raise answer
            return Order.from_json(order(order_id, answer))

    return Orders


def rejected(status):
    return RequestRejected(Problem(type="about:blank", title="no", status=status))


async def test_the_target_is_asked_for_its_orders(monkeypatch):
    answers = {"a": OrderState.FAILED, "b": OrderState.CREATED, "c": rejected(404), "d": OrderState.FAILED}
    monkeypatch.setattr(asking, "OrdersApi", api(answers))
    assert await asking.states("http://orders", [*answers]) == {"FAILED": 2, "CREATED": 1, None: 1}
    answers["b"] = rejected(503)
    assert await asking.states("http://orders", [*answers]) is None
    answers["b"] = Unreachable("nobody")
    assert await asking.states("http://orders", [*answers]) is None
