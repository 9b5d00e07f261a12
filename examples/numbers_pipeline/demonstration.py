"""The demonstration: feeds the pipeline, and prints what finishes and how long it took."""

import asyncio
import signal
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any

from rich.console import Console

from ecosystem.clients.writer import Writer
from examples.numbers_pipeline import history, output, queries
from examples.numbers_pipeline.generator import generate
from examples.numbers_pipeline.settings import NumbersSettings
from examples.numbers_pipeline.stages import START, TOPICS
from examples.numbers_pipeline.system import System

_POLL_S = 0.2


class Demonstration:
    """Feeds a running pipeline until a signal.

    Arguments:
        system: what runs.
        settings: of the generator.
        console: where to print.
    """

    def __init__(self, system: System, settings: NumbersSettings, console: Console) -> None:
        self._system = system
        self._settings = settings
        self._console = console
        self._since = datetime.now(UTC)
        self._unfinished: set[str] = set()
        """Ids of the inputs of the generator."""
        self._explained = False
        """Whether the way of one input has been printed."""
        self._complete = False
        """Whether all inputs of the generator have finished."""
        self._finished = 0
        """Inputs that have finished since the last table of times."""

    async def run(self) -> None:
        """Returns after SIGINT, SIGTERM or SIGHUP. Raises `PipelineError` if a process ends by itself."""
        stop, settings = asyncio.Event(), self._system.settings
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with history.connected(settings) as connection, Writer(settings, TOPICS) as writer:
            follower = queries.Follower(connection, settings.partitions)
            await follower.skip()
            feeding = asyncio.create_task(self._feed(writer))
            try:
                while not stop.is_set():
                    self._system.check()
                    await self._print_finished(follower, connection)
                    if feeding.done():
                        feeding.result()  # raises its error
                    if feeding.done() and not self._unfinished and not self._complete:
                        self._complete = True
                        await self._print_times(connection)
                        output.plain(self._console, "All inputs have finished. Ctrl-C stops the pipeline.")
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _POLL_S)
            finally:
                feeding.cancel()
            await self._print_times(connection)

    async def _feed(self, writer: Writer) -> None:
        async for message in generate(self._settings, Random()):  # noqa: S311 - not for secrets
            self._unfinished.add(message.id)
            await writer.write(START, [message])

    async def _explain(self, id_: str, connection: Any) -> None:
        """Prints the way of an input, if all its records are stored."""
        records = await queries.records_of(connection, id_)
        if {topic.name for topic in TOPICS} <= {record.topic for record in records}:
            self._explained = True
            output.plain(self._console, f"The way of the input {id_}:\n\n{output.way(records)}\n")

    async def _print_finished(self, follower: queries.Follower, connection: Any) -> None:
        for finished in await follower.poll():
            if not self._explained:
                await self._explain(finished.id, connection)
            output.plain(self._console, output.line(finished))
            self._unfinished.discard(finished.id)
            self._finished += 1

    async def _print_times(self, connection: Any) -> None:
        if self._finished:
            self._finished = 0
            self._console.print(output.times(await queries.timings(connection, self._since)))
