"""What the board computes from records: rates, times, lists, stock, sessions, dead letters. All of it bounded."""

import asyncio
import json
import shlex
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

import email_service.app
from board_service import emails, pages
from board_service.dead_letters import MOST, REDRIVE_NOTES, DeadLetters, redrive_command
from board_service.explanations import Explanations
from board_service.flow import SECONDS, Flow
from board_service.observer import STREAMS, BoardObserver
from board_service.relay import HISTORY, _url
from board_service.sessions import MOST_CUSTOMERS, Sessions
from board_service.stock import MOST_PRODUCTS, StockLevels
from board_service.timeline import _of_records, _of_trace
from board_service.traces import Traces
from ecosystem.clients.dead_letters.records import REDRIVE_NOTES as WRITTEN_NOTES
from runtime.common.settings import Settings
from runtime.model.dead_letters import dead_letter
from runtime.model.records import Record, TopicPartition
from runtime.observation.feed import Feed
from runtime.observation.groups import Ends, ObservedGroup, backlog
from runtime.observation.sampling import Sampling
from schemas.topics import CATALOGUE, DEAD_LETTERS
from validators.fraud.state import CUSTOMERS
from validators.inventory.state import STOCK

NOW = 1_800_000_000_000


def record(topic, value, key=b"k", at=NOW, partition=0, offset=0, headers=()):
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return SimpleNamespace(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=at,
        key=key,
        value=raw,
        headers=headers,
        unreadable=None,
    )


def order(id_="one", state="CREATED", **more):
    return {
        "id": id_,
        "customerId": 7,
        "state": state,
        "product": "mug",
        "quantity": 2,
        "price": 12.5,
        "createdAt": "2027-01-15T07:59:59.900Z",
        **more,
    }


def observer():
    return BoardObserver(2000, 3600, lambda: NOW)


def see(board, topic, *values, at=NOW, share=1.0):
    board.observe(topic, [record(topic, value, at=at) for value in values], share)


# Rates and times


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1.0, 0.5, 0.25])), max_size=200))
def test_a_rate_counts_each_record_once_by_its_time_and_share(records):
    flow = Flow()
    for second, share in records:
        flow.count("CREATED", NOW + second * 1000 + 500, share)
    assert flow.rates(NOW + 12_000).get("CREATED", 0) == pytest.approx(sum(1 / share for _, share in records) / 10)


def test_seconds_that_were_not_read_count_in_no_rate_and_are_gaps_in_the_chart():
    flow = Flow()
    for second in range(5):
        flow.count("CREATED", NOW + second * 1000)
    flow.skip(NOW + 5000, NOW + 9000)
    assert flow.rates(NOW + 12_000)["CREATED"] == 1.0
    assert flow.series("CREATED", NOW + 12_000)[-10:] == [1.0] * 5 + [None] * 5


@given(st.lists(st.integers(-(10**15), 10**15), max_size=500))
def test_times_of_any_clock_leave_the_flow_bounded(times):
    flow = Flow()
    for at in times:
        flow.count("CREATED", at)
        flow.time("decided", at, 5)
    flow.expire(NOW)
    assert len(flow._seconds) <= SECONDS + 10
    assert len(flow.series("CREATED", NOW)) == SECONDS


def test_percentiles_are_exact_to_a_bucket():
    flow = Flow()
    for took in range(1, 1001):
        flow.time("decided", NOW, took)
    times = flow.times(NOW)["decided"]
    assert times["count"] == 1000
    assert times["p50"] == pytest.approx(500, rel=0.07)
    assert times["p95"] == pytest.approx(950, rel=0.07)
    assert times["max"] == pytest.approx(1000, rel=0.07)


# Orders


def test_an_order_is_followed_from_its_creation_to_its_shipment():
    board = observer()
    see(board, "orders", order())
    see(
        board,
        "order-validations",
        {"orderId": "one", "checkType": "FRAUD_CHECK", "validationResult": "PASS"},
        at=NOW + 5,
    )
    see(board, "orders", order(state="VALIDATED"), at=NOW + 6)
    see(board, "payments", {"id": "p", "orderId": "one", "ccy": "EUR", "amount": 25.0}, at=NOW + 9)
    assert board.orders_snapshot()["lists"] == {"all": ["one"], "in-flight": ["one"], "failed": []}
    see(board, "orders", order(state="SHIPPED"), at=NOW + 100)
    assert board.orders_snapshot()["lists"]["in-flight"] == []
    shown = _of_trace(board.traces.get("one"))
    assert [event["stage"] for event in shown["events"]] == ["CREATED", "VERDICT", "VALIDATED", "PAYMENT", "SHIPPED"]
    assert (shown["final"], shown["source"], shown["value"]) == (True, "live", 25.0)
    times = board.flow.times(NOW + 1000)
    assert times["FRAUD_CHECK"]["p50"] == pytest.approx(105, rel=0.07)
    assert times["decided"]["count"] == times["shipped"]["count"] == 1


def see_email(board, key, *, letter=None, at=NOW):
    """The tombstone of an e-mail, or its dead letter."""
    if letter is None:
        board.observe(emails.CHANGELOG, [record(emails.CHANGELOG, None, key.encode(), at)], 1.0)
        return
    original = Record("email-effects", 0, 0, at, key.encode(), b"{}")
    headers = dead_letter(original, "email", letter, datetime.fromtimestamp(at / 1000, UTC)).headers
    board.observe(emails.REJECTED, [record(emails.REJECTED, {}, key.encode(), at, headers=headers)], 1.0)


def on_timeline(board):
    events = board.traces.get("one").events
    return [(e["stage"], e.get("email"), e.get("reason")) for e in events if e["stage"].startswith("EMAIL")]


def test_an_email_is_on_the_timeline_once_it_has_left_the_queue():
    board = observer()
    see(board, "orders", order(), order(state="VALIDATED"))
    waiting = [record(emails.CHANGELOG, {"payload": "x"}, b"one/validated")]
    board.observe(emails.CHANGELOG, waiting, 1.0)
    assert on_timeline(board) == []
    see_email(board, "one/validated", at=NOW + 40)
    see_email(board, "unknown/validated")
    see_email(board, "no key")
    see(board, "orders", order(state="CANCELLED"))
    see_email(board, "one/cancelled\x1f2", at=NOW + 90)
    assert on_timeline(board) == [("EMAIL_SENT", "validated", None), ("EMAIL_SENT", "cancelled", None)]
    assert board.flow.rates(NOW + 5000)["EMAIL_SENT"] == 0.3
    assert board.flow.times(NOW + 1000)["emailed"]["count"] == 2
    assert board.unreadable == 1


@pytest.mark.parametrize("letter_first", [True, False])
@pytest.mark.parametrize("order_first", [True, False])
def test_a_rejected_email_is_not_taken_for_sent(order_first, letter_first):
    board = observer()
    orders = order(), order(state="FAILED")
    if order_first:
        see(board, "orders", *orders)
    for letter in (letter_first, not letter_first):
        see_email(board, "one/failed", letter="550 no such user" if letter else None, at=NOW + 10)
    if not order_first:
        see(board, "orders", *orders)
    assert on_timeline(board) == [("EMAIL_REJECTED", "failed", "550 no such user")]
    see_email(board, "one/failed", at=NOW + 60_000)
    assert on_timeline(board)[1:] == [("EMAIL_SENT", "failed", None)], "redriven"


def test_emails_of_two_attempts_are_told_apart():
    board = observer()
    see(board, "orders", order(), order(state="FAILED"))
    see_email(board, "one/failed", letter="550 gone", at=NOW + 10)
    see(board, "orders", order(attempt=2), order(state="FAILED", attempt=2), at=NOW + 60_000)
    see_email(board, "one/failed\x1f2", at=NOW + 60_040)
    see_email(board, "one/failed", at=NOW + 20)
    assert [(e["stage"], e.get("attempt")) for e in board.traces.get("one").events if "email" in e] == [
        ("EMAIL_REJECTED", None),
        ("EMAIL_SENT", "2"),
    ]
    assert board.flow.times(NOW + 61_000)["emailed"]["max"] == pytest.approx(40, rel=0.07)


def test_a_record_of_another_producer_among_the_rejected_emails_is_left_out():
    board = observer()
    see(board, "orders", order(), order(state="FAILED"))
    board.observe(emails.REJECTED, [record(emails.REJECTED, {}, b"one/failed")], 1.0)
    assert on_timeline(board) == []


def test_the_topics_of_emails_are_those_of_the_email_service():
    service = email_service.app.build(Settings()).service
    assert service.pending.changelog == emails.CHANGELOG
    assert service.redrive_topic.name + DEAD_LETTERS == emails.REJECTED


def test_a_failed_order_has_its_reasons_and_a_second_attempt_opens_it_again():
    board = observer()
    see(board, "orders", order(), order(state="FAILED", reasons=["INVENTORY_CHECK: none left"]))
    (row,) = board.orders_snapshot()["rows"]
    assert (row["state"], row["reasons"]) == ("FAILED", ("INVENTORY_CHECK: none left",))
    see(board, "orders", order(attempt=2))
    (row,) = board.orders_snapshot()["rows"]
    assert (row["state"], row["reasons"]) == ("CREATED", ())
    assert board.traces.undecided()[0] == 1


def test_what_is_read_before_its_order_is_on_its_timeline():
    board = observer()
    verdict = {"orderId": "one", "checkType": "FRAUD_CHECK", "validationResult": "PASS"}
    see(board, "order-validations", verdict, at=NOW + 5)
    see_email(board, "one/validated", at=NOW + 50)
    see(board, "orders", order(), order(state="VALIDATED"), at=NOW)
    shown = _of_trace(board.traces.get("one"))
    assert [event["stage"] for event in shown["events"]] == ["CREATED", "VALIDATED", "VERDICT", "EMAIL_SENT"]
    assert board.flow.times(NOW + 1000)["FRAUD_CHECK"]["count"] == 1


def test_what_is_kept_for_orders_that_never_come_is_bounded():
    board = observer()
    for number in range(10_000):
        see(board, "order-validations", {"orderId": str(number), "checkType": "C", "validationResult": "PASS"})
    payment = {"id": "p", "orderId": "9999", "ccy": "EUR", "amount": 1}
    see(board, "payments", *[payment] * 1000)
    assert len(board.traces._early) == 2000
    assert len(board.traces._early["9999"]) == 40


def test_records_of_unknown_orders_count_and_are_no_orders():
    board = observer()
    see(board, "payments", {"id": "p", "orderId": "unknown", "ccy": "EUR", "amount": 1})
    assert len(board.traces) == 0
    assert board.flow.rates(NOW + 5000)["PAYMENT"] == 0.1


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{}", b"nonsense", b'{"id": 1}', b"\xff", None])
@pytest.mark.parametrize("topic", [*(t.name for t in CATALOGUE), STOCK.changelog, CUSTOMERS.changelog])
def test_what_is_no_message_harms_nothing(topic, raw):
    board = observer()
    board.observe(topic, [record(topic, raw)], 1.0)
    see(board, "orders", order())
    assert len(board.traces) == 1
    board.flow_snapshot(NOW)
    board.sessions.snapshot(NOW)
    board.stock.snapshot()


def test_the_newest_orders_are_kept_and_no_more():
    traces = Traces(most=100)
    for number in range(1000):
        traces.state(order(f"o{number}"), NOW)
    assert len(traces) == len(traces._in_flight) == 100
    assert next(traces.newest(1, "all")).id == "o999"
    assert [t.id for t in traces.search("O95", 100)] == [f"o{n}" for n in range(959, 949, -1)]


def test_an_order_with_endless_payments_stays_small():
    board = observer()
    see(board, "orders", order())
    see(board, "payments", *({"id": str(n), "orderId": "one", "ccy": "EUR", "amount": 1} for n in range(1000)))
    assert len(board.traces.get("one").events) == 40


def test_a_timeline_of_the_history_is_shown_like_a_live_one():
    records = [
        {"stage": "CREATED", "topic": "orders", "producedAt": "2027-01-15T08:00:00Z", "payload": order()},
        {
            "stage": "VERDICT",
            "topic": "order-validations",
            "producedAt": "2027-01-15T08:00:01Z",
            "payload": {"checkType": "FRAUD_CHECK", "validationResult": "FAIL", "reason": "too much"},
        },
        {
            "stage": "FAILED",
            "topic": "orders",
            "producedAt": "2027-01-15T08:00:01Z",
            "payload": order(state="FAILED", reasons=["FRAUD_CHECK: too much"]),
        },
        {"stage": "UNKNOWN", "topic": "payments", "producedAt": "2027-01-15T08:00:02Z", "payloadBase64": "AA=="},
    ]
    shown = _of_records("one", records)
    assert shown["reasons"] == ("FRAUD_CHECK: too much",)
    assert [event["stage"] for event in shown["events"]] == ["CREATED", "VERDICT", "FAILED"]
    assert shown["events"][1]["reason"] == "too much"
    assert _of_trace_keys() == set(shown)


class FakeHistory:
    """A relay to a history that is behind at first."""

    def __init__(self, *answers, runs=True):
        self.answers = list(answers)
        self._runs = runs
        self.asked = 0

    def runs(self, service, host):
        return self._runs and service == HISTORY

    async def explanation(self, host, order_id):
        self.asked += 1
        return self.answers.pop(0) if self.answers else None


def decided_timeline():
    board = observer()
    see(board, "orders", order())
    failed = {"orderId": "one", "checkType": "INVENTORY_CHECK", "validationResult": "FAIL"}
    see(board, "order-validations", failed)
    see(board, "orders", order(state="FAILED", reasons=["INVENTORY_CHECK: 4 ordered, 3 available"]))
    return _of_trace(board.traces.get("one"))


def explanation(state, text="4 were asked for. 3 were available."):
    return {"state": state, "verdicts": [{"checkType": "INVENTORY_CHECK", "explanation": text}]}


async def look(explanations, timeline, times=200):
    for _ in range(times):
        shown = explanations.add_to(timeline)
        if not explanations.awaited:
            break
        await asyncio.sleep(0)
    return [event["explanation"] for event in shown["events"] if "explanation" in event]


async def test_a_verdict_is_explained_once_the_history_has_the_decision():
    partial, whole = explanation("FAILED", "No stock was announced."), explanation("FAILED")
    history = FakeHistory(None, explanation("CREATED"), partial, whole, whole)
    explanations = Explanations(history, None, "one")
    assert await look(explanations, decided_timeline()) == ["4 were asked for. 3 were available."]
    assert history.asked == 5, "until two answers are the same"
    assert await look(explanations, decided_timeline())
    assert history.asked == 5


async def test_an_order_is_not_explained_before_it_is_decided_nor_without_a_history():
    board = observer()
    see(board, "orders", order())
    undecided = _of_trace(board.traces.get("one"))
    waiting, absent, silent = FakeHistory(), FakeHistory(runs=False), FakeHistory()
    assert await look(Explanations(waiting, None, "one"), undecided) == []
    assert await look(Explanations(absent, None, "one"), decided_timeline()) == []
    assert await look(Explanations(silent, None, "one"), decided_timeline()) == []
    assert (waiting.asked, absent.asked) == (0, 0)
    assert 1 < silent.asked < 10


def _of_trace_keys():
    board = observer()
    see(board, "orders", order())
    return set(_of_trace(board.traces.get("one")))


# State


def test_stock_is_the_last_row_of_each_product_the_scarcest_first():
    board = observer()
    rows = [{"count": 5, "reserved": 1}, {"count": 9, "reserved": 8}]
    board.observe(STOCK.changelog, [record(STOCK.changelog, row, key=b"mug") for row in rows], 1.0)
    board.observe(STOCK.changelog, [record(STOCK.changelog, {"count": 50}, key=b"kettle")], 1.0)
    board.observe(STOCK.changelog, [record(STOCK.changelog, {"reserved": 2}, key=b"unannounced")], 1.0)
    shown = board.stock.snapshot()["rows"]
    assert [(r["product"], r["available"]) for r in shown] == [("mug", 1), ("kettle", 50), ("unannounced", 0)]
    board.observe(STOCK.changelog, [record(STOCK.changelog, None, key=b"mug")], 1.0)
    assert board.stock.snapshot()["products"] == 2


def test_sessions_near_the_limit_are_shown_while_they_are_open():
    sessions = Sessions(limit=2000, gap_s=3600)
    session = {"start": "2027-01-15T07:00:00Z", "end": "2027-01-15T07:59:00Z", "total": "1300.5"}
    sessions.put("1", {"sessions": [session]})
    sessions.put("2", {"sessions": [{**session, "total": "100"}]})
    sessions.put("3", {"sessions": [{**session, "total": "2500"}]})
    assert [row["customer"] for row in sessions.snapshot(NOW)["rows"]] == ["3", "1"]
    assert sessions.snapshot(NOW + 2 * 3600_000)["rows"] == []


def test_state_is_bounded():
    stock, sessions = StockLevels(), Sessions(2000, 3600)
    for number in range(MOST_CUSTOMERS + 10):
        stock.put(f"p{number}", {"count": 1})
        sessions.put(str(number), {"sessions": [{"start": "", "end": "", "total": "1"}]})
    assert (len(stock._rows), len(sessions._rows)) == (MOST_PRODUCTS, MOST_CUSTOMERS)


def test_the_changelogs_are_those_of_the_validators():
    found = {next(n for n, s in enumerate(STREAMS) if s.topics(table.changelog)) for table in (STOCK, CUSTOMERS)}
    assert found == {len(STREAMS) - 1}
    assert REDRIVE_NOTES == WRITTEN_NOTES


# Dead letters


def dead(error, offset, topic="orders", service="fraud"):
    failed = Record(topic, 0, offset, NOW, b"k", b"v")
    from datetime import UTC, datetime

    return dead_letter(failed, service, error, datetime.now(UTC)).headers


def test_dead_letters_are_grouped_by_kind_and_vanish_when_they_are_redriven():
    letters = DeadLetters()
    for offset in range(3):
        letters.put("orders.dead-letters", (0, offset), NOW, dead(f"customer {offset} is unknown", offset))
    letters.put("orders.dead-letters", (0, 9), NOW, [("foreign", b"")])
    (row,) = letters.snapshot()["rows"]
    assert (row["topic"], row["count"]) == ("orders", 3)
    assert row["command"] == "orders dead-letters redrive orders --service fraud --cause 'is unknown' --dry-run"
    letters.redriven("orders.dead-letters/0/1")
    assert letters.snapshot()["total"] == 2
    letters.redriven("orders.dead-letters/0/7")  # its note may be read before it
    letters.put("orders.dead-letters", (0, 7), NOW, dead("customer 7 is unknown", 7))
    assert letters.snapshot()["total"] == 2


def test_a_command_selects_no_letters_of_another_cause():
    """Two kinds end with the same remedy, which is the longest part of one of them."""
    remedy = "; write the JSON that `orders asyncapi` shows for orders, in UTF-8 and without comments"
    letters = DeadLetters()
    errors = [f"customerId is missing: add it{remedy}", f"message must be JSON: expected ident at column 2{remedy}"]
    for offset, error in enumerate(errors):
        letters.put("orders.dead-letters", (0, offset), NOW, dead(error, offset))
    for row in letters.snapshot()["rows"]:
        command = shlex.split(row["command"])
        cause = command[command.index("--cause") + 1]
        assert [error for error in errors if cause in error] == [row["cause"]]


def test_dead_letters_are_bounded():
    letters = DeadLetters()
    for offset in range(MOST + 5):
        letters.put("orders.dead-letters", (0, offset), NOW, dead("x", offset))
    assert letters.snapshot()["total"] == MOST


@given(st.text(max_size=200))
def test_a_command_selects_the_letters_it_stands_for(error):
    from runtime.model.causes import kind_of_cause

    command = shlex.split(redrive_command("orders", "fraud,details", kind_of_cause(error)))
    assert command[:6] == ["orders", "dead-letters", "redrive", "orders", "--service", "fraud"]
    if "--cause" in command:
        cause = command[command.index("--cause") + 1]
        assert cause.casefold() in " ".join(error.split()).casefold()


# Groups and sampling


def test_a_backlog_is_as_old_as_its_oldest_partition():
    ends = Ends()
    a, b = TopicPartition("orders", 0), TopicPartition("orders", 1)
    ends.add(100.0, {a: 10, b: 10})
    ends.add(110.0, {a: 20, b: 10})
    ends.add(120.0, {a: 30, b: 10})
    group = ObservedGroup("core", "Stable", (), {a: 15, b: 10})
    (found,) = backlog([group], ends, 125.0)
    assert (found.records, found.seconds, found.longer) == (15, 25.0, False)
    (old,) = backlog([ObservedGroup("core", "Stable", (), {a: 3})], ends, 125.0)
    assert (old.seconds, old.longer) == (25.0, True)


def test_a_record_of_a_topic_that_was_idle_waits_since_it_was_written():
    ends, tp = Ends(), TopicPartition("orders", 0)
    for second in range(0, 1200, 2):
        ends.add(float(second), {tp: 10})
    ends.add(1200.0, {tp: 11})
    (found,) = backlog([ObservedGroup("core", "Stable", (), {tp: 10})], ends, 1201.0)
    assert (found.records, found.seconds, found.longer) == (1, 3.0, False)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_a_sample_is_a_power_of_two_of_the_partitions_and_at_least_one(counts):
    sampling = Sampling(16)
    for second, count in enumerate(counts):
        assert sampling.count(float(second), count) in {1, 2, 4, 8, 16}
    assert 0 < sampling.share <= 1


def test_a_sample_grows_again_when_the_load_is_gone():
    sampling = Sampling(4, budget=100)
    for second in range(20):
        sampling.count(float(second), 1000)
    assert sampling.followed == 1
    for second in range(20, 50):
        sampling.count(float(second), 1)
    assert (sampling.followed, sampling.share) == (4, 1)


def test_keys_are_left_out_where_one_partition_is_too_much():
    """At any load it settles within the budget, counts are scaled up by what is left out, and kept keys stay kept."""
    keys = [b"order-%d" % n for n in range(4096)]
    sampling = Sampling(4, budget=500)
    kept = set(keys)
    for second in range(60):
        own = [key for key in keys if sampling.keeps(key)]
        assert kept >= set(own)
        kept = set(own)
        sampling.count(float(second), int(len(own) * 2 * sampling.partition_share))
    assert 0 < len(own) * 2 * sampling.partition_share <= 500
    assert len(own) / len(keys) == pytest.approx(sampling.share / sampling.partition_share, rel=0.3)
    for second in range(60, 120):
        sampling.count(float(second), 1)
    assert sampling.share == 1


def test_all_topics_of_an_order_are_thinned_by_its_id_and_payments_are_not():
    keyed = {topic for topic in CATALOGUE if any(s.topics(topic.name) for s in STREAMS if s.keyed)}
    unkeyed = {t for t in CATALOGUE if (s := next((s for s in STREAMS if s.topics(t.name)), None)) and not s.keyed}
    assert {topic.name for topic in unkeyed} == {"payments"}
    assert {"orders", "order-validations", "orders-enriched", "home-checkins"} < {topic.name for topic in keyed}


def test_a_feed_hands_over_the_records_of_the_same_orders_of_all_topics():
    seen = {}

    class Collector:
        def observe(self, topic, records, share):
            seen[topic] = {record.key for record in records}, share

    feed = Feed(Settings(partitions=4), STREAMS, Collector())
    for second in range(12):
        feed.sampling.count(float(second), 5000)
    share = feed.sampling.share
    assert share < feed.sampling.partition_share == 0.25
    for topic in ("orders", "order-validations", "payments"):
        records = [record(topic, {}, key=b"order-%d" % n) for n in range(500)]
        stream = next(stream for stream in STREAMS if stream.topics(topic))
        assert feed.hand_over(records, stream) == len(seen[topic][0])
    assert seen["orders"] == seen["order-validations"]
    assert 0 < len(seen["orders"][0]) < 500 == len(seen["payments"][0])
    assert (seen["orders"][1], seen["payments"][1]) == (share, 0.25)


def test_an_order_that_is_read_no_more_does_not_wait_for_ever():
    board = observer()
    see(board, "orders", order("gone"), order("kept"))
    board.narrow()
    assert board.flow_snapshot(NOW)["undecided"] == 0
    see(board, "orders", order("kept", state="VALIDATED"), at=NOW + 9)
    assert board.orders_snapshot()["lists"]["all"] == ["kept"]


# The page


def test_the_page_loads_nothing_from_elsewhere_and_has_nothing_inline():
    html = pages.FILES["index.html"].body.decode()
    assert "http" not in html.replace('"http', "").replace("http://www.w3.org", "")
    for forbidden in ("style=", "onclick", "<style", "javascript:"):
        assert forbidden not in html
    for name in ("board.css", "board.js", "theme.js", "favicon.svg"):
        assert f"board/static/{name}" in html
        assert name in pages.FILES
    scripts = [file.body.decode() for name, file in pages.FILES.items() if name.endswith(".js")]
    assert not [s for s in scripts if "innerHTML" in s or "eval(" in s or "https://" in s]


@pytest.mark.parametrize("order_id", ["a", "..", ".", "a/b", "a?b#c", "ü %2F"])
def test_an_id_of_an_order_is_one_part_of_a_path(order_id):
    url = _url(URL("http://127.0.0.1:1"), ("v1", "orders", order_id))
    assert url.raw_path.count("/") == 3
    assert url.path.removeprefix("/v1/orders/") == order_id or "/" in order_id or "." in order_id
