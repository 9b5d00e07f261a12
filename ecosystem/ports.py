"""Free TCP ports on the loopback interface."""

import random
import socket
from collections.abc import Iterator

# Below what Linux and macOS hand out to outgoing connections: nobody takes the port of a broker while it restarts.
_RANGE = range(20_000, 32_000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that has just gone is no bar
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def free_ports(count: int) -> list[int]:
    """Different free ports, chosen at random."""
    candidates = (port for port in random.sample(_RANGE, len(_RANGE)) if is_free(port))
    return _first(candidates, count)


def next_free_ports(count: int, start: int) -> list[int]:
    """The first free ports from `start` on."""
    return _first((port for port in range(start, 65_536) if is_free(port)), count)


def _first(ports: Iterator[int], count: int) -> list[int]:
    return [next(ports) for _ in range(count)]
