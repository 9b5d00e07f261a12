"""Ports that were chosen are nobody else's, though nobody listens there yet."""

import random
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from ecosystem.embedded.ports import NoFreePort, free_ports, is_free, is_open, reserved_ports

CLAIMS = """
import sys
from ecosystem.embedded.ports import reserved_ports
sys.stdin.readline()
with reserved_ports(3, int(sys.argv[1])) as ports:
    print(*ports, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def claimant():
    """Starts processes that claim three ports from one on once they are told to, and hold them."""
    with ExitStack() as stack:

        def start(first):
            command = [sys.executable, "-c", CLAIMS, str(first)]
            process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def told(process):
    """What it has claimed, once it has."""
    return [int(port) for port in process.stdout.readline().split()]


def go(*processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def test_who_chooses_at_the_same_moment_chooses_otherwise(claimant):
    [first] = free_ports(1)
    many = [claimant(first) for _ in range(6)]
    go(*many)
    found = [port for process in many for port in told(process)]
    assert len(set(found)) == len(found) == 18
    assert min(found) > first, "which is ours"
    assert not [port for port in found if is_open(port)], "nobody listens there yet"


def test_what_a_claimant_held_is_free_again_however_it_ended(claimant):
    first = random.randrange(12_000, 19_000)  # where no other test chooses
    killed = claimant(first)
    go(killed)
    ports = told(killed)
    with reserved_ports(1, first) as others:
        assert others[0] not in ports
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    with reserved_ports(3, first) as again:
        assert again == ports


def test_where_somebody_listens_is_passed_over():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        with reserved_ports(2, port) as found:
            assert found[0] > port


def test_a_claimed_port_can_be_listened_at_and_has_just_been_closed_by_another():
    with reserved_ports(1) as [port]:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()  # leaves the port in TIME_WAIT
            assert is_free(port)


def test_too_few_are_said_to_be_so():
    with pytest.raises(NoFreePort, match="100 free ports are needed from 65500 on"), reserved_ports(100, 65_500):
        pytest.fail("there are no more than 36")
