"""Letters over a few connections: used again, made anew, and shared among letters."""

import asyncio
import logging
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from smtp_script import CUT, HANG, Script

from runtime.common.settings import Settings
from runtime.errors import SideEffectError, SideEffectRejected
from runtime.mail.connections import SmtpConnection
from runtime.mail.envelope import domain_of
from runtime.mail.mailer import SmtpMailer


def letter(to="franz@example.org", sender="orders@example.com", text="Hello"):
    message = EmailMessage()
    message["From"], message["To"] = sender, to
    message["Message-ID"] = f"<1@{sender.partition('@')[2]}>"
    message.set_content(text)
    return message


@pytest.fixture
async def script():
    return Script()


@pytest.fixture
async def office(script):
    async with script.serving() as port:
        office = SmtpMailer(Settings(smtp_port=port, smtp_timeout_s=60))
        async with office.opened(None):
            yield office


async def test_letters_one_after_the_other_share_a_connection(office, script):
    for n in range(20):
        await office.send("k", letter(f"x{n}@example.org"))

    assert (len(script.letters), script.connections) == (20, 1)


async def test_letters_at_a_time_have_a_few(office, script):
    await asyncio.gather(*(office.send("k", letter(f"x{n}@example.org")) for n in range(50)))

    assert len(script.letters) == 50
    assert script.connections <= SmtpMailer.CONNECTIONS


async def test_one_without_answer_does_not_hold_up_others(office, script):
    script.answers = {"RCPT": lambda command: HANG if "slow" in command else None}
    stuck = asyncio.create_task(office.send("k", letter("slow@example.org")))
    for n in range(20):
        await office.send("k", letter(f"x{n}@example.org"))

    assert not stuck.done()
    stuck.cancel()


@pytest.mark.parametrize("most", [1, 2])
async def test_a_server_that_takes_few_connections_gets_all_letters_over_those(office, script, most):
    script.most_connections = most
    await office.send("k", letter())  # else all of them come at once, and some find that there is none yet
    await asyncio.gather(*(office.send("k", letter(f"x{n}@example.org")) for n in range(30)))

    assert len(script.letters) == 31


async def test_one_without_answer_on_the_only_connection_is_passed_once_there_may_be_another(office, script):
    script.answers = {"RCPT": lambda command: HANG if "slow" in command else None}
    script.most_connections = 1
    stuck = asyncio.create_task(office.send("k", letter("slow@example.org")))
    while not script.attempts:
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(office.send("k", letter()))
    while script.connections < 2:  # it was refused: there is one in all
        await asyncio.sleep(0.01)
    script.most_connections = 2
    async with asyncio.timeout(30):
        await waiting

    assert not stuck.done()
    stuck.cancel()


async def test_a_connection_that_the_server_closed_meanwhile_is_made_anew(office, script):
    await office.send("k", letter())
    script.answers = {"MAIL": lambda _: next(answers, None)}
    answers = iter([CUT, None, "421 4.4.2 idle for too long", None])
    await office.send("k", letter())
    await office.send("k", letter())

    assert (len(script.letters), script.connections) == (3, 3)


async def test_a_connection_on_which_several_were_refused_is_given_up(office, script):
    script.answers = {"RCPT": lambda command: "550 5.1.1 nobody" if "nobody" in command else None}
    for _ in range(SmtpConnection.MOST_REFUSED):
        with pytest.raises(SideEffectRejected, match="nobody"):
            await office.send("k", letter("nobody@example.org"))
    await office.send("k", letter())

    assert (len(script.letters), script.connections) == (1, 2)


async def test_a_letter_to_nobody_or_to_several_is_refused(office, script):
    several = letter()
    several["Cc"] = "mallory@example.net"
    for message in (several, letter("")):
        with pytest.raises(SideEffectRejected, match="one of each"):
            await office.send("k", message)
    assert script.commands == []


async def test_what_arrives_is_what_was_written_for_every_kind_of_server(office, script):
    text = "Grüße\n.\n..\n.dot\n" + "end\n" * 3
    for offers in (None, "250 nothing"):  # 8BITMIME and SMTPUTF8, or neither
        script.answers = {} if offers is None else {"EHLO": offers}
        await office.send("k", letter("max@bücher.example", "orders@läden.example", text))
        async with office.opened(None):
            pass
    for to, content in script.letters:
        raw = content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        message = message_from_bytes(raw, policy=policy.default)
        assert to == message["To"].addresses[0].addr_spec == "max@xn--bcher-kva.example"
        assert message["From"].addresses[0].addr_spec == "orders@xn--lden-loa.example"
        assert message["Message-ID"] == "<1@xn--lden-loa.example>"
        assert message.get_content().replace("\r\n", "\n") == text
    assert not script.letters[0][1].isascii()
    assert script.letters[1][1].isascii()


@pytest.mark.parametrize("domain", ["a" * 64 + "ü.example", "ü" * 300])
async def test_a_domain_that_cannot_be_one_is_refused(office, domain):
    with pytest.raises(SideEffectRejected, match="domain"):
        await office.send("k", letter(f"x@{domain}"))


async def test_what_logs_and_readiness_say_names_nobody(office, script, caplog):
    script.answers = {"RCPT": "450 4.1.2 <franz@example.org>: Franz's domain is not found"}
    with caplog.at_level(logging.DEBUG, "runtime"), pytest.raises(SideEffectError) as caught:
        await office.send("k", letter())

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
