"""Creates the database of a service on the server of `DB_HOST`."""

import logging
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
from pydantic import SecretStr

from runtime.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

_MAINTENANCE = "postgres"
"""Database that every server has, to be connected to while another one is created."""


async def create_database(url: SecretStr, timeout_s: float) -> None:
    """Creates the database that a URL names. Another worker may be faster.

    Raises `DatabaseUnavailable` with the statement to run, if the role may not create databases.
    """
    name = unquote(urlsplit(url.get_secret_value()).path.lstrip("/"))
    statement = f'CREATE DATABASE "{name}"'  # of the pattern of DB_NAME, and the name of a service
    connection: Any = await asyncpg.connect(url.get_secret_value(), database=_MAINTENANCE, timeout=timeout_s)
    try:
        await connection.execute(statement, timeout=timeout_s)
        await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC', timeout=timeout_s)
        log.info("database created name=%s", name)
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass
    except asyncpg.InsufficientPrivilegeError:
        user = unquote(urlsplit(url.get_secret_value()).username or "")
        raise DatabaseUnavailable(
            f'database {name} does not exist, and {user} may not create it: run {statement} OWNER "{user}"'
        ) from None
    finally:
        await connection.close(timeout=timeout_s)
