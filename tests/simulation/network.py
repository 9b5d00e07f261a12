"""Requests and answers as messages that take time and may be lost, or hit by a crash or pause of their process."""

import asyncio
from dataclasses import dataclass

from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from runtime.errors import MemberFenced

REQUEST_TIMEOUT_S = 4.0


@dataclass
class Trap:
    """Fires once when a process sends a request of this name (`*`: any), before the time `until`.

    `phase`: `sending` (the request is never sent), `sent` (it arrives, its sender is gone), `answered` (it takes
    effect, its answer is lost). `spring` is called with the request.
    """

    name: str
    phase: str
    until: float
    spring: object
    skip: int = 0


class Channel:
    """A connection of a process. Messages arrive in the order of sending, as with TCP."""

    __slots__ = ("arrival", "process", "what")

    def __init__(self, process, what):
        self.process = process
        self.what = what
        self.arrival = 0.0


class Pending:
    """The answer to a request that the broker does not answer at once."""

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
    """Carries requests of processes to the broker, and the answers back.

    `loss` is the probability that a message is lost, `slowness` the factor by which delays grow. `cut` holds the names
    of partitioned processes.
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
        """Sends a request. The broker runs `operation` when it arrives: a result, a `Pending` or an error."""
        if self.closed:
            raise asyncio.CancelledError
        self.requests += 1
        process = channel.process
        request = Request(channel, name, operation, self.loop.create_future())
        if process.traps and self._sprung(process, request, "sending"):
            return await request.future  # crashed or paused before sending; a paused process sends it later
        self._send(request)
        if process.traps:
            self._sprung(process, request, "sent")
        return await request.future

    def resend(self, request):
        """Sends a request that was delayed by a pause of its process."""
        self._send(request)

    def fail(self, request, error):
        """Ends a request with an error, whether or not it took effect."""
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
        """Breaks the connection: noticed at once, or only by the request timeout."""
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
        if self.closed:  # answers to dead processes are delivered as the world ends
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
