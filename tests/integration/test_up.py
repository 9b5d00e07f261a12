"""`orders up` as its user meets it: one command, an order through, Ctrl-C, and nothing is left behind."""

import mailbox
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from ecosystem.ports import free_ports, is_open


def orders(data, *arguments):
    command = [sys.executable, "-m", "ecosystem.cli", *arguments]
    return subprocess.run(command, env=environment(data), capture_output=True, text=True, timeout=60)


def environment(data):
    without = {"KAFKA_BOOTSTRAP_SERVERS", "ORDERS_URL"}
    return {**{k: v for k, v in os.environ.items() if k not in without}, "ORDERS_DATA": str(data)}


@contextmanager
def up(data, *arguments):
    """Runs `orders up`; enters when it says that it is ready."""
    command = [sys.executable, "-m", "ecosystem.cli", "up", "--port", str(free_ports(1)[0]), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env={**environment(data), "PYTHONUNBUFFERED": "1"}, text=True, **pipes) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ready after" in line:
                break
        else:
            pytest.fail("".join(said))
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def letter_about(order_id, folder):
    """The letter, once it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for letter in mailbox.Maildir(folder):
            if letter["X-Order-Id"] == order_id:
                return letter.as_string()
        time.sleep(0.1)
    pytest.fail("no letter")


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def listening(processes):
    return [c.laddr.port for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]


def test_an_order_goes_through_and_a_second_run_finds_it(tmp_path):
    with up(tmp_path) as first:
        children = psutil.Process(first.pid).children(recursive=True)
        ports = listening(children)
        assert len(ports) == 4, "Kafka's two, PostgreSQL's, and the worker's"
        assert listening([psutil.Process(first.pid)]), "the mail server's"
        posted = orders(tmp_path, "post", "--id", "mine", "--product", "mug")
        assert "VALIDATED" in posted.stdout, posted.stderr
        failed = orders(tmp_path, "post", "--id", "other", "--product", "unicorn", "--customer", "15")
        assert "FAILED" in failed.stdout, failed.stderr
        letter = letter_about("other", tmp_path / "mail")
        assert "no stock of 'unicorn'" in letter
        assert "already, as process" in orders(tmp_path, "up").stderr
    assert first.returncode == 0
    assert not alive(children)
    assert not [port for port in ports if is_open(port)]
    with up(tmp_path) as second:
        assert "VALIDATED" in orders(tmp_path, "get", "mine").stdout
        generated = orders(tmp_path, "generate", "--rate", "50", "--count", "50", "--seed", "1")
        assert "50 posted" in generated.stdout
        assert generated.returncode == 0, generated.stderr
    assert second.returncode == 0


def test_when_a_worker_dies_all_is_stopped_and_said(tmp_path):
    with up(tmp_path, "--no-sample") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        worker = next(child for child in children if "run" in child.cmdline())
        worker.kill()
        said, _ = process.communicate(timeout=60)
    assert "worker-1 ended unexpectedly, with code -9" in said
    assert process.returncode == 1
    assert not alive(children)
