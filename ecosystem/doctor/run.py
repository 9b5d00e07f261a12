"""Runs the checks of `orders doctor`, each within a time limit. They read only."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from ecosystem.doctor.brokers import check_broker, check_broker_settings, check_transactions
from ecosystem.doctor.configuration import check_settings, check_webhooks
from ecosystem.doctor.databases import check_databases
from ecosystem.doctor.finding import Finding, Level, warning
from ecosystem.doctor.records import check_records
from ecosystem.doctor.surroundings import check_mail, check_state, check_workers
from ecosystem.doctor.topics import check_topic_settings, check_topics
from runtime.common.settings import Settings

Check = Callable[[Settings], Awaitable[list[Finding]]]

_SETTINGS = "settings"
_BROKER = "broker"
CHECKS: Mapping[str, Check] = {
    _SETTINGS: check_settings,
    _BROKER: check_broker,
    "broker settings": check_broker_settings,
    "transactions": check_transactions,
    "topics": check_topics,
    "topic settings": check_topic_settings,
    "keys": check_records,
    "workers": check_workers,
    "webhooks": check_webhooks,
    "databases": check_databases,
    "mail": check_mail,
    "state": check_state,
}
"""All checks by name, in their order."""

_NEEDED: Mapping[str, frozenset[str]] = {
    _BROKER: frozenset({"broker settings", "transactions", "topics", "topic settings", "keys", "workers", "webhooks"}),
    _SETTINGS: frozenset({"topics", "topic settings", "keys", "webhooks", "databases"}),
}
"""Checks that say nothing of use while this one has a problem: without brokers, or without services."""


async def diagnose(settings: Settings, timeout_s: float, checks: Mapping[str, Check] = CHECKS) -> list[Finding]:
    """Returns what all checks find, in their order. Skips those that need what another one has found to be missing.

    Arguments:
        settings: of the deployment.
        timeout_s: seconds for each check.
        checks: by name.
    """
    found: list[Finding] = []
    skipped: set[str] = set()
    for name, check in checks.items():
        if name in skipped:
            continue
        findings = await _within(name, check, settings, timeout_s)
        if any(f.level is Level.PROBLEM for f in findings):
            skipped |= _NEEDED.get(name, frozenset())
        found += findings
    return found


async def _within(name: str, check: Check, settings: Settings, timeout_s: float) -> list[Finding]:
    try:
        async with asyncio.timeout(timeout_s):
            return await check(settings)
    except TimeoutError:
        return [
            warning(
                name,
                f"not finished within {timeout_s:g} s",
                "What it looks at is unknown.",
                "give it more time: orders doctor --timeout 60",
            )
        ]
    except Exception as error:  # a check that fails must not hide what the others find
        return [
            warning(
                name,
                f"the check failed: {type(error).__name__}: {error}",
                "What it looks at is unknown.",
                "see that this user may read it; if so, report this as a bug",
            )
        ]
