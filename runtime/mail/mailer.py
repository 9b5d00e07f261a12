"""Sending letters by SMTP: a few connections, used again for letters that follow soon, made anew when they break."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage

from runtime.common.clock import elapsed_s
from runtime.common.settings import Settings
from runtime.errors import Outage, SideEffectError, SideEffectRejected
from runtime.hosting import Host
from runtime.mail.connections import SmtpConnection, connect, host_name
from runtime.mail.envelope import Envelope

log = logging.getLogger(__name__)


class SmtpMailer:
    """Sends letters through the SMTP server of the settings. Its `send` is what an effect does."""

    AT_ONCE = 4
    """Letters at a time. Providers let a client have 5 to 20 connections, all its workers together."""
    CONNECTIONS = 2 * AT_ONCE
    """At the most, with those that take long: see `runtime/side_effects/scheduler.py`."""
    IDLE_S = 30.0
    """After which an unused connection is not trusted any more; servers close them after minutes."""
    FEWER_S = 60.0
    """For so long it makes do with the connections it has, after the server did not take one more."""
    FREED_S = 2.0
    """For so long one of them is waited for. All may be with recipients that nobody answers for: then one more is
    tried, as the server may take it again."""
    TRUSTED_S = 3600.0
    """For so long after the server took a recipient, its policy is not held to refuse all of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[SmtpConnection] = []
        self._open = 0
        self._most = self.CONNECTIONS
        self._fewer_until = 0.0
        self._freed = asyncio.Event()
        self._accepted_at = float("-inf")
        self._name: str | None = None

    async def send(self, key: str, message: EmailMessage) -> None:
        """Returns when the server has taken the letter, which has a sender, a Message-ID and one recipient.

        Raises `SideEffectRejected` if it never will; `PutOff` if it does not take this one now; `Outage` if it takes
        none.
        """
        envelope = Envelope.of(message)
        while True:
            connection = await self._connection()
            used_before = connection.letters > 0
            try:
                await self._send(connection, envelope)
            except SideEffectError:
                if used_before and connection.dropped:
                    continue  # it had been open for too long, or others were refused on it: that says nothing of this
                raise
            finally:
                self._give_back(connection)
            log.debug("letter sent key=%s", key)
            return

    @asynccontextmanager
    async def opened(self, _: Host) -> AsyncIterator[None]:
        """Hangs up at the end."""
        try:
            yield
        finally:
            for connection in self._idle:
                connection.close()
            self._open -= len(self._idle)
            self._idle.clear()

    async def _send(self, connection: SmtpConnection, envelope: Envelope) -> None:
        utf8, eight_bit = envelope.needs_utf8, connection.offers("8BITMIME")
        if utf8 and not connection.offers("SMTPUTF8"):
            raise SideEffectRejected("an address beyond ASCII, and the server does not know SMTPUTF8", "no SMTPUTF8")
        content, most = envelope.content(utf8=utf8, eight_bit=eight_bit), connection.most_bytes
        if most is not None and len(content) > most:
            raise SideEffectRejected(f"the letter has {len(content)} bytes, the server takes {most}", "too large")
        options = [f"SIZE={len(content)}"] if connection.offers("SIZE") else []
        options += ["BODY=8BITMIME"] if eight_bit else []
        options += ["SMTPUTF8"] if utf8 else []
        trusted = elapsed_s() - self._accepted_at < self.TRUSTED_S
        try:
            await connection.send(envelope.sender, envelope.recipient, content, options, trusted=trusted)
        finally:
            if connection.accepted:
                self._accepted_at = elapsed_s()

    async def _connection(self) -> SmtpConnection:
        """One that is open, or the next that is given back, or a new one. Raises `Outage`."""
        until = elapsed_s() + self._settings.smtp_timeout_s
        while True:
            await self._freed_one(min(until, elapsed_s() + self.FREED_S))
            if self._idle:
                return self._idle.pop()
            if self._open < self.CONNECTIONS:
                self._open += 1
                try:
                    return await self._new()
                except BaseException as error:
                    self._close(None)
                    if not isinstance(error, Outage) or not self._open or elapsed_s() >= until:
                        raise
                    self._most, self._fewer_until = self._open, elapsed_s() + self.FEWER_S
            elif elapsed_s() >= until:
                raise Outage("all connections are taken", "no connection free")

    async def _freed_one(self, until: float) -> None:
        """Returns when there is one to use, or there may be one more, and at that time in any case."""
        try:
            async with asyncio.timeout_at(until):
                while not self._any():
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            pass

    def _any(self) -> bool:
        """Whether there is one to use, or there may be one more."""
        now = elapsed_s()
        for connection in [c for c in self._idle if not c.usable or now - c.used_at > self.IDLE_S]:
            self._idle.remove(connection)
            self._close(connection)
        if now >= self._fewer_until:
            self._most = self.CONNECTIONS
        return bool(self._idle) or self._open < self._most

    async def _new(self) -> SmtpConnection:
        if self._name is None:
            self._name = await asyncio.to_thread(host_name)  # may ask the DNS
        return await connect(self._settings, self._name)

    def _give_back(self, connection: SmtpConnection) -> None:
        if connection.usable:
            connection.used_at = elapsed_s()
            self._idle.append(connection)
            self._freed.set()
        else:
            self._close(connection)

    def _close(self, connection: SmtpConnection | None) -> None:
        if connection is not None:
            connection.close()
        self._open -= 1
        self._freed.set()
