"""What if: settings to change, the difference and how it is shown, spooled records."""

import json
import sys
from decimal import Decimal
from io import StringIO

import pytest
from click.testing import CliRunner
from rich.console import Console

from ecosystem.cli.main import main
from ecosystem.what_if import changes, plot, report
from ecosystem.what_if.difference import Case, Difference
from ecosystem.what_if.outcomes import OPEN, Outcome
from ecosystem.what_if.recorded import read_entries
from ecosystem.what_if.spool import SpoolWriter, read_merged
from runtime.model.records import Record
from schemas.messages import OrderState
from schemas.topics import ORDERS

VALIDATED = Outcome.of(OrderState.VALIDATED, ())
FRAUD = Outcome.of(OrderState.FAILED, ["FRAUD_CHECK: too much"])
STOCK = Outcome.of(OrderState.FAILED, ["INVENTORY_CHECK: 0 available"])
BOTH = Outcome.of(OrderState.FAILED, ["INVENTORY_CHECK: 0 available", "FRAUD_CHECK: too much"])


@pytest.fixture
def difference():
    found = Difference()
    found.add(Case("a", Decimal("10.50"), VALIDATED, VALIDATED, FRAUD))
    found.add(Case("b", Decimal(20), VALIDATED, VALIDATED, FRAUD))
    found.add(Case("c", Decimal(5), STOCK, STOCK, VALIDATED))
    found.add(Case("d", Decimal(1), STOCK, VALIDATED, FRAUD))
    found.add(Case("e", Decimal(2), BOTH, STOCK, BOTH))
    return found


def test_settings_are_validated_by_their_service():
    assert changes.parse(["FRAUD_LIMIT=1500", "validation_deadline_s=5"]) == {
        "fraud_limit": "1500",
        "validation_deadline_s": "5",
    }


@pytest.mark.parametrize(
    ("texts", "cause"),
    [
        (["FRAUD_LIMIT"], "'FRAUD_LIMIT' has no value: write a setting as NAME=value"),
        (["FRAUD_LIMIT=-1"], "FRAUD_LIMIT must be above 0"),
        (["FRAUD_LIMIT=1e3"], "FRAUD_LIMIT"),
        (["HTTP_PORT=1"], "HTTP_PORT does not change how an order ends. Those that do: CHECKIN_PATIENCE_S, CURRENCY, "),
        (["FRAUD_LIMIT=1", "fraud_limit=2"], "FRAUD_LIMIT is given twice"),
        (["FULFILMENT_NEEDS=PAYED"], "the needs are VALIDATED, PAID, CHECKED_IN"),
        (["REQUIRED_CHECKS=fraud"], "REQUIRED_CHECKS"),
    ],
)
def test_a_wrong_setting_is_named(texts, cause):
    with pytest.raises(changes.InvalidChange) as caught:
        changes.parse(texts)
    assert cause in str(caught.value)


def test_the_command_names_wrong_options_before_it_reads_anything(monkeypatch, tmp_path):
    def said(*arguments):
        result = CliRunner().invoke(main, ["what-if", "--bootstrap", "127.0.0.1:1", *arguments])
        return result.exit_code, " ".join(result.output.split())

    code, text = said("--set", "FRAUD_LIMIT=no")
    assert (code, "--set: FRAUD_LIMIT" in text) == (2, True), text
    code, text = said("--from", "2026-07-02", "--to", "2026-07-01")
    assert (code, "--from: it must be before --to" in text) == (2, True), text
    code, text = said("--plot", str(tmp_path / "a.gif"))
    assert (code, "a.gif must end in one of .svg, .png, .pdf" in text) == (2, True), text
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, text = said("--plot", str(tmp_path / "a.svg"))
    assert (code, "pip install 'faust-orders[plot]'" in text) == (2, True), text


def test_undecided_orders_are_in_no_difference(difference):
    assert (difference.all.orders, difference.undecided.orders) == (5, 1)
    assert [case.order_id for case in difference.undecided_cases] == ["d"]
    assert [case.order_id for case in difference.cases] == ["a", "b", "c"]
    assert (difference.changed.orders, difference.changed.value) == (3, Decimal("35.50"))
    assert difference.before[OrderState.VALIDATED].orders == 2
    assert difference.after[OrderState.FAILED].orders == 3


def test_parts_of_several_processes_add_up(difference):
    whole = Difference(most_cases=2)
    whole.merge(difference)
    whole.merge(difference)
    assert (whole.all.orders, whole.changed.orders, whole.undecided.orders) == (10, 6, 2)
    assert [case.order_id for case in whole.cases] == ["a", "a"]
    assert whole.changes[VALIDATED, FRAUD].orders == 4


def test_of_several_failed_checks_any_may_be_the_first():
    assert BOTH.agrees(STOCK)
    assert not STOCK.agrees(FRAUD)
    assert not VALIDATED.agrees(OPEN)


def test_the_report_has_amounts_and_reasons(difference):
    console = Console(width=120, record=True, file=StringIO())
    report.print_report(difference, console, {"fraud_limit": "1500"}, "EUR", 2.0)
    text = " ".join(console.export_text().split())
    assert (
        "5 orders (38.50 EUR) judged under FRAUD_LIMIT=1500. 3 orders (35.50 EUR) would have ended otherwise." in text
    )
    assert "VALIDATED FAILED FRAUD_CHECK 2 30.50 EUR" in text
    assert "FAILED VALIDATED INVENTORY_CHECK 1 5.00 EUR" in text
    assert "1 order (1.00 EUR): Undecided by timing" in text


def test_json_has_the_same(difference):
    said = json.loads(report.as_json(difference, {"fraud_limit": "1500"}, "EUR", 2.0))
    assert said["settings"] == {"FRAUD_LIMIT": "1500"}
    assert said["changed"] == {"orders": 3, "value": "35.50"}
    assert said["changes"][0] == {
        "from": {"state": "VALIDATED", "reasons": []},
        "to": {"state": "FAILED", "reasons": ["FRAUD_CHECK"]},
        "orders": 2,
        "value": "30.50",
    }
    assert said["states"]["VALIDATED"] == {
        "before": {"orders": 2, "value": "30.50"},
        "after": {"orders": 1, "value": "5"},
    }
    assert [case["id"] for case in said["undecided"]["cases"]] == ["d"]


@pytest.mark.parametrize(("ending", "begin"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
@pytest.mark.parametrize("empty", [False, True])
def test_a_plot_is_drawn(difference, tmp_path, ending, begin, empty):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"difference.{ending}"
    plot.plot(Difference() if empty else difference, file, "FRAUD_LIMIT=1500", "EUR")
    assert file.read_bytes().startswith(begin)


def record(topic, offset, ms, key, value, partition=0):
    return Record(topic, partition, offset, ms, key, value, [("h", None)])


def test_spooled_records_come_by_time_and_those_of_a_partition_by_offset(tmp_path):
    with SpoolWriter(tmp_path) as spool:
        for one in (
            record("orders", 0, 10, b"a", b"1"),
            record("orders", 1, 5, b"b", None),  # an earlier clock
            record("orders", 2, 20, None, b"3", partition=1),
            record("stock", 0, 10, b"d", b"4"),
        ):
            spool.write(one)
        spool.write(record("orders", 3, 30, b"e", b"5")._replace(unreadable="broken"))
    found = list(read_merged(tmp_path, {"orders": 1, "stock": 0}))
    assert [(r.topic, r.partition, r.offset, r.timestamp_ms, r.key, r.value) for r in found] == [
        ("stock", 0, 0, 10, b"d", b"4"),
        ("orders", 0, 0, 10, b"a", b"1"),
        ("orders", 0, 1, 10, b"b", None),
        ("orders", 1, 2, 20, None, b"3"),
    ]
    assert found[0].headers == [("h", None)]
    assert spool.skipped == 1


def state(state, ms, *reasons, order_id="o"):
    content = {"id": order_id, "state": state, "product": "mug", "reasons": list(reasons) or None}
    return record("orders", ms, ms, order_id.encode(), json.dumps(content, separators=(",", ":")).encode())


def entry_of(*records):
    by_topic = {ORDERS.name: records}
    found = read_entries(lambda topics: (r for topic in topics for r in by_topic[topic]), lambda _: True, 1000)
    return found["o"]


def test_what_is_recorded_of_an_order_is_its_last_state_that_can_follow():
    entry = entry_of(state("CREATED", 1), state("VALIDATED", 2), state("FAILED", 3, "X: y"), state("SHIPPED", 4))
    assert (entry.recorded.state, entry.decided_ms, entry.final_ms) == ("SHIPPED", 2, 4)
    late = entry_of(state("CREATED", 1), state("FAILED", 61, "A: no verdict within 60 s"), state("VALIDATED", 70))
    assert (late.recorded.reasons, late.missing) == (("A missing",), {"A": 60.0})
    assert entry_of(state("CREATED", 1), state("CANCELLED", 5, "by me")).cancelled
    assert not entry_of(state("CREATED", 1), state("CANCELLED", 5, "not paid within 1800 s")).cancelled
    assert entry_of(state("CREATED", 1), state("VALIDATED", 1000)).recorded == OPEN  # after the end of the range
