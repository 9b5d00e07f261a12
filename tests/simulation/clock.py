"""An asyncio event loop with virtual time. Its tasks belong to processes that crash and pause.

Nothing sleeps, and all randomness comes from a seeded generator of the caller: two runs of one program are equal,
callback by callback.
"""

import asyncio
import contextvars
import heapq
import itertools
from asyncio import events
from collections import deque

PROCESS = contextvars.ContextVar("process", default=None)


class Process:
    """A simulated operating system process: its tasks run only while it is alive and not paused.

    Its timers and the answers to its requests wait while it is paused, and are lost when it is dead.
    """

    def __init__(self, loop, name):
        self.loop = loop
        self.name = name
        self.alive = True
        self.paused = False
        self.traps = []
        self.held = []
        self.tasks = []

    def start(self, coroutine):
        """Runs a coroutine, and all tasks that it starts, in this process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        return context.run(self.loop.create_task, coroutine)

    def crash(self):
        self.alive = False

    def pause(self):
        self.paused = True

    def resume(self):
        self.paused = False
        if self.alive:
            self.loop.ready.extend(self.held)
            self.held.clear()


class Handle:
    """A scheduled callback. Implements the part of `asyncio.TimerHandle` that asyncio uses."""

    __slots__ = ("_when", "args", "callback", "context", "dropped", "process")

    def __init__(self, process, callback, args, context, when=None):
        self.process = process
        self.callback = callback
        self.args = args
        self.context = context
        self.dropped = False
        self._when = when

    def cancel(self):
        self.dropped = True

    def cancelled(self):
        return self.dropped

    def when(self):
        return self._when


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Callbacks run in the order in which they were scheduled. Time advances when none is left."""

    def __init__(self):
        self.ready = deque()
        self.now = 0.0
        self.steps = 0
        self.errors = []
        self._timers = []
        self._order = itertools.count()

    def time(self):
        return self.now

    def get_debug(self):
        return False

    def is_running(self):
        return True

    def is_closed(self):
        return False

    def call_soon(self, callback, *args, context=None):
        if context is None:
            context = contextvars.copy_context()
        handle = Handle(context.get(PROCESS), callback, args, context)
        self.ready.append(handle)
        return handle

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        if context is None:
            context = contextvars.copy_context()
        handle = Handle(context.get(PROCESS), callback, args, context, when)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def at(self, when, process, callback, *args):
        """Schedules a callback for `process`. `None` is the world, which neither crashes nor pauses."""
        handle = Handle(process, callback, args, None, when)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coro, *, name=None, context=None):
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        process = PROCESS.get()
        if process is not None:
            process.tasks.append(task)
            if len(process.tasks) > 256:
                process.tasks = [t for t in process.tasks if not t.done()]
        return task

    def call_exception_handler(self, context):
        self.errors.append(context)

    def run(self, coroutine, most_steps):
        """Runs until the coroutine ends and returns its result. Raises `RuntimeError` after `most_steps` callbacks."""
        events._set_running_loop(self)
        try:
            main = self.create_task(coroutine)
            while not main.done():
                self._step()
                if self.steps > most_steps:
                    raise RuntimeError(f"no end after {most_steps} callbacks, at {self.now:.3f} s")
            return main.result()
        finally:
            events._set_running_loop(None)

    def end(self, processes):
        """Cancels all remaining tasks, those of dead processes too, and lets them end."""
        events._set_running_loop(self)
        try:
            for process in processes:
                process.alive, process.paused = True, False
                self.ready.extend(process.held)
                process.held.clear()
            for _ in range(20):
                left = [task for process in processes for task in process.tasks if not task.done()]
                if not left:
                    break
                for task in left:
                    task.cancel()
                while self.ready:
                    self._step()
        finally:
            events._set_running_loop(None)
            self._timers.clear()

    def _step(self):
        if self.ready:
            handle = self.ready.popleft()
        else:
            when, _, handle = heapq.heappop(self._timers)
            self.now = max(self.now, when)
        if handle.dropped:
            return
        process = handle.process
        if process is not None and (process.paused or not process.alive):
            process.held.append(handle)
            return
        self.steps += 1
        if handle.context is None:
            handle.callback(*handle.args)
        else:
            handle.context.run(handle.callback, *handle.args)
