"""`orders up` as its user meets it: one command, an order through, Ctrl-C, and nothing is left behind."""

import mailbox
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ecosystem.embedded.ports import free_ports, is_open
from tests.servers import SilentServer

HTTP_PORTS = range(10_000, 19_000)
"""First ports, below those that tests choose for themselves."""

PATIENCE_S = 300
"""How long anything may take before a test fails."""
WAIT = ("--timeout", "60000")
"""For an order to be decided: the most that may be asked for."""


def orders(data, *arguments):
    command = [sys.executable, "-m", "ecosystem.cli", *arguments]
    return subprocess.run(command, env=environment(data), capture_output=True, text=True, timeout=PATIENCE_S)


def environment(data):
    without = {"KAFKA_BOOTSTRAP_SERVERS", "ORDERS_URL", "CHECKIN_URL", "FULFILMENT_URL", "PORTAL_URL", "PRODUCTS_URL"}
    return {**{k: v for k, v in os.environ.items() if k not in without}, "ORDERS_DATA": str(data)}


class Up:
    """A running `orders up` and what it has said so far."""

    def __init__(self, process):
        self.process = process
        self.said = []
        self._reader = threading.Thread(target=lambda: self.said.extend(iter(process.stdout.readline, "")))
        self._reader.start()

    def heard(self, pattern):
        """The match, once it has been said."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            ended = not self._reader.is_alive()
            if match := re.search(pattern, "".join(self.said), re.MULTILINE | re.DOTALL):
                return match
            if ended:
                break
            time.sleep(0.1)
        return pytest.fail(f"not said: {pattern!r}\n{''.join(self.said)}")

    def end(self):
        """All it said; fails if it does not end."""
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return "".join(self.said)


@contextmanager
def started(data, *arguments):
    """Starts `orders up`, and ends it with Ctrl-C."""
    command = [sys.executable, "-m", "ecosystem.cli", "up", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env={**environment(data), "PYTHONUNBUFFERED": "1"}, text=True, **pipes) as process:
        running = Up(process)
        try:
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            running.end()


@contextmanager
def up(data, *arguments):
    """As `started`; enters when it says that it is ready."""
    with started(data, "--port", str(random.choice(HTTP_PORTS)), *arguments) as running:
        running.heard("Ready after")
        yield running


def letter_about(order_id, folder):
    """The letter, once it is there."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for letter in mailbox.Maildir(folder):
            if letter["X-Order-Id"] == order_id:
                return letter.as_string()
        time.sleep(0.1)
    pytest.fail("no letter")


def children_of(running):
    return psutil.Process(running.process.pid).children(recursive=True)


def alive(processes):
    return [p for p in processes if p.is_running() and asked(p.status) not in {None, psutil.STATUS_ZOMBIE}]


def asked(what, *arguments):
    """What a process says of itself; `None` from one that has ended: PostgreSQL's come and go."""
    try:
        return what(*arguments)
    except psutil.NoSuchProcess:
        return None


def listening(processes):
    connections = [c for p in processes for c in asked(p.net_connections, "tcp") or ()]
    return {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}


def test_an_order_is_validated_and_found_by_a_second_run(tmp_path):
    with up(tmp_path) as first:
        children = children_of(first)
        ports = listening(children)
        assert len(ports) == 4, "Kafka's two, PostgreSQL's, and the worker's"
        assert listening([psutil.Process(first.process.pid)]), "the mail server's"
        posted = orders(tmp_path, "post", *WAIT, "--id", "mine", "--product", "mug")
        assert "VALIDATED" in posted.stdout, posted.stderr
        failed = orders(tmp_path, "post", *WAIT, "--id", "other", "--product", "unicorn", "--customer", "15")
        assert "FAILED" in failed.stdout, failed.stderr
        letter = letter_about("other", tmp_path / "mail")
        assert "'unicorn'" in letter
        assert "WITHDRAWN  version 2" in orders(tmp_path, "products", "withdraw", "kettle").stdout
        assert "already, as process" in orders(tmp_path, "up").stderr
    assert first.process.returncode == 0
    assert not alive(children)
    assert not [port for port in ports if is_open(port)]
    with up(tmp_path) as second:
        assert "VALIDATED" in orders(tmp_path, "get", "mine").stdout
        for product, state in (("mug", "ACTIVE  version 1"), ("kettle", "WITHDRAWN  version 2")):
            assert state in orders(tmp_path, "products", "show", product).stdout, "the sample changes nothing again"
        generated = orders(tmp_path, "generate", "--rate", "50", "--count", "50", "--seed", "1")
        assert "50 posted" in generated.stdout
        assert generated.returncode == 0, generated.stderr
    assert second.process.returncode == 0


def commands_in(said):
    """What is to be typed for an order of one's own: each command as it stands, over several lines perhaps."""
    lines = iter(said.splitlines())
    while "An order of your own" not in next(lines):
        pass
    found = []
    for line in lines:
        if line.startswith("   "):
            found[-1] += f"\n{line}"
        elif line.startswith("  "):
            found.append(line.strip())
        elif line:
            return found
    return pytest.fail("the words that follow are missing")


def typed(command, data, *expected):
    """What a shell answers to a command; typed again until all that is expected is there, as a person would."""
    deadline = time.monotonic() + PATIENCE_S
    shell = ["bash", "-c", command]
    while True:
        run = subprocess.run(shell, env=environment(data), capture_output=True, text=True, timeout=PATIENCE_S)
        if run.returncode == 0 and all(words in run.stdout for words in expected):
            return run.stdout
        assert time.monotonic() < deadline, f"{command}\n{run.stdout}{run.stderr}"
        time.sleep(0.2)


@pytest.mark.parametrize("how", [[], ["--apart"]], ids=["composed", "apart"])
def test_orders_are_shipped_by_the_load_generator_and_by_the_printed_commands(tmp_path, how, monkeypatch):
    [checkin_port] = free_ports(1)
    monkeypatch.setenv("CHECKIN_PORT", str(checkin_port))
    with up(tmp_path, "--rate", "1", *how) as running:
        children = children_of(running)
        running.heard("Messages as they arrive")
        post, validated, pay, check_in, fulfilment, get, letters = commands_in("".join(running.said))
        typed(post, tmp_path, '"id":"my-order"', '"product":"mug"')
        typed(validated, tmp_path, '"state":"VALIDATED"')
        typed(fulfilment, tmp_path, '"missing":["PAID","CHECKED_IN"]')
        assert "24.00 EUR for my-order" in (paid := typed(pay, tmp_path))
        assert re.search("Missing before it is shipped: CHECKED_IN|fulfilment has not seen it yet", paid)
        typed(fulfilment, tmp_path, '"missing":["CHECKED_IN"]')
        typed(check_in, tmp_path, '"status":"CREATED"')
        there = running.heard(r"check-ins +(http://localhost:\d+/api/SOA/home/checkin)\n")[1]
        assert there == f"http://localhost:{checkin_port}/api/SOA/home/checkin"
        for family in ("-4", "-6"):
            again = re.sub("http://[^ ]+", there, check_in).replace("curl", f"curl {family}")
            typed(again, tmp_path, '"status":"CREATED"')
        typed(fulfilment, tmp_path, '"fulfilled":true', '"missing":[]')
        typed(get, tmp_path, '"state":"SHIPPED"')
        typed(f"{letters} | wc -l", tmp_path, "2")
        assert "is on its way" in "".join(Path(path).read_text() for path in typed(letters, tmp_path).split())

        for state, said in (
            ("SHIPPED", "is on its way"),
            (r"FAILED \((?:INVENTORY|ORDER_DETAILS)_CHECK: [^)]+\)", "unicorn"),
        ):
            order_id, path = running.heard(rf"^The first order is {state}: (\S+), .*?Its e-mail: (\S+)$").groups()
            letter = Path(path).read_text()
            assert f"X-Order-Id: {order_id}" in letter
            assert said in letter
        assert 0 < len(re.findall("The first order is", "".join(running.said))) <= 2, "told once each"
    assert running.process.returncode == 0
    assert re.search(r"sample +\| \d+ posted: .*; 0 mismatches", "".join(running.said)), "what the driver found"
    assert not alive(children)


def test_a_dead_worker_stops_everything_with_a_message(tmp_path):
    with up(tmp_path, "--no-sample") as running:
        children = children_of(running)
        worker = next(child for child in children if "run" in (asked(child.cmdline) or ()))
        worker.kill()
        said = running.end()
    assert "worker-1 ended unexpectedly, with code -9" in said
    assert running.process.returncode == 1
    assert not alive(children)


def test_a_worker_that_ends_before_it_is_ready_stops_everything_at_once(tmp_path):
    with started(tmp_path, "--port", str(random.choice(HTTP_PORTS))) as running:
        running.heard(r"^worker-1 +\|")
        children = children_of(running)
        next(child for child in children if "run" in (asked(child.cmdline) or ())).kill()
        said = running.end()
    assert "worker-1 ended unexpectedly, with code -9" in said
    assert "Nobody answers" not in said
    assert running.process.returncode == 1
    assert not alive(children)


def test_ctrl_c_stops_everything_while_kafka_does_not_answer(tmp_path):
    with SilentServer() as kafka:
        where = {"KAFKA_BOOTSTRAP_SERVERS": kafka.address}
        command = [sys.executable, "-m", "ecosystem.cli", "up", "--port", str(random.choice(HTTP_PORTS))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, env=environment(tmp_path) | where, text=True, **pipes) as process:
            running = Up(process)
            connections = [kafka.wait_for_request() for _ in ("the sample's", "the worker's")]
            children = children_of(running)
            process.send_signal(signal.SIGINT)
            said = running.end()
    assert said.endswith("Stopped.\n"), said
    assert "did not stop" not in said
    assert process.returncode == 0
    assert not alive(children)
    del connections


def test_two_ecosystems_started_at_once_do_not_collide(tmp_path):
    """Each looks for its ports from the same ones on, and finds them before the other listens there."""
    port = str(random.choice(HTTP_PORTS))
    with started(tmp_path / "one", "--port", port) as one, started(tmp_path / "two", "--port", port) as two:
        for running in (one, two):
            running.heard("Ready after")
        ports = []
        for running, data in ((one, tmp_path / "one"), (two, tmp_path / "two")):
            process = psutil.Process(running.process.pid)
            ports += listening([process, *process.children(recursive=True)])
            posted = orders(data, "post", *WAIT, "--id", f"of-{data.name}", "--product", "mug")
            assert "VALIDATED" in posted.stdout, posted.stderr
        assert len(set(ports)) == len(ports) == 10, (
            "Kafka's two, PostgreSQL's, the worker's and the mail server's, twice"
        )
        assert "of-two" not in orders(tmp_path / "one", "get", "of-two", "--timeout", "0").stdout
    assert (one.process.returncode, two.process.returncode) == (0, 0)


@pytest.mark.parametrize("last", [b"", b"Ready after"], ids=["head -1", "when it is ready"])
def test_everything_stops_when_the_reader_of_the_output_is_gone(tmp_path, last):
    command = [
        sys.executable,
        "-m",
        "ecosystem.cli",
        "up",
        "--no-sample",
        "--port",
        str(random.choice(HTTP_PORTS)),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env={**environment(tmp_path), "PYTHONUNBUFFERED": "1"}, **pipes) as process:
        while last not in process.stdout.readline():
            assert process.poll() is None
        children = psutil.Process(process.pid).children(recursive=True)
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == b""
        assert not alive(children)
    assert not (tmp_path / "running.json").exists()
