"""Faults: a schedule drawn from a seed, and the implementation of each kind. Each fault heals itself."""

import asyncio
import random
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from time import monotonic

from tests.chaos.brokers import Brokers
from tests.chaos.fleet import SESSION_S, STOP_S, Fleet, Process
from tests.chaos.surroundings import Surroundings
from tests.chaos.toxiproxy import Toxiproxy

PROMPT_S = 10.0 + 15.0
"""Seconds within which a worker must stop, whatever the network does, and an allowance for a busy machine."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: starts `after` seconds, lasts `seconds`, and hits the worker number `victim`."""

    kind: str
    victim: int
    after: float
    seconds: float


def _shorter_or_longer_than_a_session(rng: random.Random) -> float:
    return rng.uniform(0.3, 4) if rng.random() < 0.5 else rng.uniform(SESSION_S + 1, SESSION_S + 5)


_SECONDS: dict[str, Callable[[random.Random], float]] = {
    "kill": lambda rng: rng.uniform(0, 2),  # until the worker is restarted
    "terminate": lambda rng: rng.uniform(0, 2),
    "wipe": lambda rng: rng.uniform(0, 2),
    "remove": lambda rng: rng.uniform(3, 10),
    "add": lambda rng: rng.uniform(5, 12),
    "pause": lambda rng: rng.uniform(SESSION_S + 1, SESSION_S + 4),
    "broker": lambda rng: rng.uniform(0, 10),
    "cut": _shorter_or_longer_than_a_session,
    "swallow": _shorter_or_longer_than_a_session,
    "deafen": _shorter_or_longer_than_a_session,
    "split": _shorter_or_longer_than_a_session,
    "slow": lambda rng: rng.uniform(3, 8),
}
SURROUNDINGS = frozenset({"databases", "mail"})
"""Faults of databases and mail servers, which the core does not use."""
PROCESSES = frozenset({"kill", "terminate", "wipe", "remove", "add", "pause"})
NETWORK = frozenset({"cut", "swallow", "deafen", "split", "slow"})
KINDS = frozenset(_SECONDS)


def schedule(rng: random.Random, kinds: Collection[str], victims: int, count: int) -> list[Fault]:
    """Draws faults, each kind equally likely, with pauses of none to some seconds between them."""
    faults = []
    for _ in range(count):
        kind = rng.choice(sorted(kinds))
        after = rng.uniform(0, 0.7) if rng.random() < 0.5 else rng.uniform(2, 6)
        faults.append(Fault(kind, rng.randrange(victims), after, _SECONDS[kind](rng)))
    return faults


class Faults:
    """Executes faults."""

    def __init__(
        self,
        fleet: Fleet,
        brokers: Brokers | None,
        say: Callable[[str], None] = print,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._fleet = fleet
        self._victims = tuple(fleet.processes)  # without temporarily added workers
        self._brokers = brokers
        self._surroundings = surroundings
        self._say = say
        self.done: Counter[str] = Counter()
        self._stops: list[tuple[str, float, float]] = []
        self.stuck: list[str] = []
        self._times: list[tuple[Fault, str, float, float]] = []
        """Faults with victim, start and end."""
        self._do: dict[str, Callable[[Process, Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "terminate": self._terminate,
            "remove": self._terminate,
            "wipe": self._wipe,
            "add": self._add,
            "pause": self._pause,
            "broker": self._broker,
            "cut": self._cut,
            "swallow": self._swallow,
            "deafen": self._deafen,
            "split": self._split,
            "slow": self._slow,
            "databases": self._databases,
            "mail": self._mail,
        }

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds possible here: no broker fault with one broker, no network fault without toxiproxy."""
        if self._brokers is None:
            return PROCESSES
        alone = len(self._brokers.cluster.nodes) == 1
        return KINDS - ({"broker"} if alone else set()) - (set() if self._brokers.toxiproxy else NETWORK)

    async def happen(self, faults: Collection[Fault]) -> None:
        """Returns when all faults are healed."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(fault.after)
                group.create_task(self._happen(fault))
        if self._brokers:
            await self._brokers.heal()

    async def _happen(self, fault: Fault) -> None:
        victim = self._victims[fault.victim % len(self._victims)]
        whose = "" if fault.kind in {"broker", *SURROUNDINGS} else f" {victim.name}"
        self._say(f"{fault.kind}{whose} for {fault.seconds:.1f} s")
        self.done[fault.kind] += 1
        began = monotonic()
        await self._do[fault.kind](victim, fault)
        ended = monotonic()
        if fault.kind in NETWORK:  # before that it waited for the end of the previous fault
            began = ended - fault.seconds
        self._times.append((fault, victim.name, began, ended))

    def slow_stops(self) -> list[tuple[str, bool]]:
        """Workers that did not stop in time, with the faults meanwhile, and whether these excuse it."""
        found = []
        for name, start, end in self._stops:
            meanwhile = [
                (fault.kind, f"{fault.kind} {max(began, start) - start:.0f} s to {min(ended, end) - start:.0f} s")
                for fault, victim, began, ended in self._times
                if ((victim == name and fault.kind in {*NETWORK, "pause"}) or fault.kind == "broker")
                and began < end
                and ended > start
            ]
            text = ", ".join([f"{name} took {end - start:.1f} s to stop", *(text for _, text in meanwhile)])
            found.append((text, "pause" in {kind for kind, _ in meanwhile}))
        return found

    async def _kill(self, victim: Process, fault: Fault) -> None:
        async with victim.turn:
            await victim.end(signal.SIGKILL)
            await asyncio.sleep(fault.seconds)
            victim.start()

    async def _terminate(self, victim: Process, fault: Fault) -> None:
        async with victim.turn:
            await self._stop(victim)
            await asyncio.sleep(fault.seconds)
            victim.start()

    async def _wipe(self, victim: Process, fault: Fault) -> None:
        async with victim.turn:
            await victim.end(signal.SIGKILL)
            shutil.rmtree(victim.state, ignore_errors=True)
            await asyncio.sleep(fault.seconds)
            victim.start()

    async def _add(self, victim: Process, fault: Fault) -> None:
        guest = self._fleet.make(victim.services)
        guest.start()
        self._fleet.processes.append(guest)
        await asyncio.sleep(fault.seconds)
        async with guest.turn:
            await self._stop(guest)
            self._fleet.processes.remove(guest)

    async def _stop(self, victim: Process) -> None:
        try:
            seconds = await victim.end(signal.SIGTERM)
        except TimeoutError:
            self.stuck.append(f"{victim.name} did not stop in {STOP_S:.0f} s of SIGTERM, see {victim.log}")
            await victim.end(signal.SIGKILL)
        else:
            if seconds > PROMPT_S:
                self._stops.append((victim.name, monotonic() - seconds, monotonic()))

    async def _pause(self, victim: Process, fault: Fault) -> None:
        victim.tell(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            victim.tell(signal.SIGCONT)

    async def _broker(self, _: Process, fault: Fault) -> None:
        assert self._brokers is not None
        node = fault.victim % len(self._brokers.cluster.nodes) + 1
        await self._brokers.lose(node, fault.seconds)

    async def _databases(self, _: Process, fault: Fault) -> None:
        assert self._surroundings is not None
        await self._surroundings.lose_databases(fault.seconds)

    async def _mail(self, _: Process, fault: Fault) -> None:
        assert self._surroundings is not None
        await self._surroundings.lose_mail(fault.seconds)

    async def _cut(self, victim: Process, fault: Fault) -> None:
        await self._network(victim, fault, lambda toxiproxy, way: toxiproxy.cut(way))

    async def _swallow(self, victim: Process, fault: Fault) -> None:
        await self._network(victim, fault, lambda toxiproxy, way: toxiproxy.swallow(way, "upstream", "downstream"))

    async def _deafen(self, victim: Process, fault: Fault) -> None:
        await self._network(victim, fault, lambda toxiproxy, way: toxiproxy.swallow(way, "downstream"))

    async def _split(self, victim: Process, fault: Fault) -> None:
        """One broker is unreachable, the others are reachable."""
        number = int(fault.seconds * 10)  # chosen by the seed, like everything of a fault
        await self._network(
            victim, fault, lambda toxiproxy, way: toxiproxy.swallow([way[number % len(way)]], "upstream", "downstream")
        )

    async def _slow(self, victim: Process, fault: Fault) -> None:
        await self._network(victim, fault, lambda toxiproxy, way: toxiproxy.slow(way, latency_ms=300))

    async def _network(
        self, victim: Process, fault: Fault, spoil: Callable[[Toxiproxy, tuple[str, ...]], Awaitable[None]]
    ) -> None:
        assert self._brokers is not None
        assert self._brokers.toxiproxy is not None
        assert victim.lane is not None
        async with victim.lane.turn:
            await spoil(self._brokers.toxiproxy, victim.lane.proxies)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                await self._brokers.toxiproxy.heal(victim.lane.proxies)
