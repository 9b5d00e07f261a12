"""What `docker compose up` starts, started without Docker: the same programs, files, names and ports."""

import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from ecosystem.embedded import processes
from tests.compose import network
from tests.compose.document import ROOT, read
from tests.compose.images import Program, program_of, run_before

PATIENCE_S = 300.0
"""Seconds for three brokers and two workers to start on a busy machine."""


class Composition:
    """The running containers of a profile."""

    def __init__(self, profile: str, folder: Path) -> None:
        self.folder = folder
        self.containers = read(profile, folder)
        self.programs: dict[str, Program] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name, container in self.containers.items():
            (folder / name).mkdir()
            if program := program_of(container, folder / name):
                self.programs[name] = program
        aliases = {name: self.containers[name].aliases for name in self.programs}
        self.network = network.Network(list(self.programs), aliases, folder)

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            program = self.programs[name]
            command = [*self.network.inside(name), *program.command]
            self.running[name] = processes.spawn(command, log, program.environment, self.folder / name)

    def start_all(self) -> None:
        """Starts every container once those that it depends on are as it wants them."""
        for name, program in self.programs.items():
            run_before(program, self.network.inside(name))
        waiting = list(self.programs)
        deadline = time.monotonic() + PATIENCE_S
        while waiting:
            ready = [name for name in waiting if all(self._is_met(*d) for d in self._conditions(name))]
            for name in ready:
                self.start(name)
                waiting.remove(name)
            assert time.monotonic() < deadline, f"not started: {waiting}\n{self.logs()}"
            time.sleep(0 if ready else 0.2)

    def _conditions(self, name: str) -> list[tuple[str, str]]:
        return [(n, c) for n, c in self.containers[name].depends_on.items() if n in self.programs]

    def _is_met(self, name: str, condition: str) -> bool:
        if name not in self.running:
            return False
        if condition == "service_completed_successfully":
            return self.running[name].poll() == 0
        return condition == "service_started" or self.is_open(name)

    def is_open(self, name: str) -> bool:
        """Whether a container listens on its port."""
        probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
        address, port = self.network.addresses[name], self.programs[name].port
        command = [*self.network.inside(None), sys.executable, "-c", probe, address, str(port)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def is_healthy(self, name: str) -> bool:
        """Whether the health check of the file succeeds."""
        words = [sys.executable if word == "python" else word for word in self.containers[name].health]
        command = [*self.network.inside(name), *words]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def smoke(self, *, complete: bool) -> subprocess.CompletedProcess[str]:
        """Runs the smoke test against the containers, as `make smoke` does; with Prometheus if `complete`."""
        at = self.network.addresses
        options = [f"--url=http://{at['balancer']}:8080", f"--bootstrap={at['kafka-1']}:19092", "--mail=none"]
        options += ["--grafana=none", "--kafka-ui=none", "--postgres-ui=none", f"--timeout={PATIENCE_S:.0f}"]
        options += [f"--prometheus=http://{at['prometheus']}:9090" if complete else "--prometheus=none"]
        command = [*self.network.inside(None), sys.executable, "-m", "ecosystem.smoke", *options]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{processes.log_tail(path)}" for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            processes.wait_or_kill(process, 20)


@pytest.fixture(scope="module")
def composition(tmp_path_factory):
    if reason := network.missing():
        pytest.skip(reason)
    for program in ("haproxy", "prometheus"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt install {program})")
    composition = Composition("core", tmp_path_factory.mktemp("compose"))
    with ExitStack() as stack:
        stack.enter_context(composition.network)
        stack.callback(composition.stop)
        composition.start_all()
        yield composition


def test_the_smoke_test_passes_also_after_a_worker_and_a_kafka_node_are_lost(composition: Composition):
    first = composition.smoke(complete=True)
    assert first.returncode == 0, first.stdout + first.stderr + composition.logs()

    assert composition.running["sample"].wait(PATIENCE_S) == 0, composition.logs()

    processes.kill(composition.running["core-1"])
    processes.kill(composition.running["kafka-2"])
    second = composition.smoke(complete=False)
    assert second.returncode == 0, second.stdout + second.stderr + composition.logs()

    composition.start("core-1")
    composition.start("kafka-2")
    deadline = time.monotonic() + PATIENCE_S
    while not composition.is_healthy("core-1"):
        assert time.monotonic() < deadline, composition.logs()
        time.sleep(0.2)


def test_what_cannot_be_started_without_docker_is_known(composition: Composition):
    assert set(composition.containers) - set(composition.programs) == {"grafana", "kafka-ui", "postgres-ui"}
