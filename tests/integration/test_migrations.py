"""Migrations of a database that an earlier version has filled: up, down and up again, without loss of rows."""

from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from runtime.database.pool import alembic_config
from tests.integration.test_database import MIGRATIONS

FILLED = Path(__file__).parent.parent / "databases"
"""Rows of earlier versions, in files SERVICE_REVISION.sql. What a version has written never changes."""
_TABLES = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version' ORDER BY 1
"""


def revisions(service):
    """The revisions of a service, oldest first."""
    scripts = ScriptDirectory.from_config(alembic_config(MIGRATIONS[service], None))
    return [script.revision for script in scripts.walk_revisions()][::-1]


EARLIER = [(service, revision) for service in MIGRATIONS for revision in revisions(service)[:-1]]
"""All revisions that databases are upgraded from."""


async def migrated(url, service, revision, step=command.upgrade):
    """Brings a database up to a revision, or down to it with `command.downgrade`."""
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(lambda c: step(alembic_config(MIGRATIONS[service], c), revision))


async def filled(url, service, revision):
    """Fills a database as the version of a revision did."""
    await migrated(url, service, revision)
    path = FILLED / f"{service}_{revision}.sql"
    assert path.exists(), f"databases of {service} at revision {revision} are upgraded: add {path.name} with their rows"
    connection = await asyncpg.connect(url)
    await connection.execute(path.read_text())
    await connection.close()


async def rows(url):
    """All rows of all tables, as text."""
    connection = await asyncpg.connect(url)
    tables = [row["relname"] for row in await connection.fetch(_TABLES)]
    found = {table: await connection.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables}
    await connection.close()
    return {table: [row[0] for row in of_table] for table, of_table in found.items()}


@pytest.mark.parametrize(("service", "revision"), EARLIER)
async def test_a_filled_database_is_upgraded_reverted_and_upgraded_again(database_url, service, revision):
    await filled(database_url, service, revision)
    before = await rows(database_url)
    assert all(before.values()), f"a table without rows shows nothing: {before}"

    await migrated(database_url, service, "head")
    after = await rows(database_url)
    assert {table: len(found) for table, found in after.items() if table in before} == {
        table: len(found) for table, found in before.items()
    }
    await migrated(database_url, service, revision, command.downgrade)
    assert await rows(database_url) == before
    await migrated(database_url, service, "head")
    assert await rows(database_url) == after
