"""Letters through a real SMTP server, from a worker on a real Kafka."""

import ssl
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from ecosystem.clients.dead_letters.redrive import redrive
from ecosystem.embedded.ports import free_ports
from email_service.emails import message_id
from email_service.state import EmailKind
from runtime.mail.mailer import SmtpMailer
from schemas.messages import Customer, CustomerLevel, Order, OrderState, Payment
from schemas.topics import BY_LEVEL, CUSTOMERS, ORDERS, ORDERS_ENRICHED, PAYMENTS
from tests.letters import READY_S, Mailbox, serving
from tests.workers import Deployment, until

FRANZ = Customer(
    id=15, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Oppelthaus, Praha", level="gold"
)


@pytest.fixture
def mailbox():
    return Mailbox()


@pytest.fixture
def server(mailbox):
    [port] = free_ports(1)
    with serving(mailbox, port):
        yield port


def order(id_="o1", state=OrderState.VALIDATED, **changes) -> Order:
    content = {"customer_id": 15, "product": "UNDERPANTS", "quantity": 3, "price": 5, **changes}
    return Order(id=id_, state=state, **content)


def paid(id_="o1") -> Payment:
    return Payment(id="Payment:1234", order_id=id_, ccy="EUR", amount=1000)


async def test_order_payment_and_customer_are_joined_in_one_email(deployment: Deployment, mailbox, server):
    await deployment.start("email", smtp_port=server)
    await deployment.send(CUSTOMERS, FRANZ)
    await deployment.send(ORDERS, order())
    await deployment.send(PAYMENTS, paid())
    await until(lambda: mailbox.letters, "a letter")

    [letter] = mailbox.letters
    assert letter["To"] == "Franz Kafka <franz@example.org>"
    assert letter["Message-ID"] == message_id("o1", EmailKind.VALIDATED, "example.com")
    assert abs(letter["Date"].datetime - datetime.now(UTC)) < timedelta(hours=1)
    for part in ("plain", "html"):
        text = letter.get_body((part,)).get_content()
        assert all(said in text for said in ("Franz Kafka", "UNDERPANTS", "Payment:1234", "1000.00 EUR", "Oppelthaus"))
    [enriched] = await deployment.values(ORDERS_ENRICHED)
    assert (enriched.id, enriched.customer_level) == ("o1", "gold")
    assert len(await deployment.values(BY_LEVEL[CustomerLevel.GOLD])) == 1


async def test_an_email_goes_only_to_its_customer_whatever_their_name(deployment: Deployment, mailbox, server):
    names = (
        f"{'x' * 75}, victim@example.org",
        '"a", b <victim@example.org>; g: ' * 20,
        "=?utf-8?q?a=2C?=",
        "a\r\nBcc: b@c",
    )
    await deployment.start("email", smtp_port=server)
    customers = [FRANZ.model_copy(update={"id": n, "first_name": name}) for n, name in enumerate(names)]
    await deployment.send(CUSTOMERS, *customers)
    await deployment.send(ORDERS, *(order(f"o{n}", OrderState.SHIPPED, customer_id=n) for n in range(len(names))))
    await until(lambda: len(mailbox.letters) == len(names), "all letters")

    assert mailbox.recipients == [["franz@example.org"]] * len(names)
    for letter in mailbox.letters:
        assert [a.addr_spec for a in letter["To"].addresses] == ["franz@example.org"]
        assert letter["Bcc"] is None


async def test_a_busy_server_is_retried_over_few_connections(deployment: Deployment, mailbox, server):
    mailbox.busy = 2
    await deployment.start("email", smtp_port=server)
    await deployment.send(CUSTOMERS, FRANZ)
    await deployment.send(ORDERS, *(order(f"o{n}", OrderState.FAILED, reasons=("no",)) for n in range(5)))
    await until(lambda: len(mailbox.letters) == 5, "five letters")

    assert len({letter["Message-ID"] for letter in mailbox.letters}) == 5
    assert mailbox.connections <= SmtpMailer.AT_ONCE


async def test_a_rejected_address_is_dead_lettered_and_delays_no_other_email(deployment: Deployment, mailbox, server):
    mailbox.refuse = {"nobody@example.org": "550 no such user"}
    await deployment.start("email", smtp_port=server)
    nobody = FRANZ.model_copy(update={"id": 16, "email": "nobody@example.org"})
    nowhere = FRANZ.model_copy(update={"id": 17, "email": "not an address"})
    await deployment.send(CUSTOMERS, FRANZ, nobody, nowhere)
    for customer, id_ in ((16, "o16"), (17, "o17"), (15, "o15")):
        await deployment.send(ORDERS, order(id_, OrderState.SHIPPED, customer_id=customer))
    await until(lambda: mailbox.of("o15"), "the letter that can be sent")

    async def aside(count):
        records = await deployment.records("email-effects.dead-letters")
        return len(records) == count and [(record.key.decode(), dict(record.headers)["error"]) for record in records]

    errors = dict(await until(lambda: aside(2), "both set aside"))
    assert errors["o16/shipped"] == b"no such user"
    assert errors["o17/shipped"] == b"cannot compose the e-mail o17/shipped: 'not an address' is not an e-mail address"

    mailbox.refuse = {}
    assert len((await redrive(deployment.settings(), "email-effects", lambda _: True)).written) == 2
    await until(lambda: mailbox.of("o16"), "the letter that can be sent by now")
    again = await until(lambda: aside(3), "the other one, again")
    assert Counter(key for key, _ in again) == {"o16/shipped": 1, "o17/shipped": 2}


async def test_no_email_is_lost_while_the_server_is_unavailable_or_the_worker_restarts(deployment: Deployment, mailbox):
    [port] = free_ports(1)
    worker = await deployment.start("email", smtp_port=port)
    await deployment.send(CUSTOMERS, FRANZ)
    await deployment.send(ORDERS, order("o1", OrderState.SHIPPED))
    await until(lambda: len(worker._member.engine.side_effects), "a letter waits")
    await deployment.stop(worker)
    with serving(mailbox, port):
        await deployment.start("email", smtp_port=port)
        await until(lambda: mailbox.letters, "the letter")

    assert len(mailbox.letters) == 1


def written_twice(mailbox) -> list[str]:
    return [id_ for id_, times in Counter(letter["Message-ID"] for letter in mailbox.letters).items() if times > 1]


async def test_no_email_is_sent_twice_during_rebalances_and_stops(deployment: Deployment, mailbox, server):
    """Nobody crashes: whoever gives a partition up waits until it has noted what the server is about to have taken."""
    mailbox.slow_s = 0.2
    settings = {"smtp_port": server, "session_timeout_s": 20}  # a machine that stalls for long is no rebalance in haste
    workers = [await deployment.start("email", name="w0", **settings)]
    await deployment.send(CUSTOMERS, FRANZ)
    names = iter(range(10**6))

    async def some(count) -> None:
        await deployment.send(ORDERS, *(order(f"o{next(names)}", OrderState.SHIPPED) for _ in range(count)))

    await some(10)
    for n in range(1, 4):
        await until(lambda: len(mailbox.letters) >= 4 * n, "letters on their way")  # noqa: B023
        workers.append(await deployment.start("email", name=f"w{n}", **settings))
        await some(5)
        await deployment.stop(workers.pop(0))
    sent = next(names)
    await until(lambda: len({letter["Message-ID"] for letter in mailbox.letters}) == sent, "all letters")
    await until(lambda: not any(len(w._member.engine.side_effects) for w in workers), "all noted")

    assert written_twice(mailbox) == []


async def test_a_slow_server_gets_each_email_once(deployment: Deployment, mailbox, server):
    mailbox.slow_s = 3.0
    worker = await deployment.start("email", smtp_port=server, smtp_timeout_s=1)
    await deployment.send(CUSTOMERS, FRANZ)
    await deployment.send(ORDERS, order("o1", OrderState.SHIPPED))
    await until(lambda: mailbox.letters, "the letter")
    await until(lambda: not len(worker._member.engine.side_effects), "it is noted")

    assert len(mailbox.letters) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_emails_are_sent_with_tls_and_login(deployment: Deployment, mailbox, tmp_path, security):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(certificate := tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    logins = []

    def authenticate(server, session, envelope, mechanism, data):
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"secret")

    tls = security == "tls"
    options = {} if tls else {"tls_context": context, "require_starttls": True}
    [port] = free_ports(1)

    class Server(Controller):
        def factory(self):
            return SMTP(mailbox, authenticator=authenticate, auth_required=True, auth_require_tls=not tls, **options)

    controller = Server(
        mailbox, hostname="localhost", port=port, ssl_context=context if tls else None, ready_timeout=READY_S
    )
    controller.start()
    try:
        await deployment.start(
            "email",
            smtp_host="localhost",
            smtp_port=port,
            smtp_security=security,
            smtp_ca_file=certificate,
            smtp_user="shop",
            smtp_password="secret",
        )
        await deployment.send(CUSTOMERS, FRANZ)
        await deployment.send(ORDERS, order("o1", OrderState.SHIPPED))
        await until(lambda: mailbox.letters, "the letter")
    finally:
        controller.stop()

    assert logins == [(b"shop", b"secret")]
