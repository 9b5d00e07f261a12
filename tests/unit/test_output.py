"""What a command does when its output cannot be written: with real pipes, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ecosystem.cli.commands.shared import _is_network_error
from ecosystem.cli.output import Output, _wrapped
from tests.unit.test_help import COMMANDS

PATIENCE_S = 120
ORDERS = [sys.executable, "-m", "ecosystem.cli"]
FOLLOWER = [sys.executable, "-c", "from tests.unit.test_output import follow; follow()"]


def follow():
    """A command that says one thing, and then waits for more to say, as `orders tail` does."""
    import asyncio
    import signal

    import click

    from ecosystem.cli.main import _Main

    @click.group(cls=_Main)
    def main():
        pass

    @main.command()
    def follow():
        async def waiting():
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            click.echo("one")
            await stop.wait()
            click.echo("last words")

        asyncio.run(waiting())

    main(["follow"])


def each():
    """Runs commands in forks of one process, for importing takes long; prints exit code and standard error of each.

    Arguments are a JSON list of `[arguments, stdout, stderr]`, each of these `closed`, `full` or `file`.
    """
    import tempfile

    from ecosystem.cli.main import main

    reading, writing = os.pipe()
    os.close(reading)
    results = []
    for arguments, out, err in json.loads(sys.argv[1]):
        with tempfile.TemporaryFile() as file, Path("/dev/full").open("wb") as full:
            files = {"closed": writing, "full": full.fileno(), "file": file.fileno()}
            pid = os.fork()
            if pid == 0:
                os.dup2(files[out], 1)
                os.dup2(files[err], 2)
                try:
                    main(arguments)
                except SystemExit as end:
                    if "--help" not in arguments:
                        raise
                    os._exit(end.code)  # to end an interpreter in order takes long, too
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            file.seek(0)
            results.append((code, file.read().decode()))
    sys.stdout.write(json.dumps(results))


def run(*commands):
    script = "from tests.unit.test_output import each; each()"
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)], stdout=-1, timeout=PATIENCE_S, check=True
    )
    return {(" ".join(c[0]), *c[1:]): tuple(r) for c, r in zip(commands, json.loads(done.stdout), strict=True)}


def test_a_closed_pipe_ends_every_command_quietly():
    helps = [[[*path, "--help"], "closed", "file"] for path in COMMANDS]
    others = [
        [[argument], "closed", err] for argument in ("--version", "topics", "asyncapi") for err in ("file", "closed")
    ]
    found = run(*helps, *others)
    assert {command: result for command, result in found.items() if result != (141, "")} == {}


def test_a_full_disk_is_told():
    found = run(*[[[argument], "full", "file"] for argument in ("--help", "topics", "asyncapi")])
    assert set(found.values()) == {(1, "Error: cannot write to standard output: No space left on device\n")}


def test_a_command_does_not_fail_for_want_of_standard_error():
    for broken in ("closed", "full"):
        found = run([["topics"], "file", broken], [["get"], "file", broken])
        assert [code for code, _ in found.values()] == [0, 2]


def test_output_that_was_closed_at_the_start_is_output_that_nobody_wants():
    command = " ".join([*ORDERS, "topics"])
    for closed in (">&-", "<&- >&- 2>&-"):
        done = subprocess.run(["/bin/sh", "-c", f"{command} {closed}"], capture_output=True, timeout=PATIENCE_S)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_command_that_waits_ends_once_nobody_reads():
    with subprocess.Popen(FOLLOWER, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"one\n"
        assert process.poll() is None
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == b""


def test_what_a_terminal_cannot_show_is_escaped(tmp_path):
    with (tmp_path / "out").open("wb") as file, Path(os.devnull).open("w", encoding="latin-1") as like:
        stream = _wrapped(like, file.fileno(), Output(), told=True)
        stream.write("\N{EURO SIGN}\udcff")
        stream.flush()
    assert (tmp_path / "out").read_bytes() == b"\\u20ac\\udcff"


def test_a_full_disk_does_not_pass_for_a_broker_that_is_away():
    assert not _is_network_error(OSError(28, "No space left on device"))
    assert not _is_network_error(FileNotFoundError(2, "No such file"))
    assert _is_network_error(ConnectionRefusedError(111, "refused"))
    assert _is_network_error(TimeoutError())
    assert _is_network_error(OSError("Multiple exceptions: ..."))
