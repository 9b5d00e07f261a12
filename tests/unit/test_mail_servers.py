"""Handling of each reply of a mail server: every line of docs/reference/mail-servers.md, against a scripted server."""

import re
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

import pytest
import trustme

from runtime.common.settings import Settings
from runtime.errors import Outage, SideEffectDeferred, SideEffectError, SideEffectRejected
from runtime.mail.connections import SmtpConnection
from runtime.mail.mailer import SmtpMailer
from runtime.mail.replies import Misconfiguration
from tests.smtp_script import CUT, HANG, Script

# ruff: noqa: E501 - each line of the document on a line

DOC = Path(__file__).parents[2] / "docs" / "reference" / "mail-servers.md"
SOON_S = 0.3
"""Timeout for servers that do not answer; others have a minute."""

FOLLOWS = {
    SideEffectRejected: "dead letter",
    Misconfiguration: "outage, needs an operator",
    Outage: "outage",
    SideEffectDeferred: "retried",
}


@dataclass(frozen=True)
class Case:
    """A line of the document: the step, what the server does, and what follows."""

    step: str
    does: str
    follows: str
    script: dict = field(default_factory=dict)
    summary: str = ""
    """The summary in logs and `/readyz`."""
    slow: bool = False
    settings: dict = field(default_factory=dict)
    tls: str = ""
    to: str = "franz@example.org"
    trusted: bool = True
    """Whether the server has accepted an e-mail before."""
    heard: str = ""
    """A command that the server has received."""


def ehlo(*extensions):
    return "\r\n".join(["250-script.example", *(f"250-{e}" for e in extensions), "250 HELP"])


OPERATOR = FOLLOWS[Misconfiguration]
LOGIN = {"smtp_user": "shop", "smtp_password": "secret"}
WITH_AUTH = {"EHLO": ehlo("AUTH PLAIN LOGIN")}
TLS = {"smtp_security": "starttls", "smtp_host": "localhost"}

CASES = [
    Case("connect", "nobody listens", "outage", summary="connect failed", settings={"smtp_port": 1}),
    Case("connect", "no such host", "outage", summary="connect failed", settings={"smtp_host": "no.such.invalid"}),
    Case("banner", "220 in several lines", "sent", {"banner": "220-Welcome\r\n220-to\r\n220 script.example"}),
    Case("banner", "421 too many connections, or shutting down", "outage", {"banner": "421 4.3.2 no"}, "connect 421 4.3.2"),
    Case("banner", "554 no service here", OPERATOR, {"banner": "554 5.3.2 no"}, "connect 554 5.3.2"),
    Case("banner", "cut", "outage", {"banner": CUT}, "connect failed"),
    Case("banner", "none in `SMTP_TIMEOUT_S`", "outage", {"banner": HANG}, "connect timeout", slow=True),
    Case("banner", "not SMTP (HTTP, SSH, TLS)", "outage", {"banner": "SSH-2.0-OpenSSH_9.2"}, "connect bad reply"),
    Case("EHLO", "refused with 5xx: HELO follows", "sent", {"EHLO": "502 5.5.1 unknown"}, heard="HELO"),
    Case("EHLO", "refused with 5xx, and HELO too", OPERATOR, {"EHLO": "550 no", "HELO": "550 5.7.1 no"}, "EHLO 550 5.7.1"),
    Case("EHLO", "4xx", "outage", {"EHLO": "451 4.3.0 later"}, "EHLO 451 4.3.0"),
    Case("EHLO", "cut", "outage", {"EHLO": CUT}, "EHLO connection lost"),
    Case("EHLO", "no answer", "outage", {"EHLO": HANG}, "EHLO timeout", slow=True),
    Case("EHLO", "garbage", "outage", {"EHLO": "hello yourself"}, "EHLO bad reply"),
    Case("EHLO", "no PIPELINING, SIZE, 8BITMIME: not needed", "sent", {"EHLO": ehlo()}),
    Case("STARTTLS", "not offered, though `SMTP_SECURITY=starttls`", OPERATOR, {}, "STARTTLS not offered", settings=TLS),
    Case("STARTTLS", "454 temporarily unavailable", "outage", {"EHLO": ehlo("STARTTLS"), "STARTTLS": "454 4.7.0 no"}, "STARTTLS 454 4.7.0", settings=TLS),
    Case("STARTTLS", "an untrusted certificate", OPERATOR, {"EHLO": ehlo("STARTTLS")}, "STARTTLS certificate", settings=TLS, tls="unknown"),
    Case("STARTTLS", "a certificate signed by `SMTP_CA_FILE`", "sent", {"EHLO": ehlo("STARTTLS")}, settings=TLS, tls="known"),
    Case("STARTTLS", "cut", "outage", {"EHLO": ehlo("STARTTLS"), "STARTTLS": CUT}, "STARTTLS connection lost", settings=TLS),
    Case("AUTH", "not offered, though `SMTP_USER` is set", OPERATOR, {}, "AUTH SMTPException", settings=LOGIN),
    Case("AUTH", "535 wrong name or password", OPERATOR, {**WITH_AUTH, "AUTH": "535 5.7.8 no"}, "AUTH 535 5.7.8", settings=LOGIN),
    Case("AUTH", "534 another authentication mechanism is required", OPERATOR, {**WITH_AUTH, "AUTH": "534 5.7.9 no"}, "AUTH 534 5.7.9", settings=LOGIN),
    Case("AUTH", "454 temporarily unavailable", "outage", {**WITH_AUTH, "AUTH": "454 4.7.0 later"}, "AUTH 454 4.7.0", settings=LOGIN),
    Case("AUTH", "cut", "outage", {**WITH_AUTH, "AUTH": CUT}, "AUTH connection lost", settings=LOGIN),
    Case("MAIL", "450, 451, 452 (no room)", "outage", {"MAIL": "452 4.3.1 disk full"}, "MAIL 452 4.3.1"),
    Case("MAIL", "421", "outage", {"MAIL": "421 4.3.2 shutting down"}, "MAIL 421 4.3.2", trusted=False),
    Case("MAIL", "550, 553, 554: the sender is refused", OPERATOR, {"MAIL": "550 5.1.8 sender rejected"}, "MAIL 550 5.1.8"),
    Case("MAIL", "530: log in, or encrypt, first", OPERATOR, {"MAIL": "530 5.7.0 log in first"}, "MAIL 530 5.7.0"),
    Case("MAIL", "552: the e-mail is too large", "dead letter", {"MAIL": "552 5.3.4 too large"}, "MAIL 552 5.3.4"),
    Case("MAIL", "its SIZE is smaller than the e-mail", "dead letter", {"EHLO": ehlo("SIZE 100")}, "too large"),
    Case("MAIL", "SIZE without a number, or 0: no limit", "sent", {"EHLO": ehlo("SIZE 0")}, heard="SIZE="),
    Case("MAIL", "cut", "outage", {"MAIL": CUT}, "MAIL connection lost", trusted=False),
    Case("MAIL", "no answer", "outage", {"MAIL": HANG}, "MAIL timeout", slow=True),
    Case("MAIL", "garbage", "outage", {"MAIL": "two hundred and fifty"}, "MAIL bad reply"),
    Case("RCPT", "250 in several lines, 251, 252", "sent", {"RCPT": "251-will\r\n251 forward"}),
    Case("RCPT", "450: greylisting, or the recipient's domain does not answer", "retried", {"RCPT": "450 4.7.1 greylisted"}, "RCPT 450 4.7.1"),
    Case("RCPT", "451, 452: no room, too many", "retried", {"RCPT": "452 4.2.2 mailbox full"}, "RCPT 452 4.2.2"),
    Case("RCPT", "421", "retried", {"RCPT": "421 4.4.5 too busy"}, "RCPT 421 4.4.5", trusted=False),
    Case("RCPT", "550, 551, 553: no such recipient", "dead letter", {"RCPT": "550 5.1.1 no such user"}, "RCPT 550 5.1.1"),
    Case("RCPT", "5xx 5.7.x by policy, after it accepted another recipient within the hour", "dead letter", {"RCPT": "554 5.7.1 blocked"}, "RCPT 554 5.7.1"),
    Case("RCPT", "5xx 5.7.x by policy (relaying denied), before it accepted any recipient", OPERATOR, {"RCPT": "554 5.7.1 denied"}, "RCPT 554 5.7.1", trusted=False),
    Case("RCPT", "530: log in first", OPERATOR, {"RCPT": "530 5.7.0 log in first"}, "RCPT 530 5.7.0"),
    Case("RCPT", "503: out of order", OPERATOR, {"RCPT": "503 5.5.1 MAIL first"}, "RCPT 503 5.5.1"),
    Case("RCPT", "cut", "retried", {"RCPT": CUT}, "RCPT connection lost", trusted=False),
    Case("RCPT", "no answer", "retried", {"RCPT": HANG}, "RCPT timeout", slow=True),
    Case("RCPT", "garbage", "retried", {"RCPT": "999 what"}, "RCPT bad reply"),
    Case("RCPT", "no SMTPUTF8, and an address beyond ASCII before the @", "dead letter", {"EHLO": ehlo()}, "no SMTPUTF8", to="jürgen@example.org"),
    Case("RCPT", "no SMTPUTF8, and a domain beyond ASCII", "sent", {"EHLO": ehlo()}, to="max@bücher.example", heard="<max@xn--bcher-kva.example>"),
    Case("RCPT", "SMTPUTF8, and an address beyond ASCII", "sent", {}, to="jürgen@bücher.example", heard="<jürgen@xn--bcher-kva.example>"),
    Case("RCPT", "553 5.6.7: an address beyond ASCII, in spite of SMTPUTF8", "dead letter", {"RCPT": "553 5.6.7 ASCII only"}, "RCPT 553 5.6.7", to="jürgen@example.org"),
    Case("DATA", "450, 451", "retried", {"DATA": "451 4.3.0 later"}, "DATA 451 4.3.0"),
    Case("DATA", "554 no valid recipients", "dead letter", {"DATA": "554 5.5.1 none"}, "DATA 554 5.5.1"),
    Case("DATA", "250 instead of 354", "retried", {"DATA": "250 thanks"}, "DATA bad reply"),
    Case("DATA", "421", "retried", {"DATA": "421 4.3.2 shutting down"}, "DATA 421 4.3.2", trusted=False),
    Case("DATA", "cut", "retried", {"DATA": CUT}, "DATA connection lost", trusted=False),
    Case("DATA", "no answer in `SMTP_TIMEOUT_S`", "retried", {"DATA": HANG}, "DATA timeout", slow=True),
    Case("content", "another 2xx than 250", "sent", {"content": "252 probably"}),
    Case("content", "451, 452", "retried", {"content": "451 4.3.0 later"}, "DATA 451 4.3.0"),
    Case("content", "550, 554: spam, a virus", "dead letter", {"content": "554 5.7.1 spam"}, "DATA 554 5.7.1"),
    Case("content", "552: too large", "dead letter", {"content": "552 5.3.4 too large"}, "DATA 552 5.3.4"),
    Case("content", "cut: the server may have the e-mail, and gets it again", "retried", {"content": CUT}, "DATA connection lost"),
    Case("content", "no answer in ten minutes: likewise", "retried", {"content": HANG}, "DATA timeout", slow=True),
    Case("RSET", "refused: the connection is not used again", "retried", {"RCPT": "450 4.2.0 later", "RSET": "502 what"}, "RCPT 450 4.2.0"),
    Case("any", "an endless reply", "retried", {"RCPT": "250-" + "x" * 40_000}, "RCPT bad reply"),
]  # fmt: skip


def letter(to):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Orders <orders@example.com>", to, "Your order"
    message["Message-ID"] = "<1@example.com>"
    message.set_content("Grüße\n.\n..dots\n" + "long " * 30)
    return message


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_of(case, authority):
    if not case.tls:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (authority if case.tls == "known" else trustme.CA()).issue_cert("localhost").configure_cert(context)
    return context


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.step}: {case.does}")
async def test_each_reply_has_the_documented_consequence(case, authority, tmp_path, monkeypatch):
    monkeypatch.setattr(SmtpConnection, "CONTENT_TIMEOUT_S", SOON_S if case.slow else 60)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    script = Script(tls=server_of(case, authority))
    async with script.serving() as port:
        settings = {"smtp_port": port, "smtp_ca_file": tmp_path / "ca.pem", **case.settings}
        mailer = SmtpMailer(Settings(smtp_timeout_s=SOON_S if case.slow else 60, **settings))
        early = case.trusted and not case.settings and not {"banner", "EHLO"} & case.script.keys()
        if early:
            await mailer.send("before", letter("before@example.org"))
        script.answers = case.script
        if case.follows == "sent":
            await mailer.send("k", letter(case.to))
            assert script.recipients[early:] != []
        else:
            with pytest.raises(SideEffectError) as caught:
                await mailer.send("k", letter(case.to))
            assert (FOLLOWS[caught.type], caught.value.summary) == (case.follows, case.summary)
        assert not case.heard or any(case.heard in command for command in script.commands)

        if not case.settings:  # the next e-mail is sent, over a usable connection
            script.answers = {}
            script.emails.clear()
            if "EHLO" in case.script:  # the reply applies to the connection
                mailer = SmtpMailer(Settings(smtp_port=port))
            await mailer.send("k2", letter("next@example.org"))
            assert script.recipients == ["next@example.org"]
        async with mailer.lifespan(None):
            pass


def test_the_document_has_each_line_and_no_other():
    line = r"^\| (\w+) \| (.+?) \| (sent|retried|dead letter|outage[^|]*?) \|"
    rows = re.findall(line, DOC.read_text("utf-8"), re.MULTILINE)
    assert rows == [(case.step, case.does, case.follows) for case in CASES]
