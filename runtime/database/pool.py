"""The database of a service: PostgreSQL, its own, migrated before it is used, and waited for while it is away."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runtime.common.backoff import Backoff
from runtime.common.settings import Settings
from runtime.errors import DatabaseNotConfigured, DatabaseUnavailable

log = logging.getLogger(__name__)

_MIGRATING = 0x6D696772
"""Advisory lock of whoever migrates; any number that nobody else in the database uses."""

_ALEMBIC = asyncio.Lock()
"""Alembic keeps what it works on in its module: services that share a worker migrate one after the other."""

# Classes of SQLSTATE (PostgreSQL documentation, appendix A) that say nothing against the statement: connection lost,
# transaction rolled back (a deadlock), resources, operator's intervention (a shutdown), system error; and 25006, which
# is a server that may only be read since another has taken its place.
_PASSING = ("08", "40", "53", "57", "58", "25006")


class Database:
    """A bounded pool of connections to the database of one service.

    Arguments:
        service: whose it is.
        url: `postgresql://user:password@host:port/database`, with libpq's parameters (`sslmode` and others).
        migrations: Alembic's folder as `package:folder`.
        settings: how many connections, and how long a request waits for one and its answers.
    """

    FIRST_PAUSE_S = 0.25
    LONGEST_PAUSE_S = 5.0

    def __init__(self, service: str, url: SecretStr | None, migrations: str, settings: Settings) -> None:
        self.service = service
        self.timeout_s = settings.database_timeout_s
        self.away: str | None = "not reached yet"
        """Why it cannot be used, until it was reached and migrated once."""
        self._url = url
        self._migrations = migrations
        self._pool = settings.database_pool
        self._engine: AsyncEngine | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Reaches for it in the background, and migrates it, for as long as the block lasts.

        Raises `DatabaseNotConfigured` if no URL is set. That it is away is no reason not to start: what needs it is
        refused till then, and the other services of the worker go on.
        """
        if self._url is None:
            raise DatabaseNotConfigured(
                f"{self.service} needs a database: set {self.service.upper().replace('-', '_')}_DATABASE_URL"
            )
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self.connect,
            pool_size=self._pool,
            max_overflow=0,
            pool_timeout=self.timeout_s,
            pool_pre_ping=True,  # after a restart of the server the first request would fail
        )
        reaching = asyncio.create_task(self._reach(), name=f"database {self.service}")
        try:
            yield
        finally:
            reaching.cancel()
            await self._engine.dispose()

    @asynccontextmanager
    async def transaction(self, timeout_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back if it raises. Within `timeout_s` seconds.

        Raises `DatabaseUnavailable` if the database cannot be reached, does not answer in time, or gave the
        transaction up without a fault of ours. It was perhaps committed all the same if that happened at its end.
        """
        if self.away is not None or self._engine is None:
            raise DatabaseUnavailable(f"database of {self.service}: {self.away}")
        task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()
        try:
            async with asyncio.timeout(timeout_s or self.timeout_s), self._engine.begin() as connection:
                yield connection
        except (DBAPIError, NoneFree, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            if task.cancelling() > cancels:  # and the rollback failed as well: that must not keep the task alive
                raise asyncio.CancelledError from error
            if not _passing(error):
                raise
            raise DatabaseUnavailable(f"database of {self.service}: {error!r}") from error

    async def connect(self) -> Any:
        """A connection of its own, asyncpg's, outside of the pool."""
        assert self._url is not None
        return await asyncpg.connect(
            self._url.get_secret_value(),
            timeout=self.timeout_s,
            server_settings={"application_name": f"faust-orders {self.service}"},
        )

    async def _reach(self) -> None:
        backoff = Backoff(self.FIRST_PAUSE_S, self.LONGEST_PAUSE_S)
        while True:
            try:
                await self._migrate()
            except Exception as error:  # whatever it is, it is told, and the others go on
                self.away = repr(error)
                log.warning("database not reached service=%s error=%s", self.service, self.away)
                await backoff.pause()
            else:
                self.away = None
                log.info("database reached service=%s", self.service)
                return

    async def _migrate(self) -> None:
        """In one transaction, by one worker at a time: the others find it done."""
        assert self._engine is not None
        async with self._engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
            async with _ALEMBIC:
                await connection.run_sync(self._upgrade)

    def _upgrade(self, connection: Connection) -> None:
        command.upgrade(alembic_config(self._migrations, connection), "head")


def alembic_config(migrations: str, connection: Connection) -> Config:
    """Alembic's configuration for migrations that are given a connection: see `runtime/database/migrations.py`."""
    config = Config()
    config.set_main_option("script_location", migrations)
    config.attributes["connection"] = connection
    return config


def _passing(error: Exception) -> bool:
    """Whether the same transaction may succeed later."""
    if not isinstance(error, DBAPIError):
        return True  # it did not come as far as a statement
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state is None or state.startswith(_PASSING)
