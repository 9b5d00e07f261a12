"""The services around the core: each of them, their databases and the mail server killed under load, then the audit."""

import asyncio
import random
import secrets
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
from pydantic import SecretStr

from ecosystem import audit as auditing
from ecosystem.services import NAMES
from runtime.settings import Settings
from schemas.messages import OrderState
from schemas.topics import ORDERS
from tests.chaos.books import STUCK_S, Violations
from tests.chaos.campaign import Layout, Report
from tests.chaos.errands import Errands
from tests.chaos.faults import Fault, Faults
from tests.chaos.fleet import Fleet
from tests.chaos.surroundings import Surroundings
from tests.workers import Deployment

LAYOUTS = (
    Layout("services-composed", (NAMES,) * 2, 15),
    Layout("services-apart", tuple((name,) for name in NAMES), 8),
)
_SHOWN = (
    "SHIPPED",
    "check-ins kept",
    "check-ins rejected",
    "check-ins announced again",
    "letters",
    "letters delivered",
)
_SETTINGS = {
    "checkin_patience_s": 3,
    "email_window_s": 3600,  # whatever was killed, no letter is late for it
}


def every_service_in_turn(rng: random.Random, workers: int) -> list[Fault]:
    """kill -9 of each worker, of the databases and of the mail server, in any order, now and then two at a time."""
    faults = [Fault("kill", victim, 0, rng.uniform(0, 2)) for victim in range(workers)]
    faults += [Fault("databases", 0, 0, rng.uniform(0, 5)), Fault("mail", 0, 0, rng.uniform(2, 8))]
    rng.shuffle(faults)
    return [
        Fault(f.kind, f.victim, rng.uniform(0, 0.7) if rng.random() < 0.3 else rng.uniform(2, 5), f.seconds)
        for f in faults
    ]


async def campaign(
    servers: str,
    folder: Path,
    layout: Layout,
    rng: random.Random,
    *,
    enough: Callable[[int], bool],
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Report:
    """Runs rounds until it is `enough` of so many, or a promise is broken. The logs of the workers are in `folder`."""
    report, prefix = Report(layout.name), f"chaos-{secrets.token_hex(4)}-"
    async with (
        Surroundings(folder / "around") as around,
        Deployment(servers, prefix, folder) as deployment,
        Fleet(deployment, *layout.compositions, **{**_SETTINGS, **around.settings, **settings}) as fleet,
    ):
        errands, faults = Errands(fleet, random.Random(rng.random()), layout.rate), Faults(fleet, None, say, around)
        await errands.stock()
        await errands.customers()
        judged = _Judge(deployment, around, errands)
        while not enough(report.rounds) and not report.violations:
            report.rounds += 1
            async with errands.running():
                await faults.happen(every_service_in_turn(rng, len(fleet.processes)))
            try:
                await fleet.ready()
            finally:
                report.violations = await judged.violations()
            report.violations.wrong += fleet.crashes + errands.wrong
            say(f"round {report.rounds} of {layout.name}: {judged.summary()}")
    report.sent, report.acknowledged = errands.sent, len(errands.acknowledged)
    report.faults, report.refused, report.answers = faults.done, errands.refused, errands.answers
    report.exits, report.around = fleet.exits, judged.summary()
    return report


class _Judge:
    """The audit, of all there is; and whether what clients were told was taken is among it."""

    def __init__(self, deployment: Deployment, around: Surroundings, errands: Errands) -> None:
        self._deployment = deployment
        self._around = around
        self._errands = errands
        self._report = auditing.Report()

    async def violations(self) -> Violations:
        """What does not hold once nothing is open any more, or has been for too long."""
        since, settings = monotonic(), self._settings()
        while True:
            self._report = await auditing.audit(settings, grace=timedelta(0), mail=self._around.mail)
            if self._report.ok and not self._report.open:
                break
            if monotonic() - since > STUCK_S:
                break
            await asyncio.sleep(1)
        found = Violations(wrong=[f"audit: {v.kind} {v.of} {v.subject}: {v.says}" for v in self._report.violations])
        if self._report.open:
            found.stuck.append(f"{self._report.open} still open: {+self._report.counts}")
        orders = {order.id for order in await self._deployment.values(ORDERS)}
        found.lost += self._errands.acknowledged.keys() - orders
        check_ins = await _rows(settings.checkin_database_url, "SELECT event_id::text, status FROM check_ins")
        found.lost += [f"check-in {id_}" for id_ in self._errands.checked_in.keys() - check_ins.keys()]
        versions = await _rows(settings.products_database_url, "SELECT code, version FROM products")
        for code, version in self._errands.versions.items():
            kept = versions.get(code, 0)
            if kept != version:
                (found.lost if kept < version else found.doubled).append(f"product {code}: {kept} of {version} changes")
        return found

    def summary(self) -> str:
        """What there was to look at."""
        counts = self._report.counts
        shown = [f"{counts[name]} {name}" for name in _SHOWN]
        return ", ".join([f"{counts['orders']} orders", f"{counts[OrderState.VALIDATED]} VALIDATED", *shown])

    def _settings(self) -> Settings:
        secret = {name: SecretStr(url) for name, url in self._around.settings.items() if name.endswith("_url")}
        return self._deployment.settings().model_copy(update={**_SETTINGS, **secret})


async def _rows(url: SecretStr | None, query: str) -> dict[str, Any]:
    assert url is not None
    connection = await asyncpg.connect(url.get_secret_value())
    try:
        return dict(await connection.fetch(query))
    finally:
        await connection.close()
