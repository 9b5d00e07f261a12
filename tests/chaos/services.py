"""All services, their databases and the mail server are killed under load. An audit follows each round."""

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

from checkin_service.settings import CheckinSettings
from ecosystem import audit as auditing
from ecosystem.audit import ViolationKind
from ecosystem.audit.history import HistoryAudit
from ecosystem.services import NAMES
from products_service.settings import ProductsSettings
from runtime.common.settings import Guarantee, Settings
from schemas.messages import OrderState
from schemas.topics import ORDERS
from tests.chaos.books import STUCK_S, Violations
from tests.chaos.campaign import Layout, Report
from tests.chaos.errands import Errands
from tests.chaos.faults import Fault, Faults
from tests.chaos.fleet import Fleet
from tests.chaos.surroundings import Surroundings
from tests.workers import Deployment

OF_PRODUCTS = tuple(name for name in NAMES if name.startswith("product"))
"""The product service and its subscribers."""
LAYOUTS = (
    Layout("services-composed", (NAMES,) * 2, 15),
    Layout(
        "products-apart",
        (tuple(name for name in NAMES if name not in OF_PRODUCTS), *((name,) for name in OF_PRODUCTS)),
        10,
    ),
    Layout("services-apart", tuple((name,) for name in NAMES), 8),
    Layout("services-at-least-once", (NAMES,) * 2, 15, Guarantee.AT_LEAST_ONCE),
)
_LOSSES = frozenset(
    {
        ViolationKind.STUCK,
        ViolationKind.NEVER_POSTED,
        ViolationKind.UNREADABLE_ROW,
        ViolationKind.NOT_FULFILLED,
        ViolationKind.NOT_SHIPPED,
        ViolationKind.SHIPPED_WITHOUT,
        ViolationKind.NOT_REJECTED,
        ViolationKind.CHECKIN_LOST,
        ViolationKind.CHECKIN_UNKNOWN,
        ViolationKind.CHECKIN_STATUS,
        ViolationKind.CHECKIN_DIFFERS,
        ViolationKind.NOT_ENRICHED,
        ViolationKind.EMAIL_MISSING,
        ViolationKind.EMAIL_LOST,
        ViolationKind.VERSIONS_DIFFER,
        ViolationKind.CHANGE_DIFFERS,
        ViolationKind.CHANGE_LOST,
        ViolationKind.CHANGE_UNKNOWN,
        ViolationKind.LOG_DIFFERS,
        ViolationKind.SUBSCRIBER_DIFFERS,
        ViolationKind.ALERT_DIFFERS,
        ViolationKind.NOTICE_MISSING,
        ViolationKind.NOTICE_LOST,
        ViolationKind.NOTICE_WRONG,
    }
)
"""What must not be at least once either: what a crash interrupted is decided again, and may weigh twice."""
_ORDERS_AT_LEAST = 30
"""Requests that must be acknowledged before the first fault of a round, and again after the last one."""
_SHOWN = (
    "SHIPPED",
    "check-ins stored",
    "check-ins rejected",
    "check-ins published again",
    "emails",
    "emails delivered",
    "changes",
    "changes logged",
    "alerts",
    "notices",
    "notices delivered",
)
_SETTINGS = {
    "checkin_patience_s": 3,
    "email_window_s": 3600,  # whatever was killed, no letter is late for it
    "product_notifications_to": "shop@example.org",
}


def every_service_in_turn(rng: random.Random, workers: int) -> list[Fault]:
    """Kills each worker, the databases and the mail server with SIGKILL, in random order, sometimes two at a time."""
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
    """Runs rounds until `enough(rounds)` is true or a promise is broken. The logs of the workers are in `folder`."""
    report, prefix = Report(layout.name), f"chaos-{secrets.token_hex(4)}-"
    settings = {**_SETTINGS, "processing_guarantee": layout.guarantee.value, **settings}
    async with (
        Surroundings(folder / "around") as around,
        Deployment(servers, prefix, folder) as deployment,
        Fleet(deployment, *layout.compositions, **{**around.settings, **settings}) as fleet,
    ):
        errands, faults = Errands(fleet, random.Random(rng.random()), layout.rate), Faults(fleet, None, say, around)
        await errands.stock()
        await errands.customers()
        judged = _Judge(deployment, around, errands, layout.guarantee)
        while not enough(report.rounds) and not report.violations:
            report.rounds += 1
            try:
                async with errands.running():
                    await errands.more(_ORDERS_AT_LEAST)
                    await faults.happen(every_service_in_turn(rng, len(fleet.processes)))
                    await errands.more(_ORDERS_AT_LEAST)
                await fleet.ready()
            finally:
                report.violations = await judged.violations()
            report.violations.wrong += fleet.crashes + errands.wrong
            say(f"round {report.rounds} of {layout.name}: {judged.summary()}")
    report.sent, report.acknowledged = errands.sent, len(errands.acknowledged)
    report.faults, report.refused, report.answers = faults.done, errands.refused, errands.answers
    report.exits, report.around, report.changes = fleet.exits, judged.summary(), sum(errands.versions.values())
    return report


class _Judge:
    """Audits all topics, and checks that all acknowledged requests are in them."""

    def __init__(self, deployment: Deployment, around: Surroundings, errands: Errands, guarantee: Guarantee) -> None:
        self._guarantee = guarantee
        self._deployment = deployment
        self._around = around
        self._errands = errands
        self._report = auditing.Report()

    async def violations(self) -> Violations:
        """Violations once nothing is open, or something is open for too long."""
        since, settings = monotonic(), self._settings()
        while True:
            self._report = await auditing.audit(
                settings, guarantee=self._guarantee, grace=timedelta(0), mail=self._around.mail
            )
            if not self._found() and not self._report.open:
                break
            if monotonic() - since > STUCK_S:
                break
            await asyncio.sleep(1)
        found = Violations(wrong=self._found())
        if self._report.open:
            found.stuck.append(f"{self._report.open} still open: {+self._report.counts}")
        states: dict[str, list[OrderState]] = {}
        for order in await self._deployment.values(ORDERS):
            states.setdefault(order.id, []).append(order.state)
        found.lost += self._errands.acknowledged.keys() - states.keys()
        if self._guarantee is Guarantee.EXACTLY_ONCE:
            found.wrong += self._errands.wrong_cancels(states)
        check_ins = await _rows(
            settings.of(CheckinSettings).checkin_database_url, "SELECT event_id::text, status FROM check_ins"
        )
        found.lost += [f"check-in {id_}" for id_ in self._errands.checked_in.keys() - check_ins.keys()]
        versions = await _rows(
            settings.of(ProductsSettings).products_database_url, "SELECT code, version FROM products"
        )
        for code, version in self._errands.versions.items():
            kept = versions.get(code, 0)
            if kept != version:
                (found.lost if kept < version else found.doubled).append(f"product {code}: {kept} of {version} changes")
        found.wrong += await self._history()
        return found

    async def _history(self) -> list[str]:
        """How the history differs from the topics, once it has read them."""
        since = monotonic()
        while True:
            report = await HistoryAudit(self._settings(), limit=5).compare()
            if not report.ok or not report.waiting:
                return [f"history: {f.difference} {f.topic} {f.partition}@{f.offset}" for f in report.findings]
            if monotonic() - since > STUCK_S:
                return [f"history: {report.waiting} records still wait"]
            await asyncio.sleep(1)

    def _found(self) -> list[str]:
        all_ = self._guarantee is Guarantee.EXACTLY_ONCE
        wrong = [v for v in self._report.violations if all_ or v.kind in _LOSSES]
        return [f"audit: {v.kind} {v.subject_type} {v.subject}: {v.text}" for v in wrong]

    def summary(self) -> str:
        """Counts of the audit."""
        counts = self._report.counts
        shown = [f"{counts[name]} {name}" for name in _SHOWN]
        return ", ".join([f"{counts['orders']} orders", f"{counts[OrderState.VALIDATED]} VALIDATED", *shown])

    def _settings(self) -> Settings:
        secret = {name: SecretStr(url) for name, url in self._around.settings.items() if name.endswith("_url")}
        return self._deployment.settings(**_SETTINGS).model_copy(update=secret)


async def _rows(url: SecretStr | None, query: str) -> dict[str, Any]:
    assert url is not None
    connection = await asyncpg.connect(url.get_secret_value())
    try:
        return dict(await connection.fetch(query))
    finally:
        await connection.close()
