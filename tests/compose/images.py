"""What each image of the compose file starts, started without Docker: the same program, arguments and environment."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from ecosystem.embedded.kafka.config import environment as java_environment
from ecosystem.embedded.kafka.config import java
from ecosystem.embedded.kafka.install import ensure_jars
from ecosystem.embedded.postgres_programs import command as postgres_command
from ecosystem.embedded.postgres_programs import programs
from tests.compose.document import ROOT, Container

_HEAP_MB = 384


class Program(NamedTuple):
    """A command to start, its environment, and commands to run before it. Those need no network."""

    command: list[str]
    environment: dict[str, str]
    before: list[tuple[list[str], str]] = []  # noqa: RUF012 - never changed
    port: int | None = None
    after: list[tuple[list[str], str]] = []  # noqa: RUF012


def program_of(container: Container, folder: Path) -> Program | None:
    """How to start a container on an empty folder of its own; `None` if its program cannot be had without Docker."""
    repository = container.image.split(":")[0]
    start = _STARTS.get(repository)
    return start(container, folder) if start else None


def _kafka(container: Container, folder: Path) -> Program:
    names = {}
    for variable, value in container.environment.items():
        if variable.startswith("KAFKA_") and variable != "KAFKA_HEAP_OPTS":
            # The image's own rule: three underscores are a hyphen, two an underscore, one a dot.
            text = variable.removeprefix("KAFKA_").lower().replace("___", "-").replace("__", "\0").replace("_", ".")
            names[text.replace("\0", "_")] = value
    names["log.dirs"] = str(folder / "data")
    # The image's own defaults for what the compose file does not name, in half of the memory.
    names.setdefault("log.cleaner.dedupe.buffer.size", str(16 * 1024 * 1024))
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in names.items()))
    machine = java(ensure_jars(Console(quiet=True), folder), _HEAP_MB)
    cluster = container.environment["CLUSTER_ID"]
    storage = [*machine, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", f"--config={properties}"]
    return Program([*machine, "kafka.Kafka", str(properties)], java_environment(), [(storage, "")], 19092)


def _postgres(container: Container, folder: Path) -> Program:
    data, password = folder / "data", folder / "password"
    password.write_text(container.environment["POSTGRES_PASSWORD"])
    [script] = [m.source for m in container.mounts if m.source and m.target.startswith("/docker-entrypoint-initdb.d/")]
    where = programs()
    data.mkdir()
    for path in (folder, password):
        path.chmod(0o755)

    def run(name: str, *arguments: str) -> list[str]:
        return postgres_command(where / name, data, *arguments)

    initialise = run("initdb", "--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}", f"{data}")
    # As the image does: a server of its own for the scripts, which only this machine's users can reach.
    databases = run("postgres", "--single", "-j", "-D", f"{data}", "postgres")
    statements = script.read_text().replace(";\n", ";\n\n")
    allow = ["sh", "-c", f"echo host all all all scram-sha-256 >> '{data}/pg_hba.conf'"]
    options = ["-c", "listen_addresses=*", "-c", "unix_socket_directories=", "-c", "shared_buffers=32MB"]
    serve = run("postgres", "-D", f"{data}", *options)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return Program(serve, environment, [(initialise, ""), (databases, statements), (allow, "")], 5432)


def _ours(container: Container, folder: Path) -> Program:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    image = dict(re.findall(r"^(?:ENV|   ) (HTTP_\w+)=(\S+)", dockerfile, re.MULTILINE))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "STATE_DIR": str(folder / "state"), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    words = container.command
    if words[0] == "run":
        words = [sys.executable, "-m", "ecosystem.cli", *words]
    for mount in container.mounts:
        words = [word.replace(mount.target, str(mount.source)) if mount.source else word for word in words]
    port = int(image["HTTP_PORT"]) if container.health or "run" in words else None
    return Program(words, own | image | container.environment, [], port)


def _mail(_: Container, folder: Path) -> Program:
    """Mailpit cannot be had without Docker: a server of ours receives the e-mails, without its pages."""
    listen = ["aiosmtpd", "--nosetuid", "--listen", "0.0.0.0:1025", "--class", "aiosmtpd.handlers.Mailbox"]
    return Program([sys.executable, "-m", *listen, str(folder / "mail")], dict(os.environ), [], 1025)


def _haproxy(container: Container, _: Path) -> Program | None:
    [config] = [mount.source for mount in container.mounts]
    return _installed(Program(["haproxy", "-db", "-f", str(config)], dict(os.environ), [], 8080))


def _prometheus(container: Container, folder: Path) -> Program | None:
    words = ["prometheus", *container.command, f"--storage.tsdb.path={folder / 'data'}"]
    for mount in container.mounts:
        words = [word.replace(mount.target, str(mount.source)) if mount.source else word for word in words]
    return _installed(Program(words, dict(os.environ), [], 9090))


def _installed(program: Program) -> Program | None:
    return program if shutil.which(program.command[0]) else None


_STARTS: dict[str, Callable[[Container, Path], Program | None]] = {
    "apache/kafka": _kafka,
    "postgres": _postgres,
    "faust-orders": _ours,
    "axllent/mailpit": _mail,
    "haproxy": _haproxy,
    "prom/prometheus": _prometheus,
}


def run_before(program: Program, inside: list[str]) -> None:
    """Runs what comes before a program."""
    for command, stdin in program.before:
        done = subprocess.run(
            [*inside, *command], check=False, input=stdin, env=program.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
