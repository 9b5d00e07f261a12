"""`orders replay`: what it refuses, and what it asks, before anything is read or sent."""

import sys

import pytest
from click.testing import CliRunner

from ecosystem.cli import replaying
from ecosystem.cli.commands import replay as command
from ecosystem.cli.main import main
from ecosystem.replay import redeciding
from ecosystem.replay.records import Place, Resubmission
from ecosystem.replay.selection import Selection
from ecosystem.replay.stages import ABOUT_NO_ORDER, EFFECTS, INPUTS, REPLAYABLE
from history_service.filters import Filters
from history_service.stages import Stage

DATABASE = ("--history", "postgresql://127.0.0.1:1/none")


@pytest.fixture
def orders(tmp_path, monkeypatch):
    monkeypatch.setenv("ORDERS_DATA", str(tmp_path))
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "ORDERS_URL", "HISTORY_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments, **more: CliRunner().invoke(main, ["replay", *arguments], **more)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say which: ORDER_ID, --ids, filters such as --state FAILED, or --all"),
        (["o", "--state", "FAILED"], "name orders, or filter them, not both"),
        (["o", "--all"], "name orders, or filter them, not both"),
        (["--all", "--product", "mug"], "--all is for all orders: leave it out, or the filters"),
        (["o", "--inputs", "--redecide"], "exclude each other"),
        (["o", "--stage", "CREATED", "--inputs"], "exclude each other"),
        (["o", "--stage", "DEAD_LETTER"], "'DEAD_LETTER' is not one of 'created'"),
        (["o", "--stage", "STOCK"], "STOCK is about no order: leave out ids"),
        (["--state", "FAILED", "--stage", "CREATED", "--stage", "CUSTOMER"], "CUSTOMER is about no order"),
        (["--state", "LOST"], "'LOST' is not one of"),
        (["--reason", "ab"], "--reason: it must have 3 to 256 characters"),
        (["--failed-service", "fraude"], "there is no service 'fraude'; there are orders"),
        (["--from", "2026-07-02", "--to", "2026-07-01"], "--from: it must be before --to"),
        (["o", "--rate", "0"], "0.0 is not in the range"),
        (["o", "--max-replays", "0"], "0 is not in the range"),
        (["o"], "the input is no terminal: add --yes, or --dry-run"),
    ],
)
def test_what_makes_no_sense_is_refused(orders, arguments, said):
    result = orders(*arguments, *DATABASE)
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_a_history_must_be_named(orders):
    result = orders("o", "--dry-run")
    assert result.exit_code == 2
    assert "name the database of the history by --history or HISTORY_DATABASE_URL" in result.output
    for url in (DATABASE[1], "nonsense"):
        result = orders("o", "--dry-run", "--history", url)
        assert (result.exit_code, "check HISTORY_DATABASE_URL" in result.output) == (1, True), result.output


def test_a_file_must_name_orders(orders, tmp_path):
    (tmp_path / "ids").write_bytes(b"\n \n")
    result = orders("--ids", str(tmp_path / "ids"), "--yes", *DATABASE)
    assert (result.exit_code, "it names no order" in result.output) == (2, True)
    (tmp_path / "ids").write_bytes(b"\xff\n")
    result = orders("--ids", str(tmp_path / "ids"), "--yes", *DATABASE)
    assert (result.exit_code, "not UTF-8" in result.output) == (2, True)
    result = orders("--ids", "-", *DATABASE, input="o-1\n")
    assert (result.exit_code, "--yes" in result.output) == (2, True)


class Planned:
    """A plan of records."""

    obstacle = None

    def __init__(self, total):
        self.plan = self
        self.total = total


@pytest.mark.parametrize(("answer", "sent"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_nothing_is_sent_before_the_user_agrees(orders, monkeypatch, answer, sent):
    calls = []
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    monkeypatch.setattr(replaying.Replaying, "prepare", lambda *_: Planned(3))
    monkeypatch.setattr(replaying.Replaying, "show", lambda *_: calls.append("shown"))
    monkeypatch.setattr(replaying.Replaying, "send", lambda *_: calls.append("sent") or sys.exit(0))
    result = orders("o", *DATABASE, input=answer)
    assert "Send 3 records? [y/N]" in result.output
    assert calls == ["shown", "sent"] if sent else ["shown"]
    assert result.exit_code == (0 if sent else 1)


def test_what_would_set_back_newer_records_is_refused(orders, monkeypatch):
    planned = Planned(1)
    planned.obstacle = "warehouse-inventory has records"
    monkeypatch.setattr(replaying.Replaying, "prepare", lambda *_: planned)
    monkeypatch.setattr(replaying.Replaying, "show", lambda *_: None)
    monkeypatch.setattr(replaying.Replaying, "send", lambda *_: sys.exit(0))
    result = orders("--all", "--yes", *DATABASE)
    assert (result.exit_code, "warehouse-inventory has records" in result.output) == (1, True)
    assert orders("--all", "--yes", "--overwrite", *DATABASE).exit_code == 0


def test_the_stages_of_the_command_are_those_that_can_be_replayed():
    assert {*command._STAGES} == {*REPLAYABLE} == {*EFFECTS, Stage.CREATED}
    assert {*INPUTS} <= {*REPLAYABLE}


def test_records_about_no_order_belong_to_no_selection_of_orders():
    everything = {"stages": INPUTS}
    assert set(Selection(**everything).of_no_order) == ABOUT_NO_ORDER & {*INPUTS}
    assert Selection(**everything, filters=Filters(product="mug")).of_no_order
    for told in ({"ids": ("o",)}, {"filters": Filters(reason="fraud")}):
        assert Selection(**everything, **told).of_no_order == ()
    assert Selection(**everything).cancelled_by_clients
    assert not Selection().cancelled_by_clients


def test_only_a_failed_order_is_decided_anew():
    assert "cancel it instead" in redeciding.obstacle("VALIDATED")
    assert "not in the history" in redeciding.obstacle(None)
    odd = Resubmission(Place("orders", 0, 0), "CREATED", "orders", 0, b"o", b"odd", (), 0)
    assert redeciding.redecided(odd, 2, None) is None
