"""Sends e-mails by SMTP over a small pool of connections, which are reused and replaced when they break."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import TypeVar

from runtime.common.clock import elapsed_s
from runtime.common.settings import Settings
from runtime.errors import Outage, SideEffectError, SideEffectRejected
from runtime.hosting import Host
from runtime.mail.connections import SmtpConnection, connect, host_name
from runtime.mail.envelope import Envelope, domain_of
from runtime.model.service import SideEffect
from schemas.wire import Message

M = TypeVar("M", bound=Message)

log = logging.getLogger(__name__)


class SmtpMailer:
    """Sends e-mails through the SMTP server of the settings. `side_effect` declares the side effect of a service."""

    AT_ONCE = 4
    """E-mails in flight. Providers allow a client 5 to 20 connections, for all its workers together."""
    CONNECTIONS = 2 * AT_ONCE
    """Connections at most, slow ones included (`runtime/side_effects/scheduler.py`)."""
    IDLE_S = 30.0
    """Seconds after which an unused connection is closed; servers close them after minutes."""
    FEWER_S = 60.0
    """Seconds without a further connection after the server has rejected one."""
    FREED_S = 2.0
    """Seconds to wait for a free connection. After that another one is tried even so: all may be blocked by slow
    recipients, and the server may accept it now."""
    TRUSTED_S = 3600.0
    """Seconds after an accepted recipient during which a rejection by policy concerns a recipient, not our login."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[SmtpConnection] = []
        self._open = 0
        self._max_open = self.CONNECTIONS
        self._fewer_until = 0.0
        self._freed = asyncio.Event()
        self._accepted_at = float("-inf")
        self._name: str | None = None

    def side_effect(
        self, name: str, model: type[M], compose: Callable[[M], EmailMessage], to: Callable[[M], str]
    ) -> SideEffect[M]:
        """A side effect that composes an e-mail of its payload, and sends it.

        Arguments:
            name: of the side effect.
            model: of its payload.
            compose: raises `ValueError` for a payload of which no e-mail can be made, which is rejected for good.
            to: the recipient's address; e-mails to one domain fail together.
        """

        async def perform(key: str, payload: M) -> None:
            try:
                message = compose(payload)
            except ValueError as error:
                raise SideEffectRejected(f"cannot compose the e-mail {key}: {error}", "not composable") from None
            await self.send(key, message)

        def domain(payload: M) -> str:
            return domain_of(to(payload))

        return SideEffect(name, model, perform, destination=domain, concurrency=self.AT_ONCE)

    async def send(self, key: str, message: EmailMessage) -> None:
        """Returns when the server has accepted the e-mail, which has one sender, one recipient and a Message-ID.

        Raises `SideEffectRejected` for good, `SideEffectDeferred` for this e-mail now, `Outage` for all e-mails now.
        """
        envelope = Envelope.of(message)
        while True:
            connection = await self._connection()
            reused = connection.attempts > 0
            try:
                await self._send(connection, envelope)
            except SideEffectError:
                if reused and connection.dropped:
                    continue  # the cause is the connection: it was open for too long, or had too many rejections
                raise
            finally:
                self._release(connection)
            log.debug("e-mail sent key=%s", key)
            return

    @asynccontextmanager
    async def lifespan(self, _: Host) -> AsyncIterator[None]:
        """Closes the connections at the end of the block."""
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
            raise SideEffectRejected("an address beyond ASCII, and the server lacks SMTPUTF8", "no SMTPUTF8")
        content, limit = envelope.content(utf8=utf8, eight_bit=eight_bit), connection.max_bytes
        if limit is not None and len(content) > limit:
            raise SideEffectRejected(f"the e-mail has {len(content)} bytes, the server accepts {limit}", "too large")
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
        """An idle connection, the next released one, or a new one. Raises `Outage`."""
        until = elapsed_s() + self._settings.smtp_timeout_s
        while True:
            await self._wait_for_free(min(until, elapsed_s() + self.FREED_S))
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
                    self._max_open, self._fewer_until = self._open, elapsed_s() + self.FEWER_S
            elif elapsed_s() >= until:
                raise Outage("all connections are in use", "no connection free")

    async def _wait_for_free(self, until: float) -> None:
        """Returns when a connection is idle or can be opened, at `until` at the latest."""
        try:
            async with asyncio.timeout_at(until):
                while not self._is_any_free():
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            pass

    def _is_any_free(self) -> bool:
        """Whether a connection is idle or can be opened. Closes expired ones."""
        now = elapsed_s()
        for connection in [c for c in self._idle if not c.usable or now - c.used_at > self.IDLE_S]:
            self._idle.remove(connection)
            self._close(connection)
        if now >= self._fewer_until:
            self._max_open = self.CONNECTIONS
        return bool(self._idle) or self._open < self._max_open

    async def _new(self) -> SmtpConnection:
        if self._name is None:
            self._name = await asyncio.to_thread(host_name)  # may ask the DNS
        return await connect(self._settings, self._name)

    def _release(self, connection: SmtpConnection) -> None:
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
