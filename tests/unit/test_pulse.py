"""A blocked event loop ends the process; a busy, idle or stopped one does not."""

import asyncio
import subprocess
import sys
import textwrap
import time

import pytest

from runtime.health.pulse import Pulse


class Quick(Pulse):
    STEP_S = 0.02


@pytest.fixture
def ended():
    return []


async def test_a_running_loop_is_left_alone(ended):
    pulse = Quick(2, ended.append)
    pulse.start()
    await asyncio.sleep(3)  # longer than the limit
    pulse.stop()
    assert ended == []


async def test_a_blocked_loop_ends_the_process_at_the_limit_with_the_stack(ended, capfd, caplog):
    pulse = Quick(0.2, ended.append)
    pulse.start()
    deadline = time.monotonic() + 60
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: ASYNC251 - blocks the loop on purpose
    pulse.stop()
    assert ended == [1]
    assert "test_a_blocked_loop_ends" in capfd.readouterr().err
    assert "the event loop is blocked" in caplog.text


async def test_a_shutdown_that_hangs_ends_the_process(ended, caplog):
    pulse = Quick(60, ended.append)
    pulse.start()
    pulse.end_within(0.2)
    async with asyncio.timeout(60):
        while not ended:
            await asyncio.sleep(0.01)
    assert ended == [1]
    assert "the shutdown hangs" in caplog.text


async def test_time_in_which_the_process_was_stopped_does_not_count(ended, monkeypatch):
    """As after SIGSTOP and SIGCONT: the clock has jumped by an hour, and no heartbeat has come since."""
    hours = []

    def hour_by_hour():
        hours.append(len(hours) * 3600.0)
        return hours[-1]

    monkeypatch.setattr("runtime.health.pulse.monotonic", hour_by_hour)
    pulse = Quick(30, ended.append)
    pulse.start()
    while len(hours) < 5:
        time.sleep(Quick.STEP_S)  # noqa: ASYNC251 - no beat meanwhile
    pulse.stop()
    assert ended == []


SILENCED = """
    import asyncio, logging, os, sys, threading, time
    from runtime.health.pulse import Pulse
    Pulse.STEP_S = 0.05
    read, write = os.pipe()
    logging.basicConfig(stream=os.fdopen(write, "w"))
    async def main():
        Pulse(0.3).start()
        logging.error("x" * 10**6)  # nothing reads the pipe: the log blocks, and holds its lock
    asyncio.run(main())
"""


def test_a_process_that_is_blocked_by_its_own_log_ends():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SILENCED)], capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"in main" in done.stderr
