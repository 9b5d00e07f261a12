"""The tutorial that adds a validator: its commands, in their order, in a fresh clone."""

import os
import re
import signal
import subprocess
import time

import pytest

from tests.environments import ROOT, run
from tests.integration.test_up import PATIENCE_S, Up
from tests.integration.test_up import environment as environment_of_up

TUTORIAL = ROOT / "docs/tutorial/add-a-validator.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
FILE = re.compile(r"Replace the contents of `([^`]+)` by:\s*$")
CTRL_C = "Stop the system with Ctrl-C"


class Terminals:
    """Two terminals in a clone: one for commands, one for the running system."""

    def __init__(self, clone):
        self.clone = clone
        inherited = environment_of_up(clone / ".data")
        self.env = {k: v for k, v in inherited.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        self.said = ""
        self.system = None

    def type(self, command):
        """Runs a command to its end; `make run` until it is ready."""
        if "make run" in command:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
            env = self.env | {"PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=self.clone, env=env, text=True, start_new_session=True, **pipes
            )
            self.system = Up(process)
            self.system.heard("Ready after")
            return
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.clone, env=self.env, capture_output=True, text=True, timeout=600
        )
        self.said = done.stdout + done.stderr
        if "orders post" not in command:  # it fails if the order does
            assert done.returncode == 0, f"{command}\n{self.said}"

    def stop(self):
        """Presses Ctrl-C where the system runs."""
        if self.system is not None:
            os.killpg(self.system.process.pid, signal.SIGINT)
            self.system.end()
            self.system = None


@pytest.fixture
def terminals(tmp_path):
    run(["git", "clone", "--quiet", "--no-hardlinks", f"file://{ROOT}", str(tmp_path / "clone")])
    found = Terminals(tmp_path / "clone")
    yield found
    found.stop()


def shows(said, lines):
    """Whether an output has all these lines, or parts of lines, in any width."""
    return all(" ".join(line.split()) in " ".join(said.split()) for line in lines)


def test_every_command_works_and_shows_what_the_tutorial_says(terminals):
    text, at, last = TUTORIAL.read_text("utf-8"), 0, []
    outputs = 0
    for block in BLOCK.finditer(text):
        before, (kind, content) = text[at : block.start()], block.groups()
        at = block.end()
        if CTRL_C in before:
            terminals.stop()
        if kind == "python":
            (terminals.clone / FILE.search(before)[1]).write_text(content)
        elif kind == "sh":
            last = content.splitlines()
            for command in last:
                terminals.type(command)
                assert "Warning" not in terminals.said
        else:
            deadline = time.monotonic() + PATIENCE_S
            while not shows(terminals.said, content.splitlines()):
                assert "repeat the command" in text[at:][:200], terminals.said
                assert time.monotonic() < deadline, terminals.said
                terminals.type(last[-1])
            outputs += 1
    assert outputs == 9
    assert run(["git", "status", "--short"], cwd=terminals.clone) == "", "nothing is left"
