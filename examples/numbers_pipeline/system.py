"""Everything that `make numbers` runs: Kafka, PostgreSQL and workers. Other commands find it by a file."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from ecosystem.cli import discovery
from ecosystem.clients.health import is_ready
from ecosystem.embedded import processes
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.locks import LockHeld, exclusive_lock
from ecosystem.embedded.ports import reserved_ports
from ecosystem.embedded.postgres import Postgres
from examples.numbers_pipeline import history
from examples.numbers_pipeline.settings import NumbersSettings
from examples.numbers_pipeline.stages import STAGES
from runtime.common.settings import Settings

NAMES = (*(stage.name for stage in STAGES), history.NAME)
"""What a worker can run: the stages, and the history."""

_COMMANDS = (
    """submit '{"numbers": [76452, 61211234, 8243724]}'""",
    "history --id ID",
    "resubmit --stage square --id ID",
    "timings",
)

_READY_S = 180.0
_POLL_S = 0.2
_GRACE_S = 15.0
"""Seconds from SIGTERM to SIGKILL: a worker finishes its batch and leaves its group."""


class PipelineError(Exception):
    """The pipeline does not run, or a part of it has ended. The text is meant for the user."""


class System:
    """Context manager of everything: started and ready inside, stopped outside.

    Entering raises `PipelineError`, `KafkaError`, `PostgresError` or `NoFreePort`.

    Arguments:
        apart: whether each stage has a worker of its own, instead of one for all.
    """

    def __init__(self, *, apart: bool) -> None:
        self.home = home()
        self._workers: Sequence[tuple[str, ...]] = [(name,) for name in NAMES] if apart else [NAMES]
        self._running: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive_lock(self.home / "lock"))
            except LockHeld as held:
                raise PipelineError(f"The pipeline runs already, as process {held.holder}: stop it first.") from None
            self._kafka = stack.enter_context(Cluster(self.home / "kafka"))
            self._postgres = stack.enter_context(Postgres(self.home / "postgres"))
            database = f"{self._postgres.database('numbers')}?sslmode=disable"  # PGSSLMODE is meant for other servers
            self.settings = _settings(self._kafka.bootstrap_servers, database)
            published = {"pid": os.getpid(), "kafka": self._kafka.bootstrap_servers, "database": database}
            ports = stack.enter_context(reserved_ports(len(self._workers)))
            stack.callback(self._stop_workers)
            for names, port in zip(self._workers, ports, strict=True):
                self._start_worker(names, port, published)
            self._wait_until_ready()
            stack.enter_context(_written(published))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def welcome(self) -> str:
        """What runs where, and what to do now."""
        lines = {
            "Kafka": self.settings.kafka_bootstrap_servers,
            "PostgreSQL": f"127.0.0.1:{self._postgres.port}; its URL is in {_file()}",
            **{f"metrics of {name}": f"{url}/metrics" for name, url in self.urls.items()},
            "logs": f"{self.home}/*.log",
        }
        addresses = "\n".join(f"  {name:<26} {value}" for name, value in lines.items())
        python = shlex.quote(os.path.relpath(sys.executable))
        commands = "\n".join(f"  {python} -m examples.numbers_pipeline {text}" for text in _COMMANDS)
        return f"\nReady. Ctrl-C stops it all.\n\n{addresses}\n\nIn another terminal:\n\n{commands}\n"

    @property
    def urls(self) -> Mapping[str, str]:
        """Base URLs of the workers."""
        return {name: f"http://127.0.0.1:{port}" for name, (port, _) in self._running.items()}

    def check(self) -> None:
        """Raises `PipelineError` if any process has ended by itself."""
        for name, (_, process) in self._running.items():
            if (code := process.poll()) is not None:
                raise PipelineError(f"The worker {name} ended with code {code}. {processes.log_tail(self._log(name))}")
        if (why := self._kafka.failure() or self._postgres.failure()) is not None:
            raise PipelineError(why)

    def _start_worker(self, names: tuple[str, ...], port: int, addresses: Mapping[str, object]) -> None:
        name = names[0] if len(names) == 1 else "pipeline"
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": str(addresses["kafka"]),
            "NUMBERS_DATABASE_URL": str(addresses["database"]),
            "TOPIC_PREFIX": "",
            "HTTP_PORT": str(port),
            "STATE_DIR": str(self.home / "state" / name),
        }
        command = [sys.executable, "-m", "examples.numbers_pipeline", "worker", *names]
        with self._log(name).open("wb") as log:
            self._running[name] = port, processes.spawn(command, log, environment)

    def _stop_workers(self) -> None:
        for _, process in self._running.values():
            process.terminate()
        for _, process in self._running.values():
            processes.wait_or_kill(process, _GRACE_S)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while waiting := [name for name, url in self.urls.items() if not is_ready(url)]:
            self.check()
            if time.monotonic() > deadline:
                raise PipelineError(f"Not ready after {_READY_S:.0f} s: {', '.join(waiting)}; see {self.home}/*.log")
            time.sleep(_POLL_S)

    def _log(self, name: str) -> Path:
        return self.home / f"{name}.log"


def home() -> Path:
    """Folder of data, logs and state: `.data/numbers`, or `numbers` in `ORDERS_DATA`."""
    return discovery.data_dir() / "numbers"


def find() -> Settings:
    """Settings for a pipeline that runs: of the environment, else of `make numbers`. Raises `PipelineError`."""
    if NumbersSettings().numbers_database_url is not None:
        return Settings()
    try:
        fields = json.loads(_file().read_text())
        with suppress(PermissionError):  # it runs, as another user
            os.kill(fields["pid"], 0)  # a process that was killed could not remove its file
        return _settings(fields["kafka"], fields["database"])
    except (OSError, ValueError, KeyError):
        raise PipelineError(
            "The pipeline does not run here: start it by `make numbers` in another terminal, "
            "or set NUMBERS_DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS."
        ) from None


@contextmanager
def _written(addresses: Mapping[str, object]) -> Iterator[None]:
    """Lets other commands find these addresses for as long as the `with` block lasts."""
    new = _file().with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)  # the URL of the database has its password
    new.write_text(json.dumps(addresses))
    new.replace(_file())
    try:
        yield
    finally:
        _file().unlink(missing_ok=True)


def _settings(kafka: str, database: str) -> Settings:
    return Settings(kafka_bootstrap_servers=kafka, topic_prefix="", numbers_database_url=SecretStr(database))


def _file() -> Path:
    return home() / "running.json"
