"""Plans the workers of `orders up`: names, services and ports. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannedWorker:
    """A worker to be started. Its state is kept in a folder of its name."""

    name: str
    services: tuple[str, ...]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def plan_workers(
    apart: bool, replicas: int, ports: Callable[[int], Sequence[int]], services: Sequence[str]
) -> list[PlannedWorker]:
    """Plans `replicas` workers of each composition.

    Arguments:
        apart: whether each service is a composition of its own, instead of one of all services.
        replicas: workers of each composition.
        ports: returns as many ports as it is asked for.
        services: services to run.
    """
    compositions = [(name,) for name in services] if apart else [tuple(services)]
    free = iter(ports(len(compositions) * replicas))
    return [
        PlannedWorker(f"{services[0] if apart else 'worker'}-{number}", services, next(free))
        for services in compositions
        for number in range(1, replicas + 1)
    ]
