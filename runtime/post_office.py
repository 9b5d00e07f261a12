"""Sending letters by SMTP: one connection, used again for letters that follow soon, made anew when it breaks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

import aiosmtplib

from runtime.attempt import irrevocable
from runtime.clock import elapsed_s
from runtime.hosting import Host
from runtime.service import RefusedForGood
from runtime.settings import Settings, SmtpSecurity

log = logging.getLogger(__name__)


class _Client(aiosmtplib.SMTP):
    """Patient from where a letter might be sent twice."""

    TAKEN_S = 600.0
    """RFC 5321, 4.5.3.2.6: so long may a server take to answer for a letter. Who gives up before sends it twice."""

    async def data(self, message: str | bytes, /, *, timeout: Any = None) -> aiosmtplib.SMTPResponse:
        with irrevocable():
            return await super().data(message, timeout=self.TAKEN_S)


class PostOffice:
    """Sends letters through the SMTP server of the settings, one after the other. Its `send` is what an effect does."""

    IDLE_S = 30.0
    """After which an unused connection is not trusted any more; servers close them after minutes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: aiosmtplib.SMTP | None = None
        self._turn = asyncio.Lock()
        self._used = 0.0

    async def send(self, key: str, message: EmailMessage) -> None:
        """Returns when the server has taken the letter, which has sender, recipients and Message-ID.

        Raises `RefusedForGood` if it never will (a reply of 500 and above to recipient or letter: RFC 5321, 4.2.1; an
        address that it does not take), and whatever else goes wrong, to be tried again.
        """
        async with self._turn:
            try:
                await self._deliver(message)
            except aiosmtplib.SMTPRecipientsRefused as refused:
                codes = [error.code for error in refused.recipients]
                if min(codes) >= 500:
                    raise RefusedForGood(refused.recipients[0].message) from None
                raise
            except aiosmtplib.SMTPDataError as error:
                if error.code >= 500:
                    raise RefusedForGood(error.message) from None
                raise
            except BaseException:
                await self._hang_up()  # in the middle of something, perhaps
                raise
        log.debug("letter sent key=%s", key)

    @asynccontextmanager
    async def opened(self, _: Host) -> AsyncIterator[None]:
        """Hangs up at the end."""
        try:
            yield
        finally:
            await self._hang_up()

    async def _deliver(self, message: EmailMessage) -> None:
        if elapsed_s() - self._used > self.IDLE_S:
            await self._hang_up()
        if self._client is None or not self._client.is_connected:
            self._client = await self._connect()
        self._used = elapsed_s()
        try:
            await self._client.send_message(message)
        except aiosmtplib.SMTPNotSupported as error:  # an address beyond ASCII, a server without SMTPUTF8 (RFC 6531)
            raise RefusedForGood(str(error)) from None

    async def _connect(self) -> aiosmtplib.SMTP:
        settings = self._settings
        password = settings.smtp_password if settings.smtp_user else None
        client = _Client(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user or None,
            password=password.get_secret_value() if password else None,
            use_tls=settings.smtp_security is SmtpSecurity.TLS,
            start_tls=settings.smtp_security is SmtpSecurity.STARTTLS,
            cert_bundle=str(settings.smtp_ca_file) if settings.smtp_ca_file else None,
            timeout=settings.smtp_timeout_s,
        )
        await client.connect()
        return client

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
