"""Requests as messages: each way takes time, can be lost, and can be where a process crashes or pauses."""

import asyncio
from dataclasses import dataclass

from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from runtime.errors import MemberFenced

REQUEST_TIMEOUT_S = 4.0


@dataclass
class Trap:
    """Waits in a process for a request by this name (`*`: any), and springs once, before `until`.

    `phase`: `sending` (it is not sent any more), `sent` (it will land, its sender is gone by then), `answered` (it took
    effect, and nobody hears it). `spring` is called with the request.
    """

    name: str
    phase: str
    until: float
    spring: object
    skip: int = 0


class Channel:
    """One connection of one process. What is sent on it arrives in the order of sending, as with TCP."""

    __slots__ = ("arrival", "process", "what")

    def __init__(self, process, what):
        self.process = process
        self.what = what
        self.arrival = 0.0


class Pending:
    """The broker's answer to a request that it keeps waiting."""

    def __init__(self):
        self.done = False
        self._result = None
        self._error = None
        self._answer = None

    def answer(self, result):
        self._settle(result, None)

    def fail(self, error):
        self._settle(None, error)

    def bind(self, answer):
        self._answer = answer
        if self.done:
            answer(self._result, self._error)

    def _settle(self, result, error):
        if self.done:
            return
        self.done, self._result, self._error = True, result, error
        if self._answer is not None:
            self._answer(result, error)


class Request:
    __slots__ = ("channel", "future", "name", "operation")

    def __init__(self, channel, name, operation, future):
        self.channel = channel
        self.name = name
        self.operation = operation
        self.future = future


class Network:
    """Carries requests from processes to the broker and the answers back.

    `loss` and `slowness` are what the weather makes of it: the probability that a message is lost, and the factor by
    which delays grow. `cut` holds the names of processes that reach nobody.
    """

    def __init__(self, loop, random, trace):
        self.loop = loop
        self.random = random
        self.trace = trace
        self.loss = 0.0
        self.slowness = 1.0
        self.cut = set()
        self.closed = False
        self.requests = 0

    async def call(self, channel, name, operation):
        """Sends a request. `operation` is what the broker does when it arrives: a result, a `Pending` or an error."""
        if self.closed:
            raise asyncio.CancelledError
        self.requests += 1
        process = channel.process
        request = Request(channel, name, operation, self.loop.create_future())
        if process.traps and self._sprung(process, request, "sending"):
            return await request.future  # crashed or paused before it was sent; a paused one sends it later
        self._send(request)
        if process.traps:
            self._sprung(process, request, "sent")
        return await request.future

    def resend(self, request):
        """Sends a request that was held back while its process was paused."""
        self._send(request)

    def fail(self, request, error):
        """Ends a request with an error, whatever became of it."""
        if not request.future.done():
            request.future.set_exception(error)

    def delay(self):
        draw = self.random.random
        kind = draw()
        if kind < 0.93:
            delay = 0.0003 + 0.002 * draw()
        elif kind < 0.99:
            delay = 0.003 + 0.06 * draw()
        else:
            delay = 0.05 + 0.6 * draw()
        return delay * self.slowness

    def _lost(self, process):
        return process.name in self.cut or (self.loss and self.random.random() < self.loss)

    def _send(self, request):
        channel, loop = request.channel, self.loop
        if self.trace:
            self.trace(channel.process.name, f"{channel.what} sends {request.name}")
        arrival = max(channel.arrival, loop.now + self.delay())
        if self._lost(channel.process):
            self._break(request)
            return
        if arrival - loop.now > REQUEST_TIMEOUT_S:
            loop.at(loop.now + REQUEST_TIMEOUT_S, channel.process, self.fail, request, RequestTimedOutError())
        channel.arrival = arrival
        loop.at(arrival, None, self._arrive, request)

    def _break(self, request):
        """The connection goes: noticed at once, or only by waiting in vain."""
        if self.random.random() < 0.5:
            error, after = KafkaConnectionError("connection lost"), 0.05 * self.random.random()
        else:
            error, after = RequestTimedOutError(), REQUEST_TIMEOUT_S
        self.loop.at(self.loop.now + after, request.channel.process, self.fail, request, error)

    def _arrive(self, request):
        if self.closed:
            return
        if self.trace:
            self.trace("broker", f"takes {request.name} of {request.channel.process.name} {request.channel.what}")
        try:
            result = request.operation()
        except (KafkaError, MemberFenced) as error:
            self._answer(request, None, error)
            return
        if isinstance(result, Pending):
            result.bind(lambda value, error: self._answer(request, value, error))
        else:
            self._answer(request, result, None)

    def _answer(self, request, result, error):
        if self._lost(request.channel.process):
            self._break(request)
        else:
            self.loop.at(self.loop.now + self.delay(), request.channel.process, self._deliver, request, result, error)

    def _deliver(self, request, result, error):
        process = request.channel.process
        if process.traps and self._sprung(process, request, "answered"):
            self.loop.at(self.loop.now, process, self._deliver, request, result, error)
            return
        if self.trace:
            self.trace(process.name, f"{request.channel.what} hears of {request.name}: {_short(result, error)}")
        if request.future.done():
            return
        if error is not None:
            request.future.set_exception(error)
        else:
            request.future.set_result(result)

    def _sprung(self, process, request, phase):
        if self.closed:  # what dead processes never heard is told to them as the world ends
            return False
        for trap in process.traps:
            if trap.phase == phase and trap.name in ("*", request.name):
                if trap.skip:
                    trap.skip -= 1
                    continue
                process.traps.remove(trap)
                if self.loop.now <= trap.until:
                    trap.spring(request)
                    return True
        return False


def _short(result, error):
    text = repr(error) if error is not None else repr(result)
    return text if len(text) < 160 else text[:157] + "..."
