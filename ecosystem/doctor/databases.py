"""Checks of the services' databases: reachable, migrated, in time."""

import time
from datetime import datetime

import asyncpg

from ecosystem import services
from ecosystem.doctor.finding import Finding, ok, problem, warning
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.errors import DatabaseNotConfigured

APART_S = 5.0
"""Seconds that the clock of a database server may differ from ours."""


async def check_databases(settings: Settings) -> list[Finding]:
    """Connects to each database that has a URL. Changes nothing, and creates no database."""
    databases = [d.database for d in services.build_all(settings) if d.database is not None]
    found: list[Finding] = []
    unset = []
    for database in databases:
        try:
            found += await _check(database)
        except DatabaseNotConfigured:
            unset.append(database.service)
    if unset:
        found.append(ok("databases", f"not checked, as no URL is set: {', '.join(unset)}"))
    return found


async def _check(database: Database) -> list[Finding]:
    service = database.service
    variable = f"{service.upper().replace('-', '_')}_DATABASE_URL"
    try:
        connection = await database.connect_existing()
    except asyncpg.InvalidCatalogNameError:
        return [
            warning(
                "databases",
                f"{service}: the database does not exist",
                f"The {service} service cannot store anything.",
                f"start a worker, which creates a database of DB_HOST, or create it and check {variable}",
            )
        ]
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return [
            problem(
                "databases",
                f"{service}: {error or type(error).__name__}",
                f"The {service} service answers 503 to what needs its database.",
                f"check {variable} or DB_HOST, and that the server runs",
            )
        ]
    try:
        exists = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
        revision = await connection.fetchval("SELECT version_num FROM alembic_version") if exists else None
        before = time.time()
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        apart_s = now.timestamp() - (before + time.time()) / 2
        version = connection.get_server_version()
    finally:
        await connection.close(timeout=database.timeout_s)
    found = [*judge_revision(service, revision, database.revisions()), *judge_apart(service, apart_s)]
    return found or [ok("databases", f"{service}: PostgreSQL {version.major}.{version.minor}, migrated to {revision}")]


def judge_revision(service: str, revision: str | None, known: list[str]) -> list[Finding]:
    """Judges the revision of a database. `known`: those of this version of the service, newest first."""
    if revision is None:
        return [
            warning(
                "databases",
                f"{service}: not migrated yet",
                "The service has never run on it.",
                f"start a worker with {service}, which migrates",
            )
        ]
    if revision not in known:
        return [
            problem(
                "databases",
                f"{service}: revision {revision} is unknown to this version",
                "A newer version has migrated it: this one cannot start on it.",
                "run the newer version, or restore the database from a backup",
            )
        ]
    if revision != known[0]:
        return [
            warning(
                "databases",
                f"{service}: revision {revision}, this version has {known[0]}",
                "Workers of this version have not run on it yet.",
                f"start a worker with {service}, which migrates",
            )
        ]
    return []


def judge_apart(service: str, apart_s: float) -> list[Finding]:
    """Judges by how many seconds the server's clock is ahead of ours."""
    if abs(apart_s) <= APART_S:
        return []
    return [
        warning(
            "clocks",
            f"the database server of {service} is {abs(apart_s):.0f} s {'ahead' if apart_s > 0 else 'behind'}",
            "Times in the database and in Kafka do not fit together.",
            "run NTP on all hosts: timedatectl set-ntp true",
        )
    ]
