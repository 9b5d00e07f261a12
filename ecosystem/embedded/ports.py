"""Reserves free TCP ports on the loopback interface for child processes that have yet to start.

A reservation binds the UDP port of the same number: one process at a time can, and the kernel releases it however its
holder ends (decision 23).
"""

import random
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

_HOST = "127.0.0.1"
# Below the ephemeral ports of Linux and macOS: no outgoing connection gets the port of a broker while it restarts.
_RANGE = range(20_000, 32_000)
_LAST_PORT = 65_535


class NoFreePort(Exception):
    """There are fewer free ports than needed. The text is meant for the user."""


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not matter
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def is_open(port: int) -> bool:
    """Whether a server listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0


@contextmanager
def reserved_ports(count: int, start: int | None = None) -> Iterator[list[int]]:
    """Reserves free ports for as long as the `with` block lasts. Raises `NoFreePort`.

    Arguments:
        count: number of ports.
        start: take the first free ports from this one on; `None`: any free ports, chosen at random.
    """
    candidates: Iterable[int] = random.sample(_RANGE, len(_RANGE)) if start is None else range(start, _LAST_PORT + 1)
    found: list[int] = []
    with ExitStack() as reservations:
        for port in candidates:
            if len(found) == count:
                break
            reservation = reservations.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            if _reserve(reservation, port) and is_free(port):
                found.append(port)
            else:
                reservation.close()
        if len(found) < count:
            raise NoFreePort(f"{count} free ports are needed from {start or _RANGE.start} on; there are {len(found)}.")
        yield found


def _reserve(reservation: socket.socket, port: int) -> bool:
    try:
        reservation.bind((_HOST, port))
    except OSError:
        return False
    return True


_process_reservations = ExitStack()


def free_ports(count: int) -> list[int]:
    """Reserves free ports, chosen at random, for as long as this process lives."""
    return _process_reservations.enter_context(reserved_ports(count))
