"""Which workers `orders up` starts: their names, their services and their ports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ecosystem.services import CORE


@dataclass(frozen=True, slots=True)
class Planned:
    """A worker to be started. Its state is kept under its name."""

    name: str
    services: tuple[str, ...]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def plan(
    apart: bool, workers: int, ports: Callable[[int], Sequence[int]], services: Sequence[str] = CORE
) -> list[Planned]:
    """`workers` of each composition, on the ports that `ports` gives when it is told how many."""
    compositions = [(name,) for name in services] if apart else [tuple(services)]
    free = iter(ports(len(compositions) * workers))
    return [
        Planned(f"{services[0] if apart else 'worker'}-{number}", services, next(free))
        for services in compositions
        for number in range(1, workers + 1)
    ]
