"""A PostgreSQL that accepts TLS alone, by the variables DB_*: databases are created, certificates verified."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import asyncpg
import pytest
import trustme
from pydantic import SecretStr

from checkin_service.settings import CheckinSettings
from ecosystem.embedded.ports import free_ports
from product_subscribers.transaction_log.settings import ProductLogSettings
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.errors import DatabaseUnavailable
from tests.secured import write_certificate

PATIENCE_S = 60
PASSWORD = "correct-horse"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """Port of the server, and a folder with certificates."""
    if not PROGRAMS:
        pytest.skip("PostgreSQL with TLS is not installed, and the embedded one has none: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="tls-postgres-"))  # the temporary folders of pytest are closed to other users
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    write_certificate(ca, "localhost", folder)
    (folder / "password").write_text(PASSWORD)
    (folder / "hostssl.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    (folder / "localhost.key").chmod(0o600)
    as_root = os.geteuid() == 0  # where the server refuses to run
    if as_root:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "postgres", "postgres")
    [port] = free_ports(1)
    data, options = folder / "data", ["--auth=scram-sha-256", "--username=admin", f"--pwfile={folder / 'password'}"]
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": str(folder / "localhost.crt"),
        "ssl_key_file": str(folder / "localhost.key"),
        "hba_file": str(folder / "hostssl.conf"),
    }

    def run(program, *arguments):
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if as_root else []
        command = [*user, str(PROGRAMS[-1] / program), "-D", str(data), *arguments]
        with (folder / "output").open("ab") as output:  # a server would keep a pipe open
            assert subprocess.run(command, stdout=output, stderr=output).returncode == 0, (
                folder / "output"
            ).read_text()

    run("initdb", *options)
    run("pg_ctl", "start", "--wait", "-o", " ".join(f"-c {name}='{value}'" for name, value in settings.items()))
    try:
        yield port, folder
    finally:
        run("pg_ctl", "stop", "--mode=immediate")
        shutil.rmtree(folder)


@pytest.fixture
def variables(secured, monkeypatch):
    for name, value in {
        "DB_HOST": "localhost",
        "DB_PORT": str(secured[0]),
        "DB_NAME": "shop",
        "DB_USER": "admin",
        "DB_PASSWORD": PASSWORD,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("CHECKIN_DATABASE_URL", "PRODUCT_LOG_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def checkin(settings):
    return Database(
        "checkin", settings.of(CheckinSettings).checkin_database_url, "checkin_service:migrations", settings
    )


async def uses_tls(database):
    async with database.open():
        await database.ready(PATIENCE_S)
        connection = await database.connect()
        try:
            return await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        finally:
            await connection.close()


async def test_databases_are_created_and_reached_over_tls(secured, variables, monkeypatch):
    _, folder = secured
    assert await uses_tls(checkin(Settings()))
    url = Settings().of(ProductLogSettings).product_log_database_url.get_secret_value()
    assert re.fullmatch(r"postgresql://admin:correct-horse@localhost:\d+/shop_product_log\?sslmode=require", url)

    monkeypatch.setenv("DB_SSLMODE", "verify-full")
    monkeypatch.setenv("DB_SSLROOTCERT", str(folder / "ca.pem"))
    assert await uses_tls(checkin(Settings()))


async def test_an_unknown_issuer_is_not_trusted(secured, variables, monkeypatch):
    _, folder = secured
    monkeypatch.setenv("DB_SSLMODE", "verify-full")
    monkeypatch.setenv("DB_SSLROOTCERT", str(folder / "other-ca.pem"))
    database = checkin(Settings())
    async with database.open():
        with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
            await database.ready(2)


async def test_without_tls_the_server_accepts_nobody(secured, variables, monkeypatch):
    monkeypatch.setenv("DB_SSLMODE", "disable")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await checkin(Settings()).connect()


async def test_a_role_that_may_not_create_its_database_is_told_the_statement(secured, variables, monkeypatch):
    connection = await asyncpg.connect(f"{Settings().database_url('x').get_secret_value()}", database="postgres")
    await connection.execute(f"CREATE ROLE clerk LOGIN PASSWORD '{PASSWORD}'")
    await connection.close()
    monkeypatch.setenv("DB_USER", "clerk")
    monkeypatch.setenv("DB_NAME", "office")
    with pytest.raises(DatabaseUnavailable, match='run CREATE DATABASE "office_checkin" OWNER "clerk"'):
        await checkin(Settings()).connect()


def test_a_url_of_its_own_has_precedence(monkeypatch):
    host = {"db_host": "pg", "db_user": "o'b@r", "db_password": SecretStr("p/w")}
    assert (
        Settings(**host).of(CheckinSettings).checkin_database_url.get_secret_value()
        == "postgresql://o%27b%40r:p%2Fw@pg:5432/orders_checkin?sslmode=require"
    )
    own = "postgresql://checkin@elsewhere/checkin"
    monkeypatch.setenv("CHECKIN_DATABASE_URL", own)
    assert Settings(**host).of(CheckinSettings).checkin_database_url.get_secret_value() == own
