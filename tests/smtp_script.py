"""A scripted SMTP server: it answers each step as the test says, or cuts, stalls or sends garbage."""

import asyncio
import ssl
from collections import Counter, defaultdict
from contextlib import asynccontextmanager

CUT = "<cut>"
"""Closes the connection without an answer."""
HANG = "<hang>"
"""Never answers."""

PLAIN = "250-script.example\r\n250-8BITMIME\r\n250-SIZE 100000\r\n250 SMTPUTF8"


class Script:
    """The script of a server.

    `answers` maps a step (`banner`, `EHLO`, `MAIL`, `RCPT`, `DATA`, `content`, …) to its answer: a text, or a function
    of the command. Other steps are answered normally.
    """

    def __init__(self, answers=None, *, tls=None, most_connections=1000):
        self.answers = dict(answers or {})
        self.tls = tls
        self.most_connections = most_connections
        self.commands = []
        self.attempts = Counter()
        """RCPT commands by recipient."""
        self.emails = []
        """Pairs of recipient and content."""
        self.open = self.connections = self.most_open = 0
        self.failures = defaultdict(list)
        self._tasks = set()
        self._over = asyncio.Event()

    @property
    def recipients(self):
        return [to for to, _ in self.emails]

    @asynccontextmanager
    async def serving(self, port=0):
        """Serves on the loopback interface. Yields the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self._over.set()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.open += 1
        self.connections += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, EOFError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(asyncio.current_task())
            writer.close()

    async def _talk(self, reader, writer):
        if self.open > self.most_connections:
            await self._answer(writer, "banner", "", "421 4.7.0 too many connections")
            return
        if not await self._answer(writer, "banner", "", "220 script.example ESMTP"):
            return
        to = ""
        while line := (await reader.readline()).decode():
            command = line.strip()
            self.commands.append(command)
            verb = command.split(" ")[0].split(":")[0].upper()
            good = {"EHLO": PLAIN, "DATA": "354 go ahead", "QUIT": "221 bye", "STARTTLS": "220 go ahead"}
            if verb == "AUTH":
                good["AUTH"] = "235 welcome"
            if verb == "RCPT":
                to = command.partition("<")[2].rpartition(">")[0]
                self.attempts[to] += 1
            reply = await self._answer(writer, verb, command, good.get(verb, "250 OK"))
            if reply is None or verb == "QUIT":
                return
            if verb == "STARTTLS" and reply.startswith("220") and self.tls is not None:
                await writer.start_tls(self.tls)
            if verb == "DATA" and reply.startswith("3"):
                content = await reader.readuntil(b"\r\n.\r\n")
                reply = await self._answer(writer, "content", to, "250 2.0.0 taken")
                if reply is None:
                    return
                if reply.startswith("2"):
                    self.emails.append((to, content))

    async def _answer(self, writer, step, command, good):
        """The reply, or `None` to close the connection."""
        reply = self.answers.get(step, good)
        if callable(reply):
            reply = reply(command)
            if asyncio.iscoroutine(reply):
                reply = await reply
            reply = good if reply is None else reply
        if reply == HANG:
            await self._over.wait()
            return None
        if reply == CUT:
            return None
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return None if reply.startswith("421") else reply
