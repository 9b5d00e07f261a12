"""Connections to the SMTP server: how one is made, and how a letter goes over it."""

import re
import socket

import aiosmtplib

from runtime.common.settings import Settings, SmtpSecurity
from runtime.mail.replies import Misconfigured, Step, judge, judge_error
from runtime.side_effects.attempt import irrevocable

_LINE_END = re.compile(rb"\r\n|\r|\n")
_DOT = re.compile(rb"(?m)^\.")
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class SmtpConnection:
    """One connection, greeted and logged in. Not for two letters at once.

    Arguments:
        client: what it runs on.
    """

    TAKEN_S = 600.0
    """RFC 5321, 4.5.3.2.6: so long may a server take to answer for a letter. Who gives up before sends it twice."""
    MOST_REFUSED = 5
    """Recipients refused on it, after which it is not used again: servers slow down, and then hang up on, whoever seems
    to guess addresses (Postfix after 10 and 20)."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self._client = client
        self.used_at = 0.0
        self.letters = 0
        """How many were tried on it."""
        self.refused = 0
        """Recipients that were refused."""
        self.accepted = False
        """Whether the server has taken the recipient of the letter in hand."""
        self.dropped = False
        """Whether the server closed it before it had the content of the letter in hand."""
        self._content_sent = False

    @property
    def usable(self) -> bool:
        return self._client.is_connected and self.refused < self.MOST_REFUSED

    def offers(self, extension: str) -> bool:
        """Whether the server has said that it knows it."""
        return self._client.supports_extension(extension)

    @property
    def most_bytes(self) -> int | None:
        """The size of the largest letter the server takes, if it says (RFC 1870)."""
        said = self._client.esmtp_extensions.get("size", "").strip()
        return int(said) if said.isascii() and said.isdigit() and int(said) > 0 else None

    async def send(self, sender: str, recipient: str, content: bytes, options: list[str], *, trusted: bool) -> None:
        """Returns when the server has taken it. Raises `NotTaken`.

        `options` are those of MAIL; for `trusted` see `runtime.mail.replies.judge`.
        """
        self.letters += 1
        self.accepted = self.dropped = self._content_sent = False
        encoding = "utf-8" if "SMTPUTF8" in options else "ascii"
        step = Step.MAIL
        try:
            await self._say(f"MAIL FROM:<{sender}>", *options, encoding=encoding)
            step = Step.RCPT
            await self._say(f"RCPT TO:<{recipient}>", encoding=encoding)
            self.accepted = True
            step = Step.DATA
            await self._say("DATA", hoped=3)
            await self._hand_over(content)
        except aiosmtplib.SMTPResponseException as error:
            self.refused += step is Step.RCPT
            self.dropped = error.code == 421 and not self._content_sent
            if not 400 <= error.code <= 599 or error.code == 421:
                self.close()  # what it says next belongs to nothing
            await self._reset()
            raise judge(step, error.code, error.message, trusted=trusted) from None
        except Exception as error:
            self.dropped = isinstance(error, ConnectionError) and not self._content_sent
            self.close()
            raise judge_error(step, error) from error
        except BaseException:
            self.close()  # in the middle of something
            raise

    async def _say(self, command: str, *options: str, encoding: str = "ascii", hoped: int = 2) -> None:
        """Raises `SMTPResponseException` for a reply of another first digit than `hoped` (RFC 5321, 4.3.2)."""
        words = (command, *options)
        _check(await self._client.execute_command(*(word.encode(encoding) for word in words)), hoped)

    async def _hand_over(self, content: bytes) -> None:
        """The letter itself. Not by the client's `data`, which waits as long for the go-ahead as for the answer."""
        protocol = self._client.protocol
        if protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("SmtpConnection lost")
        with irrevocable():
            self._content_sent = True
            protocol.write(_on_the_wire(content))
            _check(await protocol.read_response(timeout=self.TAKEN_S), 2)

    async def _reset(self) -> None:
        try:
            if self._client.is_connected:
                await self._client.rset()
        except Exception:  # it is not used again
            self.close()

    def close(self) -> None:
        """Hangs up."""
        self._client.close()


def _check(reply: aiosmtplib.SMTPResponse, hoped: int) -> None:
    if reply.code // 100 != hoped:
        raise aiosmtplib.SMTPResponseException(reply.code, reply.message)


def _on_the_wire(content: bytes) -> bytes:
    """RFC 5321, 4.5.2: lines end in CRLF, a dot at the beginning of one is doubled, a dot alone is the end."""
    content = _LINE_END.sub(b"\r\n", content)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    return _DOT.sub(b"..", content) + b".\r\n"


def host_name() -> str:
    """What this machine calls itself in EHLO: its name, or an address if the name cannot stand there."""
    name = socket.getfqdn()
    return name if _HOST_NAME.fullmatch(name) else "[127.0.0.1]"


async def connect(settings: Settings, name: str) -> SmtpConnection:
    """A connection, encrypted and logged in as the settings want it. Raises `Outage`."""
    client = aiosmtplib.SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        use_tls=settings.smtp_security is SmtpSecurity.TLS,
        start_tls=False,  # it is done here, so that it is known what failed
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
        raise Misconfigured("STARTTLS: the server does not offer it", "STARTTLS not offered")
    await client.starttls()


async def _greet(client: aiosmtplib.SMTP) -> None:
    """EHLO, or HELO with a server that knows no other (RFC 5321, 3.2)."""
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code < 500 or not client.is_connected:
            raise
        await client.helo()
