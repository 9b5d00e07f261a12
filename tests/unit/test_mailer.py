"""E-mails over a pool of connections: reused, replaced, and shared."""

import asyncio
import logging
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from runtime.common.settings import Settings
from runtime.errors import SideEffectError, SideEffectRejected
from runtime.mail.connections import SmtpConnection
from runtime.mail.envelope import domain_of
from runtime.mail.mailer import SmtpMailer
from schemas.wire import Message
from tests.smtp_script import CUT, HANG, Script


def email(to="franz@example.org", sender="orders@example.com", text="Hello"):
    message = EmailMessage()
    message["From"], message["To"] = sender, to
    message["Message-ID"] = f"<1@{sender.partition('@')[2]}>"
    message.set_content(text)
    return message


@pytest.fixture
async def script():
    return Script()


@pytest.fixture
async def mailer(script):
    async with script.serving() as port:
        mailer = SmtpMailer(Settings(smtp_port=port, smtp_timeout_s=60))
        async with mailer.lifespan(None):
            yield mailer


async def test_sequential_e_mails_share_a_connection(mailer, script):
    for n in range(20):
        await mailer.send("k", email(f"x{n}@example.org"))

    assert (len(script.emails), script.connections) == (20, 1)


async def test_concurrent_e_mails_use_a_few_connections(mailer, script):
    await asyncio.gather(*(mailer.send("k", email(f"x{n}@example.org")) for n in range(50)))

    assert len(script.emails) == 50
    assert script.connections <= SmtpMailer.CONNECTIONS


async def test_an_e_mail_without_a_reply_does_not_delay_others(mailer, script):
    script.answers = {"RCPT": lambda command: HANG if "slow" in command else None}
    stuck = asyncio.create_task(mailer.send("k", email("slow@example.org")))
    for n in range(20):
        await mailer.send("k", email(f"x{n}@example.org"))

    assert not stuck.done()
    stuck.cancel()


@pytest.mark.parametrize("most", [1, 2])
async def test_a_server_that_accepts_few_connections_gets_all_e_mails_over_them(mailer, script, most):
    script.most_connections = most
    await mailer.send("k", email())  # otherwise all connect at once, and some find no connection
    await asyncio.gather(*(mailer.send("k", email(f"x{n}@example.org")) for n in range(30)))

    assert len(script.emails) == 31


async def test_a_second_connection_is_tried_when_the_only_one_is_blocked(mailer, script):
    script.answers = {"RCPT": lambda command: HANG if "slow" in command else None}
    script.most_connections = 1
    stuck = asyncio.create_task(mailer.send("k", email("slow@example.org")))
    while not script.attempts:
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(mailer.send("k", email()))
    while script.connections < 2:  # it was rejected: there is one in total
        await asyncio.sleep(0.01)
    script.most_connections = 2
    async with asyncio.timeout(30):
        await waiting

    assert not stuck.done()
    stuck.cancel()


async def test_a_connection_closed_by_the_server_is_replaced(mailer, script):
    await mailer.send("k", email())
    script.answers = {"MAIL": lambda _: next(answers, None)}
    answers = iter([CUT, None, "421 4.4.2 idle for too long", None])
    await mailer.send("k", email())
    await mailer.send("k", email())

    assert (len(script.emails), script.connections) == (3, 3)


async def test_a_connection_with_several_rejections_is_replaced(mailer, script):
    script.answers = {"RCPT": lambda command: "550 5.1.1 nobody" if "nobody" in command else None}
    for _ in range(SmtpConnection.MAX_REJECTED_RECIPIENTS):
        with pytest.raises(SideEffectRejected, match="nobody"):
            await mailer.send("k", email("nobody@example.org"))
    await mailer.send("k", email())

    assert (len(script.emails), script.connections) == (1, 2)


async def test_an_e_mail_without_exactly_one_recipient_is_rejected(mailer, script):
    several = email()
    several["Cc"] = "mallory@example.net"
    for message in (several, email("")):
        with pytest.raises(SideEffectRejected, match="one sender and one recipient"):
            await mailer.send("k", message)
    assert script.commands == []


async def test_the_content_arrives_unchanged_whatever_the_server_supports(mailer, script):
    text = "Grüße\n.\n..\n.dot\n" + "end\n" * 3
    for offers in (None, "250 nothing"):  # 8BITMIME and SMTPUTF8, or neither
        script.answers = {} if offers is None else {"EHLO": offers}
        await mailer.send("k", email("max@bücher.example", "orders@läden.example", text))
        async with mailer.lifespan(None):
            pass
    for to, content in script.emails:
        raw = content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        message = message_from_bytes(raw, policy=policy.default)
        assert to == message["To"].addresses[0].addr_spec == "max@xn--bcher-kva.example"
        assert message["From"].addresses[0].addr_spec == "orders@xn--lden-loa.example"
        assert message["Message-ID"] == "<1@xn--lden-loa.example>"
        assert message.get_content().replace("\r\n", "\n") == text
    assert not script.emails[0][1].isascii()
    assert script.emails[1][1].isascii()


@pytest.mark.parametrize("domain", ["a" * 64 + "ü.example", "ü" * 300])
async def test_an_invalid_domain_is_rejected(mailer, domain):
    with pytest.raises(SideEffectRejected, match="domain"):
        await mailer.send("k", email(f"x@{domain}"))


async def test_logs_and_readiness_contain_no_addresses(mailer, script, caplog):
    script.answers = {"RCPT": "450 4.1.2 <franz@example.org>: Franz's domain is not found"}
    with caplog.at_level(logging.DEBUG, "runtime"), pytest.raises(SideEffectError) as caught:
        await mailer.send("k", email())

    assert caught.value.summary == "RCPT 450 4.1.2"
    assert "ranz" not in caplog.text


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("franz@Example.ORG", "example.org"),
        ('"a@b"@example.org.', "example.org"),
        ("nobody", "nobody"),
        ("", ""),
    ],
)
def test_the_domain_of_an_address(address, domain):
    assert domain_of(address) == domain


class Note(Message):
    to: str


def compose(note):
    if "@" not in note.to:
        raise ValueError(f"{note.to!r} is no address")
    return email(note.to)


async def test_a_side_effect_composes_and_sends_its_e_mail(mailer, script):
    effect = mailer.side_effect("note", Note, compose, to=lambda note: note.to)
    await effect.perform("k", Note(to="franz@Example.org"))

    assert len(script.emails) == 1
    assert effect.destination(Note(to="franz@Example.org")) == "example.org"
    assert (effect.name, effect.concurrency) == ("note", SmtpMailer.AT_ONCE)


async def test_an_e_mail_that_cannot_be_composed_is_rejected_by_its_key_and_not_logged_with_its_address(mailer, script):
    effect = mailer.side_effect("note", Note, compose, to=lambda note: note.to)
    with pytest.raises(
        SideEffectRejected, match="cannot compose the e-mail o1/shipped: 'nobody' is no address"
    ) as error:
        await effect.perform("o1/shipped", Note(to="nobody"))

    assert "nobody" not in error.value.summary
    assert not script.emails
