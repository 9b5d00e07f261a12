"""A worker as a process: it runs until it is told to stop or cannot go on, and its exit code says which."""

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
from runtime.errors import CompositionInUse, DatabaseNotConfigured, PartitionCountMismatch, StateDirInUse
from runtime.health.pulse import Pulse
from runtime.hosting import ServiceDefinition
from runtime.worker import gc_tuning, open_files
from runtime.worker.worker import Worker

STOP_S = 10.0
"""By when a worker has stopped, or is ended. Nothing is lost by that: what it had not committed, it decides again."""

REST_S = 0.5
"""How long what is left once a worker has stopped may take to end by itself."""

log = logging.getLogger(__name__)


def run(hosted: Sequence[ServiceDefinition], settings: Settings) -> int:
    """Runs a worker until SIGTERM or SIGINT. Returns the exit code: 0, or 1 when it could not go on."""
    configure(settings)
    open_files.raise_limit()
    failpoints.arm(settings.fail_points)
    return uvloop.run(_run_and_end(hosted, settings))


async def _run_and_end(hosted: Sequence[ServiceDefinition], settings: Settings) -> int:
    code = await _run(hosted, settings)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (pending := (await asyncio.wait(left, timeout=REST_S))[1]):
        # They wait for a broker that does not answer, and the event loop would wait for them.
        log.warning("process ends before its tasks count=%d", len(pending))
        logging.shutdown()
        os._exit(code)
    return code


async def _run(hosted: Sequence[ServiceDefinition], settings: Settings) -> int:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    pulse = Pulse(settings.stall_after_s)
    pulse.start()
    worker = Worker(hosted, settings)
    waits = [asyncio.create_task(asked.wait()), asyncio.create_task(worker.ended())]
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
        RecordsLost,
        KafkaError,
        OSError,
    ) as error:
        log.error("worker cannot start: %s", str(error) or repr(error))  # noqa: TRY400 - the message says all there is to say
        return 1
    finally:
        starting.cancel()
        for wait in waits:
            wait.cancel()
        pulse.end_within(STOP_S)
        await worker.stop()
    if worker.failure is not None:
        log.error("worker failed: %r", worker.failure)
        return 1
    return 0
