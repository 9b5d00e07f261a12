"""Commands end soon after a signal, whatever they wait for: while they start, connect, send and retry."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ecosystem.cli import stopping
from ecosystem.cli.up import children
from ecosystem.cli.up.children import Children
from tests.servers import SilentServer

PATIENCE_S = 180
SILENT_LOAD = """
import importlib
module = importlib.import_module("ecosystem.cli.commands.generate")
module.GRACE_S = 0.1
from ecosystem.cli.main import main
main()
"""
"""`orders`, with less time for open requests of `orders generate`."""


@pytest.fixture
def silent():
    with SilentServer() as server:
        yield server


@pytest.fixture
def command(tmp_path):
    """Starts `orders` as a process, which is killed at the end of the test."""
    started = []

    def start(*arguments, code="from ecosystem.cli.main import main; main()", **environment):
        mine = {"ORDERS_DATA": str(tmp_path), "STATE_DIR": str(tmp_path / "state"), "HTTP_PORT": "0", **environment}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | mine,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process, number):
    """Exit code and output of a process that gets this signal."""
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
def test_the_load_generator_ends_while_it_waits_for_a_service(command, silent, number):
    urls = [f"--{service}-url={silent.url}" for service in ("fulfilment", "checkin", "portal", "products")]
    process = command("generate", "--url", silent.url, *urls)
    connection = silent.wait_for_request(b"GET /readyz")
    assert ended(process, number) == (0, "0 posted: none decided yet; 0 mismatches\n")
    assert not silent.waiting(), "no other service is asked"
    connection.close()


def test_the_load_generator_ends_while_it_sends(command, silent):
    options = ("--no-payments", "--no-checkins", "--no-products", "--rate", "0.001")
    process = command("generate", "--url", silent.url, *options, code=SILENT_LOAD)
    connection = silent.wait_for_request(b"POST /v1/orders")
    expected = "1 posted: none decided yet; 0 mismatches; 1 left unfinished\n"
    assert ended(process, signal.SIGTERM) == (0, expected), "the request is not repeated"
    connection.close()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("tail",), ""),
        (("generate", "--no-checkins", "--no-products"), "0 posted: none decided yet; 0 mismatches\n"),
    ],
    ids=["tail", "generate"],
)
@SIGNALS
def test_a_command_ends_while_it_connects_to_kafka(command, silent, arguments, expected, number):
    refused = "http://127.0.0.1:1"
    where = {"KAFKA_BOOTSTRAP_SERVERS": silent.address, "ORDERS_URL": refused, "FULFILMENT_URL": refused}
    process = command(*arguments, **where)
    connection = silent.wait_for_request()
    assert ended(process, number) == (0, expected)
    connection.close()


@pytest.mark.parametrize(
    "arguments", [["generate", "--url", "http://127.0.0.1:1"], ["run", "orders"]], ids=lambda a: a[0]
)
def test_a_child_that_is_stopped_right_after_its_start_is_not_reported_as_killed(arguments):
    said = io.StringIO()
    system = Children(Console(file=said), 4)
    system.start("mine", arguments, {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    system.stop()
    assert "did not stop" not in said.getvalue()
    assert system.failure() is None


CHILD = """#!{python}
import os, signal, sys, time

def count(*_):
    global signals
    signals += 1

signals, name = 0, sys.argv[3]
signal.signal(signal.SIGTERM, count)
open(name, "w").close()
while not signals:
    signal.pause()
if name == "last":
    while os.path.exists(f"/proc/{{open('pid').read()}}"):
        time.sleep(0.01)
    time.sleep(0.3)  # for a second signal, if one comes
print("signals:", signals)
"""
"""A child that counts its signals. The last ends after the first is gone, whose process id is in a file."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_child_gets_one_signal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "child"
    script.write_text(CHILD.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    said = io.StringIO()
    system = Children(Console(file=said), 5)
    Path("pid").write_text(str(system.start("first", ["first"], {})))
    system.start("last", ["last"], {})
    while not (Path("first").exists() and Path("last").exists()):
        assert system.failure() is None
    system.stop()
    assert sorted(said.getvalue().splitlines()) == ["first | signals: 1", "last  | signals: 1"]


SCRIPT = """
import asyncio
from ecosystem.cli import stopping

async def patient(stop):
    stop.grace_s = 0.01
    print("waiting", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled")

async def stuck(stop):
    print("waiting", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def broken(stop):
    raise ValueError("broken")

"""
"""In a process of its own: a command that gets a signal has its process killed a little later."""


def test_a_command_that_does_not_end_by_itself_is_cancelled(command):
    process = command(code=SCRIPT + "asyncio.run(stopping.run_until_signal(patient))")
    assert process.stdout.readline() == "waiting\n"
    assert ended(process, signal.SIGTERM) == (0, "cancelled\n")


def test_a_command_that_fails_is_not_silent(command):
    process = command(code=SCRIPT + "asyncio.run(stopping.run_until_signal(broken))")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert said.endswith("ValueError: broken\n")


def test_a_command_that_cannot_be_cancelled_is_killed(command):
    process = command(code=SCRIPT + "stopping.END_S = 0.1\nasyncio.run(stopping.run_until_signal(stuck))")
    assert process.stdout.readline() == "waiting\n"
    code, said = ended(process, signal.SIGTERM)
    assert code == 1
    assert "process ended code=1 reason=the shutdown hangs" in said


def test_orders_up_waits_longer_than_a_command_takes_to_end():
    assert stopping.GRACE_S < stopping.END_S < children.GRACE_S
