"""Standard output and error of a command: what happens when they can no longer be written to.

A closed pipe ends the command quietly, with the exit code of a process that SIGPIPE ended; any other error of standard
output is told, with exit code 1. SIGPIPE itself stays ignored: it would also end a worker whose client has gone.
"""

import io
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

CLOSED_PIPE = 128 + signal.SIGPIPE
"""Exit code, as a shell shows it for `cat` in `cat file | head -1`."""


class OutputError(Exception):
    """Standard output cannot be written to. The cause is the `OSError`."""


class Output:
    """The state of standard output: `failure` is the first error of writing to it."""

    def __init__(self) -> None:
        self.failure: OSError | None = None
        self.ending = False
        """What is written is dropped from now on."""

    @property
    def closed(self) -> bool:
        """Whether nobody reads the output any more."""
        return isinstance(self.failure, BrokenPipeError)

    def fail(self, error: OSError) -> None:
        """Notes the first error and has the command end: as SIGTERM does if the command handles that."""
        self.failure = self.failure or error
        if not self.ending and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            self.ending = True
            os.kill(os.getpid(), signal.SIGTERM)


class _Raw(io.FileIO):
    """The file descriptor of standard output, or of standard error if `told` is false."""

    def __init__(self, fd: int, output: Output, told: bool) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._output = output
        self._told = told
        self._dead = False

    def write(self, data: object) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        if self._dead or (self._told and self._output.ending):
            return size
        try:
            while (written := super().write(data)) is None:  # type: ignore[arg-type]
                select.select([], [self], [])  # somebody who shares the terminal made it non-blocking
        except OSError as error:
            if not self._told:
                self._dead = True  # a command does not fail for want of its progress bar, nor a worker for its log
                return size
            self._output.fail(error)
            if self._output.ending:
                return size
            raise OutputError(str(error)) from error
        return written


@contextmanager
def guarded() -> Iterator[Output]:
    """Replaces `sys.stdout` and `sys.stderr`, if they are the process's own, for as long as the `with` block lasts."""
    output = Output()
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield output  # a test's
        return
    _open_standard_files()
    before = sys.stdout, sys.stderr
    shared = os.path.sameopenfile(1, 2)
    sys.stdout = _wrapped(sys.stdout, 1, output, told=True)
    sys.stderr = _wrapped(sys.stderr, 2, output, told=shared and stat.S_ISFIFO(os.fstat(2).st_mode))
    if stat.S_ISFIFO(os.fstat(1).st_mode):
        threading.Thread(target=_watch, args=(output,), daemon=True).start()
    try:
        yield output
    finally:
        output.ending = output.ending or output.failure is not None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_standard_files() -> None:
    """Opens /dev/null where a standard file was closed at the start: else a socket would get its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, "r", closefd=False)


def _wrapped(before: TextIO | None, fd: int, output: Output, *, told: bool) -> TextIO:
    buffered = io.BufferedWriter(_Raw(fd, output, told))
    encoding, line, through = "utf-8", fd == 2, False
    if isinstance(before, io.TextIOWrapper):
        before.flush()
        encoding, line, through = before.encoding, before.line_buffering, before.write_through
    # What others put into names must not end a command in a terminal that cannot show it.
    return io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=line, write_through=through)


def _watch(output: Output) -> None:
    """Ends a command that waits for something to write, as soon as nobody reads its output."""
    poller = select.poll()
    poller.register(1, 0)  # errors and hang-ups are told of all the same
    poller.poll()
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        output.fail(BrokenPipeError())
