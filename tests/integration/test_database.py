"""A service's database: migrated once, in step with its models, and waited for while it is away."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest
from alembic import command
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from ecosystem.embedded.postgres import Postgres
from runtime.common.settings import Settings
from runtime.database.pool import Database, alembic_config
from runtime.errors import DatabaseNotConfigured, DatabaseUnavailable
from tests.workers import PATIENCE_S, until

MIGRATIONS = {
    "checkin": "checkin_service:migrations",
    "products": "products_service:migrations",
    "product-log": "product_subscribers.transaction_log:migrations",
    "history": "history_service:migrations",
}


def database(url, service="checkin", **settings):
    settings = {"database_timeout_s": 30, **settings}
    return Database(service, SecretStr(url), MIGRATIONS[service], Settings(**settings))


@pytest.fixture
def open_database():
    stack = AsyncExitStack()

    async def opened(url, *, reached=True, **settings):
        made = database(url, **settings)
        await stack.enter_async_context(made.open())
        if reached:
            await until(lambda: made.unavailable is None, "reached")
        return made

    opened.stack = stack  # type: ignore[attr-defined]
    return opened


@pytest.fixture(autouse=True)
async def _closed(open_database):
    yield
    await open_database.stack.aclose()


async def scalar(opened, statement):
    async with opened.transaction() as connection:
        return await connection.scalar(text(statement))


@pytest.mark.parametrize("service", MIGRATIONS)
async def test_models_and_migrations_agree(database_url, open_database, service):
    opened = await open_database(database_url, service=service)
    async with opened.transaction() as connection:
        await connection.run_sync(lambda c: command.check(alembic_config(MIGRATIONS[service], c)))


@pytest.mark.parametrize("service", MIGRATIONS)
async def test_migrations_can_be_reverted(database_url, open_database, service):
    opened = await open_database(database_url, service=service)
    async with opened.transaction() as connection:
        await connection.run_sync(lambda c: command.downgrade(alembic_config(MIGRATIONS[service], c), "base"))
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    assert await scalar(opened, tables) == 1, "Alembic's own"


async def test_workers_started_at_once_migrate_once(database_url, open_database):
    opened = await asyncio.gather(*(open_database(database_url) for _ in range(8)))
    assert await scalar(opened[0], "SELECT count(*) FROM alembic_version") == 1
    assert await scalar(opened[7], "SELECT count(*) FROM check_ins") == 0


async def test_services_in_one_worker_each_migrate_their_own_schema(postgres, open_database):
    own = {"checkin": "check_ins", "products": "products"}
    urls = {name: postgres.database(name) for name in (f"t_{s}_{n}" for s in own for n in range(3))}
    try:
        opened = await asyncio.gather(*(open_database(url, service=name.split("_")[1]) for name, url in urls.items()))
        for database_, name in zip(opened, urls, strict=True):
            for table in (own[name.split("_")[1]], "outbox"):
                assert await scalar(database_, f"SELECT count(*) FROM {table}") == 0, name
    finally:
        await open_database.stack.aclose()
        for name in urls:
            postgres.drop(name)


async def test_an_unavailable_database_is_retried_and_raises_unavailable(tmp_path, open_database, monkeypatch):
    monkeypatch.setattr(Database, "LONGEST_PAUSE_S", 0.25)
    with Postgres(tmp_path / "home") as server:
        url = server.database("checkin")
        server.kill()
        opened = await open_database(url, reached=False)
        with pytest.raises(DatabaseUnavailable):
            await scalar(opened, "SELECT 1")

        server.restart()
        await until(lambda: opened.unavailable is None, "reached")
        assert await scalar(opened, "SELECT 1") == 1
        assert opened.status == "open"

        server.kill()
        with pytest.raises(DatabaseUnavailable):
            await scalar(opened, "SELECT 1")
        assert opened.status not in {"open", None}
        server.restart()
        assert await scalar(opened, "SELECT 1") == 1, "at the first attempt"
        assert opened.status == "open"


async def test_a_frozen_database_times_out(tmp_path, open_database):
    with Postgres(tmp_path / "home") as server:
        opened = await open_database(server.database("checkin"), database_timeout_s=3)
        async with opened.transaction(PATIENCE_S) as connection:
            backend = await connection.scalar(text("SELECT pg_backend_pid()"))
        for pid in (server.pid, backend):
            os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(DatabaseUnavailable):
                    await scalar(opened, "SELECT 1")
        finally:
            for pid in (backend, server.pid):
                os.kill(pid, signal.SIGCONT)
        assert await until(lambda: _answered(opened), "answers again") == 1


async def _answered(opened):
    try:
        return await scalar(opened, "SELECT 1")
    except DatabaseUnavailable:
        return None


async def test_connections_do_not_exceed_the_limit(database_url, open_database):
    opened = await open_database(database_url, database_pool=2, database_timeout_s=3)
    async with opened.transaction(PATIENCE_S), opened.transaction(PATIENCE_S):
        with pytest.raises(DatabaseUnavailable):
            await scalar(opened, "SELECT 1")
    assert await scalar(opened, "SELECT 1") == 1


async def test_a_cancellation_during_a_broken_connection_is_not_swallowed(database_url, open_database):
    """The rollback fails then; taken for an absence, it would keep a loop alive that is to end."""
    opened = await open_database(database_url)
    begun = asyncio.Event()

    async def work():
        async with opened.transaction() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            assert await scalar(opened, f"SELECT pg_terminate_backend({pid}, 20000)"), "not ended in time"
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_sql_error_is_not_reported_as_unavailable(database_url, open_database):
    opened = await open_database(database_url)
    with pytest.raises(ProgrammingError):
        await scalar(opened, "SELECT nonsense")
    with pytest.raises(IntegrityError):
        await scalar(opened, "INSERT INTO check_ins (event_id) VALUES (gen_random_uuid())")


@pytest.mark.parametrize("url", ["mysql://somewhere/shop", "postgresql://127.0.0.1:port/shop", "nonsense"])
async def test_an_invalid_url_is_reported_and_ends_nothing(open_database, url):
    opened = await open_database(url, reached=False)
    await until(lambda: opened.unavailable != "not reached yet", "told")
    with pytest.raises(DatabaseUnavailable):
        await scalar(opened, "SELECT 1")


async def test_a_missing_url_is_named():
    with pytest.raises(DatabaseNotConfigured, match="CHECKIN_DATABASE_URL"):
        async with Database("checkin", None, MIGRATIONS["checkin"], Settings()).open():
            pass


async def test_metrics_show_the_pool_and_transactions_that_wait_for_it(database_url, open_database):
    opened = await open_database(database_url, database_pool=1)
    await until(lambda: opened.pool_status().idle == 1, "migrated")
    assert opened.pool_status() == ("checkin", True, 0, 1, 1, 0)
    async with opened.transaction():
        assert opened.pool_status() == ("checkin", True, 1, 0, 1, 0)
        second = asyncio.create_task(scalar(opened, "SELECT 1"))
        await until(lambda: opened.pool_status().waiting == 1, "the second waits")
    assert await second == 1
    assert opened.pool_status() == ("checkin", True, 0, 1, 1, 0)
    labels = {"service": "checkin", "state": "idle"}
    assert REGISTRY.get_sample_value("faust_orders_database_connections", labels) >= 1


async def test_metrics_show_an_unavailable_database(tmp_path, open_database):
    failures = REGISTRY.get_sample_value("faust_orders_database_failures_total", {"service": "checkin"}) or 0
    with Postgres(tmp_path / "postgres") as server:
        opened = await open_database(server.database("checkin"), database_timeout_s=3)
        assert opened.pool_status().available
    with pytest.raises(DatabaseUnavailable):
        await scalar(opened, "SELECT 1")
    assert not opened.pool_status().available
    assert REGISTRY.get_sample_value("faust_orders_database_failures_total", {"service": "checkin"}) == failures + 1
    assert opened.pool_status().waiting == 0
