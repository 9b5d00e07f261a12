"""Clients that read orders continuously and compare the answers with the known outcomes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

# What an order may be found in while its outcome is known to be the second.
_MAY_BE_SEEN_AS = {"VALIDATED": {"CREATED", "VALIDATED"}, "FAILED": {"CREATED", "FAILED"}}


def _decided(outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    """An outcome without its late verdicts, whose count still changes."""
    return {name: value for name, value in outcome.items() if name != "late"}


@dataclass
class Reads:
    """Reads of known orders from one worker.

    Arguments:
        http: the client session.
        url: the URL of the worker.
        outcomes: known outcomes by order id, as `…/validated` returned them.
    """

    http: aiohttp.ClientSession
    url: str
    outcomes: Mapping[str, Mapping[str, Any]]
    timeout_ms: int = 10_000
    seconds: list[float] = field(default_factory=list)
    """Seconds until the right answer, of each read."""
    statuses: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    oldest_s: int = 0
    wrong: list[str] = field(default_factory=list)

    async def run(self, ids: Sequence[str], stop: asyncio.Event, clients: int = 8) -> None:
        """Reads until `stop` is set, and finishes the reads in flight."""
        await asyncio.gather(*(self._client(random.Random(n), ids, stop) for n in range(clients)))

    async def _client(self, rng: random.Random, ids: Sequence[str], stop: asyncio.Event) -> None:
        while not stop.is_set():
            started = time.monotonic()
            id_, then = rng.choice(ids), rng.choice(("", "/validated"))
            while not await self._read(id_, then):
                await asyncio.sleep(0.05)
            self.seconds.append(time.monotonic() - started)
            await asyncio.sleep(0.005)

    async def _read(self, id_: str, then: str) -> bool:
        """Whether the answer was right. After a 503 or a connection error the read is repeated."""
        url = f"{self.url}/v1/orders/{quote(id_, safe='')}{then}?timeout={self.timeout_ms}"
        try:
            async with self.http.get(url, timeout=aiohttp.ClientTimeout(60)) as response:
                body = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.statuses[type(error).__name__] += 1
            return False
        self.statuses[str(response.status)] += 1
        copy = response.headers.get("X-Served-By") == "standby"
        if response.status == 503:
            if "Retry-After" not in response.headers:
                self.wrong.append(f"{id_}{then}: 503 without Retry-After")
            return False
        self.marked += copy
        self.oldest_s = max(self.oldest_s, int(response.headers.get("Age", 0)))
        known = self.outcomes[id_]
        if response.status != 200:
            self.wrong.append(f"{id_}{then}: {response.status} {body}")
        elif then and _decided(body) != _decided(known):
            self.wrong.append(f"{id_}{then}: {body}, known is {known}")
        elif not then and body["state"] not in (_MAY_BE_SEEN_AS[known["state"]] if copy else {known["state"]}):
            self.wrong.append(f"{id_}: {body['state']}, known is {known['state']}, from a copy: {copy}")
        return True
