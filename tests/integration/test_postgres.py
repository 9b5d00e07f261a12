"""The project's own PostgreSQL: data outlives it, databases do not meet."""

import asyncpg
import pytest

from ecosystem.postgres import Postgres, PostgresError


async def ask(url, statement):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_what_was_committed_outlives_a_kill_and_a_start_on_another_port(tmp_path):
    with Postgres(tmp_path / "home") as server:
        url = server.database("shop")
        await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.kill()
        assert "code -9" in server.failure()
        server.restart()
        assert await ask(url, "SELECT answer FROM kept") == 42
        assert server.database("shop") == url
    with Postgres(tmp_path / "home", port=server.port + 1) as again:
        assert again.port > server.port
        assert await ask(again.database("shop"), "SELECT answer FROM kept") == 42


async def test_a_service_cannot_reach_the_database_of_another(postgres):
    mine, other = postgres.database("t_mine"), postgres.database("t_other")
    try:
        assert await ask(mine, "SELECT current_user") == "t_mine"
        with pytest.raises(asyncpg.PostgresError, match="permission denied"):
            await ask(mine.removesuffix("t_mine") + "t_other", "SELECT 1")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(other.replace("t_other:", "t_other:0"), "SELECT 1")
    finally:
        postgres.drop("t_mine")
        postgres.drop("t_other")


def test_two_do_not_run_on_the_same_data(tmp_path, postgres):
    with pytest.raises(PostgresError, match="Another PostgreSQL runs"):
        Postgres(postgres.home).start()


def test_a_name_that_is_none_is_refused(postgres):
    with pytest.raises(ValueError, match="no name"):
        postgres.database("a; DROP TABLE b")
