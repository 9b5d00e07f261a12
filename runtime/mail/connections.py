"""Connections to the SMTP server: connecting, logging in, and sending one e-mail at a time."""

import re
import socket

import aiosmtplib

from runtime.common.settings import Settings, SmtpSecurity
from runtime.mail.replies import Misconfiguration, Step, judge, judge_error
from runtime.side_effects.attempt import irrevocable

_LINE_END = re.compile(rb"\r\n|\r|\n")
_DOT = re.compile(rb"(?m)^\.")
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class SmtpConnection:
    """One connection, greeted and logged in, for one e-mail at a time.

    Relies on aiosmtplib's `SMTP.protocol`, with `write` and `read_response`, and on `esmtp_extensions`.

    Arguments:
        client: a connected client.
    """

    CONTENT_TIMEOUT_S = 600.0
    """Seconds that a server may take to accept the content (RFC 5321, 4.5.3.2.6). A client that waits less sends the
    e-mail twice."""
    MAX_REJECTED_RECIPIENTS = 5
    """Rejected recipients after which the connection is not reused: servers slow down, then disconnect, clients that
    seem to guess addresses (Postfix after 10 and 20)."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self._client = client
        self.used_at = 0.0
        self.attempts = 0
        """E-mails that were tried on this connection."""
        self.rejected_recipients = 0
        self.accepted = False
        """Whether the server has accepted the recipient of the current e-mail."""
        self.dropped = False
        """Whether the server closed the connection before it had the content of the current e-mail."""
        self._content_sent = False

    @property
    def usable(self) -> bool:
        return self._client.is_connected and self.rejected_recipients < self.MAX_REJECTED_RECIPIENTS

    def offers(self, extension: str) -> bool:
        """Whether the server supports an SMTP extension."""
        return self._client.supports_extension(extension)

    @property
    def max_bytes(self) -> int | None:
        """Bytes of the largest e-mail that the server accepts, if it announces a limit (RFC 1870)."""
        size = self._client.esmtp_extensions.get("size", "").strip()
        return int(size) if size.isascii() and size.isdigit() and int(size) > 0 else None

    async def send(self, sender: str, recipient: str, content: bytes, options: list[str], *, trusted: bool) -> None:
        """Returns when the server has accepted the e-mail.

        Arguments:
            sender: address.
            recipient: address.
            content: the e-mail.
            options: parameters of MAIL.
            trusted: see `runtime.mail.replies.judge`.

        Raises:
            SideEffectError: what `judge` and `judge_error` make of the failure.
        """
        self.attempts += 1
        self.accepted = self.dropped = self._content_sent = False
        encoding = "utf-8" if "SMTPUTF8" in options else "ascii"
        step = Step.MAIL
        try:
            await self._command(f"MAIL FROM:<{sender}>", *options, encoding=encoding)
            step = Step.RCPT
            await self._command(f"RCPT TO:<{recipient}>", encoding=encoding)
            self.accepted = True
            step = Step.DATA
            await self._command("DATA", expected=3)
            await self._send_content(content)
        except aiosmtplib.SMTPResponseException as error:
            self.rejected_recipients += step is Step.RCPT
            self.dropped = error.code == 421 and not self._content_sent
            if not 400 <= error.code <= 599 or error.code == 421:
                self.close()  # later replies could not be assigned to commands
            await self._reset()
            raise judge(step, error.code, error.message, trusted=trusted) from None
        except Exception as error:
            self.dropped = isinstance(error, ConnectionError) and not self._content_sent
            self.close()
            raise judge_error(step, error) from error
        except BaseException:
            self.close()  # cancelled in the middle of a dialogue
            raise

    async def _command(self, command: str, *options: str, encoding: str = "ascii", expected: int = 2) -> None:
        """Raises `SMTPResponseException` unless the reply begins with the digit `expected` (RFC 5321, 4.3.2)."""
        words = (command, *options)
        _check(await self._client.execute_command(*(word.encode(encoding) for word in words)), expected)

    async def _send_content(self, content: bytes) -> None:
        """Sends the content. The client's own `data` has one timeout for the reply 354 and for the final one."""
        protocol = self._client.protocol
        if protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("connection lost")
        with irrevocable():
            self._content_sent = True
            protocol.write(_escaped(content))
            _check(await protocol.read_response(timeout=self.CONTENT_TIMEOUT_S), 2)

    async def _reset(self) -> None:
        try:
            if self._client.is_connected:
                await self._client.rset()
        except Exception:  # the connection is in an unknown state
            self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


def _check(reply: aiosmtplib.SMTPResponse, expected: int) -> None:
    if reply.code // 100 != expected:
        raise aiosmtplib.SMTPResponseException(reply.code, reply.message)


def _escaped(content: bytes) -> bytes:
    """The content for DATA: lines end in CRLF, a leading dot is doubled, a single dot ends it (RFC 5321, 4.5.2)."""
    content = _LINE_END.sub(b"\r\n", content)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    return _DOT.sub(b"..", content) + b".\r\n"


def host_name() -> str:
    """The name of this host for EHLO: its domain name, or an address if that name is not valid there."""
    name = socket.getfqdn()
    return name if _HOST_NAME.fullmatch(name) else "[127.0.0.1]"


async def connect(settings: Settings, name: str) -> SmtpConnection:
    """Opens a connection, encrypted and logged in according to the settings. Raises `Outage`."""
    client = aiosmtplib.SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        use_tls=settings.smtp_security is SmtpSecurity.TLS,
        start_tls=False,  # done below, so that an error names its step
        cert_bundle=str(settings.smtp_ca_file) if settings.smtp_ca_file else None,
        timeout=settings.smtp_timeout_s,
        local_hostname=name,
    )
    step = Step.CONNECT
    try:
        await client.connect()
        step = Step.EHLO
        await _greet(client)
        if settings.smtp_security is SmtpSecurity.STARTTLS:
            step = Step.STARTTLS
            await _encrypt(client)
            step = Step.EHLO
            await _greet(client)
        if settings.smtp_user:
            step = Step.AUTH
            password = settings.smtp_password
            await client.login(settings.smtp_user, password.get_secret_value() if password else "")
    except Exception as error:
        client.close()
        raise judge_error(step, error) from error
    except BaseException:
        client.close()
        raise
    return SmtpConnection(client)


async def _encrypt(client: aiosmtplib.SMTP) -> None:
    if not client.supports_extension("starttls"):
        raise Misconfiguration("STARTTLS: the server does not offer it", "STARTTLS not offered")
    await client.starttls()


async def _greet(client: aiosmtplib.SMTP) -> None:
    """Sends EHLO, or HELO to a server that does not know EHLO (RFC 5321, 3.2)."""
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code < 500 or not client.is_connected:
            raise
        await client.helo()
