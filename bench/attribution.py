"""Attributes CPU time of a worker's event loop to the board and to metrics, while it runs.

Differences between turns with and without them are smaller than the differences between turns of one kind. So the time
is also measured where it is spent: each step of a task of the board with the clock of its thread, and each call of a
function that writes metrics. The clocks are in these times, too: they are upper bounds. Bytes that the event loop reads
for the board's connections to Kafka before a task handles them are not.
"""

import asyncio
import json
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import board_service.http
from board_service.deployment import Deployment

T = TypeVar("T")
_BOARD: ContextVar[bool] = ContextVar("board", default=False)
"""Whether what runs is the board: tasks that it starts inherit it."""


class Attribution:
    """Seconds of CPU time by what they were spent on, since the last `restart`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Counts from zero."""
        self.board_s = 0.0
        self.metrics_s = 0.0
        self._began_s = time.process_time()

    def write(self, file: Path) -> None:
        """Writes the seconds of CPU time as JSON: `board`, `metrics`, and the whole `process`."""
        found = {"board": self.board_s, "metrics": self.metrics_s, "process": time.process_time() - self._began_s}
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.rename(file)

    def watch_board(self) -> None:
        """Counts what the board does: streams that begin from now on, the feed that they start, looks at workers."""
        Deployment.refresh = self.of_board(Deployment.refresh)  # type: ignore[method-assign]
        http: Any = board_service.http
        http.send_events = self.of_board(http.send_events)

    def new_task(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], **more: Any) -> Any:
        """Makes tasks for the event loop: those that the board starts are counted."""
        counted = self._counted(coroutine) if _BOARD.get() else coroutine
        return asyncio.Task(counted, loop=loop, **more)

    def counting(self, write: Callable[..., None]) -> Callable[..., None]:
        """The same function, whose time counts as that of metrics."""

        def counted(*args: Any, **named: Any) -> None:
            began = time.perf_counter()
            write(*args, **named)
            self.metrics_s += time.perf_counter() - began

        return counted

    def of_board(self, function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        """The same function, whose time counts as that of the board, and that of all tasks that it starts."""

        async def counted(*args: Any, **named: Any) -> T:
            if _BOARD.get():  # in a task that is counted
                return await function(*args, **named)
            token = _BOARD.set(True)
            try:
                return await self._counted(function(*args, **named))
            finally:
                _BOARD.reset(token)

        return counted

    async def _counted(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await self._steps(coroutine)

    @types.coroutine
    def _steps(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        resume: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        while True:
            began = time.thread_time()
            try:
                awaited: Awaitable[Any] = resume(argument)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self.board_s += time.thread_time() - began
            try:
                resume, argument = coroutine.send, (yield awaited)
            except BaseException as error:
                resume, argument = coroutine.throw, error
