"""The command line: what it says to a stranger, and what it refuses. Nothing here needs a broker or a worker."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from ecosystem.cli.commands.shared import TIME
from ecosystem.cli.main import main
from ecosystem.cli.up.welcome import first_order_commands
from ecosystem.embedded.ports import free_ports


@pytest.fixture
def orders(tmp_path, monkeypatch):
    """Runs `orders` on empty data."""
    monkeypatch.setenv("ORDERS_DATA", str(tmp_path))
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "ORDERS_URL", "CHECKIN_URL", "FULFILMENT_URL"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_and_an_example(orders, command):
    first = {
        "stock": ["set"],
        "checks": ["add"],
        "dead-letters": ["redrive"],
        "customers": ["add"],
        "products": ["import"],
        "webhooks": ["add"],
    }
    result = orders(command, *first.get(command, []), "--help")
    assert result.exit_code == 0
    assert command == "topics" or f"\n  orders {command}" in result.output


named = ("--first-name", "Franz", "--last-name", "Kafka", "--address", "Praha")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'SERVICE...'"),
        (["run", "fraude"], "'fraude' is not one of 'orders', "),
        (["post", "--price", "cheap"], "'cheap' is not an amount"),
        (["post", "--price", "0.00001"], "price must have at most 4 digits after the point"),
        (["post", "--id", " "], "id must not start or end with white space"),
        (["get", "x", "--timeout", "60001"], "60001 is not in the range"),
        (["stock", "set", "mug", "-1"], "No such option"),
        (["pay", "o1", "--amount", "0"], "--amount must be more than 0"),
        (["pay", "o1", "--amount", "1", "--ccy", "EURO", "--no-wait"], "ccy must have at most 3 characters"),
        (["pay", " ", "--amount", "1", "--no-wait"], "order_id must not start or end with white space"),
        (["customers", "add", "15", *named, "--email", "franz"], "email must be an address such as"),
        (["customers", "add", "15", *named, "--email", "f@example.org", "--level", "gould"], "'gould' is not one of"),
        (["products", "add", "mug", "Mug", "cheap"], "'cheap' is not an amount"),
        (["products", "add", "mug", "Mug", "-1.5"], "No such option"),
        (["products", "add", " mug", "Mug", "1"], "code must not start or end with white space"),
        (["products", "change", "mug"], "name what to change: --name, --price or both"),
        (["products", "import", "nowhere.csv"], "nowhere.csv"),
        (["generate", "--rate", "0"], "0.0 is not in the range"),
        (["up", "--rate", "1", "--no-sample"], "--rate needs the sample stock"),
        (["audit", "--since", "yesterday"], "'yesterday' is not a time such as 2026-07-01"),
        (["audit", "--since", "0h"], "or a time ago such as 90m, 12h or 7d"),
        (["audit", "--guarantee", "hopefully"], "'hopefully' is not one of 'exactly_once', 'at_least_once'"),
        (["checks", "add", "credit"], "'credit' is not a check such as BULK_CHECK"),
        (["checks", "add", "CREDIT_CHECK", "--from", "soon"], "'soon' is neither 'now' nor a time"),
        (["checks", "add", "CREDIT_CHECK", "--from", "2099-01-01T00:00:00"], "has no time zone: append Z"),
        (["checks", "remove", "CREDIT_CHECK", "--from", "2020-01-01T00:00:00Z"], "is not in the future"),
        (["dead-letters", "list", "order"], "no such topic: order. There are: orders, "),
        (["dead-letters", "show", "orders", "17"], "'17' is not a position such as 2@17"),
        (["dead-letters", "redrive", "orders"], "name dead letters by PARTITION@OFFSET"),
        (["dead-letters", "redrive", "orders", "2@17", "--all"], "name dead letters by PARTITION@OFFSET"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(orders, arguments, said):
    result = orders(*arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_up_does_not_throw_away_what_is_not_its_own(orders, monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    result = orders("up", "--fresh")
    assert result.exit_code == 2
    assert "KAFKA_BOOTSTRAP_SERVERS names another" in result.output


@pytest.mark.parametrize("command", [["post"], ["get", "x"], ["pay", "x"]])
def test_nobody_there(orders, command):
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    result = orders(*command, "--url", url)
    assert result.exit_code == 1
    assert f"Nobody answers at {url}" in result.output


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["stock", "set", "mug", "1"], 1),
        (["tail", "--no-follow"], 1),
        (["pay", "x", "--amount", "1", "--no-wait"], 1),
        (["customers", "add", "15", *named, "--email", "franz@example.org"], 1),
        (["customers", "add", "15", *named, "--email", "franz@example.org", "--level", "gold"], 1),
        (["dead-letters", "list"], 1),
        (["dead-letters", "redrive", "orders", "--all"], 1),
        (["backlog"], 1),
        (["audit"], 2),
    ],
)
def test_no_kafka_there(orders, command, code, monkeypatch):
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    result = orders(*command)
    assert result.exit_code == code
    assert f"Kafka does not answer at {servers}" in result.output


def test_a_file_with_faults_is_told_and_nothing_written(orders, tmp_path):
    path = tmp_path / "customers.csv"
    path.write_text("id,firstName,lastName,email,address\n15,Franz,Kafka,franz,Praha\n")
    result = orders("customers", "import", str(path))  # would say so if it went as far as Kafka, which is not there
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "Error: Nothing was written.",
        f"{path}:2: email must be an address such as franz@example.org",
    ]


def test_commands_find_what_is_up(orders, tmp_path):
    port = free_ports(1)[0]
    note = {"pid": os.getpid(), "bootstrap_servers": "127.0.0.1:1", "urls": {"orders": [f"http://127.0.0.1:{port}"]}}
    (tmp_path / "running.json").write_text(json.dumps(note))
    assert f"Nobody answers at http://127.0.0.1:{port} " in orders("post").output
    assert "Kafka does not answer at 127.0.0.1:1 " in orders("tail").output


def test_commands_find_the_worker_of_their_service(orders, tmp_path):
    here, there = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    urls = {"orders": [here], "checkin": [there], "fulfilment": [there]}
    (tmp_path / "running.json").write_text(json.dumps({"pid": os.getpid(), "bootstrap_servers": "x:1", "urls": urls}))
    assert f"Nobody answers at {there} " in orders("checkin", "my-order").output
    assert f"Nobody answers at {there} " in orders("pay", "my-order").output
    assert f"Nobody answers at {here} " in orders("get", "my-order").output


def test_a_note_of_the_dead_is_not_believed(orders, tmp_path):
    note = {"pid": 2**22 + 1, "bootstrap_servers": "127.0.0.1:1", "urls": {"orders": ["http://127.0.0.1:1"]}}
    (tmp_path / "running.json").write_text(json.dumps(note))
    assert "at http://127.0.0.1:1 " not in orders("get", "x", "--timeout", "0").output


def test_the_catalogue(orders):
    lines = orders("topics").output.splitlines()
    assert lines[1].split() == ["orders", "id", "Order", "orders", "for", "ever"]
    assert lines[2].split() == ["order-validations", "orderId", "OrderValidation", "validators", "7", "days"]


def test_data_that_cannot_be_kept_are_told_with_the_remedy():
    command = [sys.executable, "-m", "ecosystem.cli", "up"]
    environment = {**os.environ, "ORDERS_DATA": "/proc/nowhere"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "/proc/nowhere: No such file or directory" in done.stderr
    assert "set ORDERS_DATA" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_another_user_runs_is_found(orders, tmp_path, monkeypatch):
    def kill(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    note = {"pid": 1, "bootstrap_servers": "127.0.0.1:1", "urls": {"orders": ["http://127.0.0.1:1"]}}
    (tmp_path / "running.json").write_text(json.dumps(note))
    assert "Nobody answers at http://127.0.0.1:1 " in orders("post").output


def test_commands_for_a_shell_go_through_folders_of_any_name(tmp_path):
    emails = tmp_path / "the shop's $1, mail"
    emails.mkdir()
    (emails / "1").write_text("X-Order-Id: my-order\n")
    lines = first_order_commands("http://127.0.0.1/{}".format, emails).splitlines()
    command = next(line for line in lines if "grep" in line)
    found = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert found.stdout == f"{emails}/1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-07-01", datetime(2026, 7, 1, tzinfo=UTC)),
        ("2026-07-01T12:00", datetime(2026, 7, 1, 12, tzinfo=UTC)),
        ("2026-07-01T12:00:00+02:00", datetime(2026, 7, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_time_of_an_option_is_in_utc_without_an_offset(text, expected):
    assert TIME.convert(text, None, None) == expected


def test_a_time_of_an_option_may_be_a_time_ago():
    before = datetime.now(UTC)
    assert before <= TIME.convert("90m", None, None) + timedelta(minutes=90) <= datetime.now(UTC)
