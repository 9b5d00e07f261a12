"""The project's own PostgreSQL: data outlives it, databases do not meet."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import psutil
import pytest

from ecosystem.embedded import postgres as postgres_module
from ecosystem.embedded import postgres_programs, unprivileged
from ecosystem.embedded.postgres import Postgres, PostgresError
from ecosystem.embedded.postgres_programs import programs

ROOT = os.geteuid() == 0
WAYS = ["setpriv"] if ROOT else []
if ROOT and not subprocess.run(["unshare", "--user", "true"], stderr=subprocess.DEVNULL).returncode:  # not in Docker
    WAYS.append("unshare")
ODD = 'a "shop\'s" bücher, $HOME `=#\\u0041'


async def ask(url, statement):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_committed_data_survives_a_kill_and_a_start_on_another_port(tmp_path):
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


def test_two_servers_cannot_share_a_data_directory(tmp_path, postgres):
    with pytest.raises(PostgresError, match="Another PostgreSQL runs"):
        Postgres(postgres.home).start()


def test_an_invalid_database_name_is_rejected(postgres):
    with pytest.raises(ValueError, match="is not a database name"):
        postgres.database("a; DROP TABLE b")


def wheel_copied_to(folder):
    """The programs of PostgreSQL, as pip would have installed them there."""
    wheel = programs().parent.parent
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("include", "pginstall"))
    return folder / programs().relative_to(wheel.parent)


def only(monkeypatch, way):
    ways = [found for found in unprivileged._candidates() if found.prefix[0] == way]
    monkeypatch.setattr(unprivileged, "_candidates", lambda: iter(ways))


@pytest.fixture
def open_folder():
    """A folder that everybody may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize("way", WAYS or [None])
async def test_programs_and_data_may_be_in_private_directories(open_folder, monkeypatch, way):
    private = open_folder / ODD
    private.mkdir(mode=0o700)
    found = wheel_copied_to(private)
    for module in (postgres_module, postgres_programs):
        monkeypatch.setattr(module, "programs", lambda: found)
    if way:
        only(monkeypatch, way)
    with Postgres(private / "home") as server:
        assert await ask(server.database("shop"), "SELECT current_user") == "shop"
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(len(WAYS) < 2, reason="asks to be root where user namespaces are allowed")
@pytest.mark.parametrize("way", WAYS)
async def test_data_of_a_server_of_another_user_are_reused(tmp_path, monkeypatch, way):
    both = list(unprivileged._candidates())
    other = next(found for found in both if found.prefix[0] != way)
    monkeypatch.setattr(unprivileged, "_candidates", lambda: iter([other]))
    with Postgres(tmp_path / "home") as server:
        await ask(server.database("shop"), "CREATE TABLE kept AS SELECT 42 AS answer")
    monkeypatch.setattr(unprivileged, "_candidates", lambda: iter([found for found in both if found is not other]))
    with Postgres(tmp_path / "home") as server:
        assert await ask(server.database("shop"), "SELECT answer FROM kept") == 42


@pytest.mark.parametrize("way", WAYS)
def test_a_server_ends_with_its_parent_process(tmp_path, way):
    script = (
        "import os, sys; from pathlib import Path; from ecosystem.embedded import unprivileged; "
        "from ecosystem.embedded.postgres import Postgres; ways = list(unprivileged._candidates()); "
        f"unprivileged._candidates = lambda: (found for found in ways if found.prefix[0] == {way!r}); "
        "server = Postgres(Path(sys.argv[1])).start(); print(server.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "home"], stdout=subprocess.PIPE, text=True)
    server = int(done.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(server) and psutil.Process(server).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlived its owner"
        time.sleep(0.05)


@pytest.mark.parametrize("way", WAYS)
def test_data_and_password_are_kept_from_other_users(open_folder, monkeypatch, way):
    only(monkeypatch, way)
    with Postgres(open_folder / "home") as server:
        server.database("shop")
        secret = [server.home / "password", server.home / "data" / "postgresql.auto.conf", server.log]
        others = [pwd.getpwnam("nobody").pw_uid, 4711]
        readable = [
            (user, path.name)
            for user in others
            for path in secret
            if subprocess.run(["cat", path], user=user, group=user, extra_groups=[], capture_output=True).returncode
            == 0
        ]
    assert not readable


def test_our_files_are_private_for_root_and_ordinary_users(postgres):
    assert postgres.home.stat().st_mode & 0o077 == 0
    assert (postgres.home / "password").stat().st_mode & 0o077 == 0


def test_an_interrupted_initdb_is_repeated(tmp_path):
    begun = tmp_path / "home" / "data.new"
    begun.mkdir(parents=True)
    (begun / "PG_VERSION").write_text("18\n")
    with Postgres(tmp_path / "home") as server:
        assert server.database("shop")


def test_libpq_settings_of_the_user_are_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGOPTIONS", "-c no_such_setting=1")
    with Postgres(tmp_path / "home") as server:
        assert server.database("shop")


@pytest.mark.skipif("unshare" not in WAYS, reason="asks to be root where user namespaces are allowed")
def test_a_user_without_a_passwd_entry_can_start_the_server(tmp_path):
    """As in a container that is started with a number for its user."""
    with pytest.raises(KeyError):
        pwd.getpwuid(4711)
    script = (
        "import os, sys; from pathlib import Path; from ecosystem.embedded.postgres import Postgres; "
        "assert os.geteuid() == 4711; server = Postgres(Path(sys.argv[1])).start(); "
        "server.database('shop'); server.stop(); print('served')"
    )
    user = ["unshare", "--user", "--map-user=4711", "--map-group=4711"]
    done = subprocess.run([*user, sys.executable, "-c", script, tmp_path / "home"], capture_output=True, text=True)
    assert done.stdout == "served\n", done.stderr


@pytest.mark.skipif(not ROOT, reason="asks to be root")
def test_root_without_an_unprivileged_user_gets_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(unprivileged, "_candidates", lambda: iter([unprivileged.ProcessIdentity(("false",), 0, 0)]))
    with pytest.raises(PostgresError, match=r"(?s)does not run as root.*CHECKIN_DATABASE_URL"):
        Postgres(tmp_path / "home").start()
