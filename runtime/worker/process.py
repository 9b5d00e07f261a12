"""The process of a worker: runs it until a signal or a failure, and returns the exit code."""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence

import uvloop
from aiokafka.errors import KafkaError

from runtime.common import failpoints
from runtime.common.logs import configure
from runtime.common.settings import Settings
from runtime.data_loss.losses import RecordsLost
from runtime.errors import (
    CompositionInUse,
    DatabaseNotConfigured,
    KafkaRejected,
    PartitionCountMismatch,
    StateDirInUse,
    TracingNotInstalled,
)
from runtime.health.pulse import Pulse
from runtime.hosting import ServiceDefinition
from runtime.worker import allocator, gc_tuning, open_files
from runtime.worker.worker import Worker

STOP_S = 10.0
"""Seconds after which a stopping worker is killed. Nothing is lost: uncommitted batches are processed again."""

REMAINING_TASKS_S = 0.5
"""Seconds for remaining tasks to end once the worker has stopped."""

log = logging.getLogger(__name__)


def run(hosted: Sequence[ServiceDefinition], settings: Settings) -> int:
    """Runs a worker until SIGTERM or SIGINT. Returns the exit code: 0, or 1 after a failure."""
    configure(settings)
    open_files.raise_limit()
    allocator.return_freed_memory()
    failpoints.arm(settings.fail_points)
    return uvloop.run(_run_and_end(hosted, settings))


async def _run_and_end(hosted: Sequence[ServiceDefinition], settings: Settings) -> int:
    code = await _run(hosted, settings)
    if unfinished := await cancel_remaining_tasks():
        # They wait for a broker that does not answer. A regular exit would wait for them.
        log.warning("process exits with unfinished tasks count=%d", unfinished)
        logging.shutdown()
        os._exit(code)
    return code


async def cancel_remaining_tasks() -> int:
    """Cancels all other tasks. Returns how many have not ended within `REMAINING_TASKS_S`.

    A cancelled task may start others while it cleans up, such as the closing of a connection: they count as well.
    """
    own = asyncio.current_task()
    deadline = asyncio.get_running_loop().time() + REMAINING_TASKS_S
    while remaining := asyncio.all_tasks() - {own}:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return len(remaining)
        for task in remaining:
            task.cancel()
        await asyncio.wait(remaining, timeout=left)
    return 0


async def _run(hosted: Sequence[ServiceDefinition], settings: Settings) -> int:
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    pulse = Pulse(settings.stall_after_s)
    pulse.start()
    worker = Worker(hosted, settings)
    waits = [asyncio.create_task(signalled.wait()), asyncio.create_task(worker.ended())]
    starting = asyncio.create_task(worker.start())
    try:
        await asyncio.wait([starting, *waits], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            gc_tuning.freeze_startup_objects()
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    except (
        StateDirInUse,
        PartitionCountMismatch,
        CompositionInUse,
        DatabaseNotConfigured,
        KafkaRejected,
        RecordsLost,
        TracingNotInstalled,
        KafkaError,
        OSError,
    ) as error:
        log.error("worker cannot start reason=%s", str(error) or repr(error))  # noqa: TRY400 - expected, no stack trace
        return 1
    finally:
        starting.cancel()
        for wait in waits:
            wait.cancel()
        pulse.end_within(STOP_S)
        await worker.stop()
    if worker.failure is not None:
        log.error("worker failed error=%r", worker.failure)
        return 1
    return 0
