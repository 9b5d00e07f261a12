"""Letters that come to the sink of `orders up`: kept where it says, and the first of each end told once."""

import smtplib
from decimal import Decimal
from pathlib import Path

import pytest

from ecosystem.cli.up import firsts
from ecosystem.embedded.mail_server import MailSink
from email_service.compose import compose
from email_service.state import AddressedEmail, Email, EmailKind
from schemas.messages import Customer, Order, OrderState, Payment

FRANZ = Customer(id=15, first_name="Franz", last_name="Kafka", email="f@example.org", address="Praha", level="gold")
STATES = {
    EmailKind.VALIDATED: OrderState.VALIDATED,
    EmailKind.FAILED: OrderState.FAILED,
    EmailKind.SHIPPED: OrderState.SHIPPED,
}


def order(id_, kind):
    reasons = ("no stock", "too much") if kind is EmailKind.FAILED else None
    content = {"customer_id": 15, "product": "mug", "quantity": 2, "price": 5, "reasons": reasons}
    return Order(id=id_, state=STATES[kind], **content)


def letter(id_, kind):
    payment = Payment(id="p1", order_id=id_, ccy="EUR", amount=Decimal(10))
    addressed = AddressedEmail(email=Email(kind=kind, order=order(id_, kind), payment=payment), customer=FRANZ)
    return compose(addressed, "Shop <shop@example.com>")


@pytest.fixture
def known(monkeypatch):
    """What the orders service answers, by order id."""
    orders = {}

    async def look(url, order_id):
        return orders.get(order_id)

    monkeypatch.setattr(firsts, "_look", look)
    return orders


def test_letters_are_kept_and_the_first_of_each_end_is_told_once(tmp_path, known):
    said = []
    told = firsts.Firsts("http://127.0.0.1:1", said.append)
    sent = [
        ("o1", EmailKind.VALIDATED),
        ("o1", EmailKind.SHIPPED),
        ("o2", EmailKind.FAILED),
        ("o3", EmailKind.SHIPPED),
        ("o4", EmailKind.FAILED),
    ]
    known.update({id_: order(id_, kind) for id_, kind in sent})
    with MailSink(tmp_path / "mail", told.delivered) as sink, smtplib.SMTP("127.0.0.1", sink.port) as client:
        for id_, kind in sent:
            client.send_message(letter(id_, kind))
    told.report()
    told.report()

    assert [line.rsplit(" ", 1)[0] for line in said] == [
        "The first order is SHIPPED: o1, 2 × mug for customer 15. Its e-mail:",
        "The first order is FAILED (no stock; too much): o2, 2 × mug for customer 15. Its e-mail:",
    ]
    assert len(list(sink.new.iterdir())) == 5
    for line, words in zip(said, ("is on its way", "could not be accepted"), strict=True):
        assert words in Path(line.rsplit(" ", 1)[1]).read_text("ascii")


def test_an_order_that_cannot_be_looked_up_yet_is_told_later(tmp_path, known):
    said = []
    told = firsts.Firsts("http://127.0.0.1:1", said.append)
    told.delivered(letter("o1", EmailKind.SHIPPED), tmp_path / "1")
    told.report()
    known["o1"] = order("o1", EmailKind.VALIDATED)
    told.report()
    assert said == []
    known["o1"] = order("o1", EmailKind.SHIPPED)
    told.report()
    assert said == [f"The first order is SHIPPED: o1, 2 × mug for customer 15. Its e-mail: {tmp_path / '1'}"]


def test_an_order_that_stays_unknown_gives_way_to_the_next(tmp_path, known):
    said = []
    told = firsts.Firsts("http://127.0.0.1:1", said.append)
    told.delivered(letter("o1", EmailKind.SHIPPED), tmp_path / "1")
    known["o2"] = order("o2", EmailKind.SHIPPED)
    for _ in range(200):
        told.report()
        told.delivered(letter("o2", EmailKind.SHIPPED), tmp_path / "2")
    assert [line.split(": ")[1].split(",")[0] for line in said] == ["o2"]


def test_other_letters_are_nobodys_end(tmp_path, known):
    said = []
    told = firsts.Firsts("http://127.0.0.1:1", said.append)
    other = letter("o1", EmailKind.SHIPPED)
    del other["Message-ID"], other["X-Order-Id"]
    told.delivered(other, tmp_path / "1")
    told.report()
    assert said == []
