"""Free TCP ports on the loopback interface, for processes that listen only a moment later.

Between choosing a port and listening there a child has to start. Until then, and on, the UDP port of the same number is
held by whoever chose: one process at a time can, and the kernel lets go of it however its holder ends (decision 23).
"""

import random
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

_HOST = "127.0.0.1"
# Below what Linux and macOS hand out to outgoing connections: nobody takes the port of a broker while it restarts.
_RANGE = range(20_000, 32_000)
_LAST = 65_535


class NoFreePort(Exception):
    """There are fewer free ports than were asked for. The text is meant for whoever typed the command."""


def is_free(port: int) -> bool:
    """Whether one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that has just gone is no bar
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0


@contextmanager
def claimed(count: int, start: int | None = None) -> Iterator[list[int]]:
    """Different free ports that nobody else who claims some is given, for as long as the `with` block lasts.

    Arguments:
        count: how many.
        start: the first free ones from there on; `None` for any, chosen at random.

    Raises `NoFreePort`.
    """
    candidates: Iterable[int] = random.sample(_RANGE, len(_RANGE)) if start is None else range(start, _LAST + 1)
    found: list[int] = []
    with ExitStack() as held:
        for port in candidates:
            if len(found) == count:
                break
            note = held.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            if _held(note, port) and is_free(port):
                found.append(port)
            else:
                note.close()
        if len(found) < count:
            raise NoFreePort(f"{count} free ports are needed from {start or _RANGE.start} on; there are {len(found)}.")
        yield found


def _held(note: socket.socket, port: int) -> bool:
    try:
        note.bind((_HOST, port))
    except OSError:
        return False
    return True


_kept = ExitStack()


def free_ports(count: int) -> list[int]:
    """Different free ports, chosen at random, claimed for as long as this process lives."""
    return _kept.enter_context(claimed(count))
