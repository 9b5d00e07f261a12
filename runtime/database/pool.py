"""A service's own PostgreSQL database: a bounded pool, migrated before its first use, awaited while unavailable."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from runtime.common.backoff import Backoff, retry
from runtime.common.clock import elapsed_s
from runtime.common.settings import Settings
from runtime.database.creation import create_database
from runtime.errors import DatabaseNotConfigured, DatabaseUnavailable
from runtime.metrics.database import METRICS, PoolStatus

log = logging.getLogger(__name__)

_OPEN = "open"

_MIGRATION_LOCK = 0x6D696772
"""Key of the advisory lock for migrations; any number that nothing else in the database uses."""

_ALEMBIC = asyncio.Lock()
"""Alembic keeps its context in a module global: services that share a worker migrate one after the other."""

# SQLSTATE classes (PostgreSQL documentation, appendix A) of errors that do not depend on the statement: connection,
# transaction rollback (deadlock), resources, operator intervention (shutdown), system error. 25006 is a read-only
# server, after a failover.
_TRANSIENT = ("08", "40", "53", "57", "58", "25006")


class Database:
    """A bounded pool of connections to the database of one service.

    Arguments:
        service: name of the service.
        url: `postgresql://user:password@host:port/database`, with libpq's parameters (`sslmode` and others).
        migrations: Alembic's folder as `package:folder`, with `versions` that lead to `MODELS` in `package.models`.
        settings: number of connections, and time limit of a transaction.
        schema: in which the tables are, if not in the first one of the role's search path.
    """

    FIRST_PAUSE_S = 0.25
    """Seconds before the first retry of the connection."""
    LONGEST_PAUSE_S = 5.0
    """Seconds between two retries at most."""
    _POLL_S = 0.02

    def __init__(
        self, service: str, url: SecretStr | None, migrations: str, settings: Settings, *, schema: str | None = None
    ) -> None:
        self.service = service
        self.timeout_s = settings.database_timeout_s
        self.unavailable: str | None = "not reached yet"
        """Why the database cannot be used yet; `None` once it is connected and migrated."""
        self.failure: str | None = None
        """Why the last transaction failed, if the database was the reason."""
        self._url = url
        # Only a database that we have named ourselves is created.
        self._create = url is not None and url == settings.database_url(service.replace("-", "_"))
        self._migrations = migrations
        self._pool = settings.database_pool
        self._schema = schema
        self._engine: AsyncEngine | None = None
        self._waiting = 0
        """Transactions that wait for a connection."""

    def pool_status(self) -> PoolStatus | None:
        """The status of the pool; `None` unless it is open. For metrics."""
        if self._engine is None:
            return None
        pool = self._engine.pool
        assert isinstance(pool, AsyncAdaptedQueuePool)
        in_use, idle, available = pool.checkedout(), pool.checkedin(), self.status == _OPEN
        return PoolStatus(self.service, available, max(in_use, 0), max(idle, 0), self._pool, self._waiting)

    @property
    def status(self) -> str:
        """`open`, or why the database cannot be used. For `/readyz`."""
        return self.unavailable or self.failure or _OPEN

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connects and migrates in the background; closes the pool at the end of the block.

        An unavailable database does not stop the worker from starting: until it answers, transactions raise
        `DatabaseUnavailable`, and the worker's other services run. Raises `DatabaseNotConfigured` if no URL is set.
        """
        self._configured()
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self.connect,
            pool_size=self._pool,
            max_overflow=0,
            pool_timeout=self.timeout_s,
            pool_pre_ping=True,  # otherwise the first request after a restart of the server would fail
        )
        METRICS.add(self, self.service)
        connecting = asyncio.create_task(self._connect_and_migrate(), name=f"database {self.service}")
        try:
            yield
        finally:
            connecting.cancel()
            METRICS.remove(self)
            await self._engine.dispose()

    async def ready(self, timeout_s: float) -> None:
        """Returns once the database is connected and migrated. Raises `DatabaseUnavailable` after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.unavailable is not None:  # noqa: ASYNC110 - bounded, for commands
                    await asyncio.sleep(self._POLL_S)
        except TimeoutError:
            raise DatabaseUnavailable(f"database of {self.service}: {self.unavailable}") from None

    @asynccontextmanager
    async def transaction(self, timeout_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block and rolled back if it raises, within `timeout_s` seconds.

        The connection has to answer within the time limit of the database, however long the transaction may take.
        Raises `DatabaseUnavailable` if the database cannot be reached, does not answer in time, or rolls back for a
        reason other than the statement. If that happens during the commit, the transaction may be committed.
        """
        if self.unavailable is not None or self._engine is None:
            METRICS.failed(self.service)
            raise DatabaseUnavailable(f"database of {self.service}: {self.unavailable}")
        task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()
        started, connected = elapsed_s(), False
        self._waiting += 1
        try:
            async with asyncio.timeout(self.timeout_s) as limit, self._engine.begin() as connection:
                connected = True
                self._waiting -= 1
                limit.reschedule(asyncio.get_running_loop().time() + (timeout_s or self.timeout_s))
                yield connection
        except (
            DBAPIError,
            PoolTimeout,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            OSError,
            TimeoutError,
        ) as error:
            if task.cancelling() > cancels:  # cancelled, and the rollback failed: the cancellation has precedence
                raise asyncio.CancelledError from error
            if not _is_transient(error):
                raise
            self.failure = repr(error)
            METRICS.failed(self.service)
            raise DatabaseUnavailable(f"database of {self.service}: {error!r}") from error
        finally:
            self._waiting -= not connected
            METRICS.took(self.service, elapsed_s() - started)
        self.failure = None

    async def connect(self) -> Any:
        """Opens an asyncpg connection outside of the pool, to a database that exists from now on.

        Raises `DatabaseNotConfigured`.
        """
        try:
            return await self.connect_existing()
        except asyncpg.InvalidCatalogNameError:
            if not self._create:
                raise
            await create_database(self._configured(), self.timeout_s)
            return await self.connect_existing()

    async def connect_existing(self) -> Any:
        """Opens an asyncpg connection outside of the pool, and creates nothing. Raises `DatabaseNotConfigured`."""
        return await asyncpg.connect(
            self._configured().get_secret_value(),
            timeout=self.timeout_s,
            server_settings={
                "application_name": f"faust-orders {self.service}",
                **({} if self._schema is None else {"search_path": self._schema}),
            },
        )

    def _configured(self) -> SecretStr:
        if self._url is None:
            raise DatabaseNotConfigured(
                f"{self.service} needs a database: set {self.service.upper().replace('-', '_')}_DATABASE_URL or DB_HOST"
            )
        return self._url

    async def _connect_and_migrate(self) -> None:
        def report(error: Exception) -> None:
            self.unavailable = repr(error)
            log.warning("database unavailable service=%s error=%s", self.service, self.unavailable)

        # Any error is retried: the worker's other services run.
        await retry(self._migrate, Backoff(self.FIRST_PAUSE_S, self.LONGEST_PAUSE_S), report=report)
        self.unavailable = None
        log.info("database ready service=%s", self.service)

    async def _migrate(self) -> None:
        """Migrates in one transaction, one worker at a time; the next worker finds nothing to do."""
        assert self._engine is not None
        async with self._engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            async with _ALEMBIC:
                await connection.run_sync(self._upgrade)

    def _upgrade(self, connection: Connection) -> None:
        command.upgrade(alembic_config(self._migrations, connection), "head")

    def revisions(self) -> list[str]:
        """The revisions that this version of the service knows, newest first."""
        script = ScriptDirectory.from_config(_alembic_options(self._migrations))
        return [step.revision for step in script.walk_revisions()]


def alembic_config(migrations: str, connection: Connection) -> Config:
    """Alembic's configuration for the migrations of a service, on a given connection."""
    config = _alembic_options(migrations)
    config.attributes["connection"] = connection
    config.attributes["models"] = import_module(f"{migrations.partition(':')[0]}.models").MODELS
    return config


def _alembic_options(migrations: str) -> Config:
    config = Config()
    config.set_main_option("script_location", "runtime.database:migrations")
    config.set_main_option("version_locations", f"{migrations}/versions")
    config.set_main_option("path_separator", "newline")
    return config


def _is_transient(error: Exception) -> bool:
    """Whether the same transaction may succeed later."""
    if not isinstance(error, DBAPIError):
        return True  # the error precedes any statement
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state is None or state.startswith(_TRANSIENT)
