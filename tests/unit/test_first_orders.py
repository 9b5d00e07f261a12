"""The mail sink of `orders up` keeps every e-mail, and the first order of each final state is reported once."""

import smtplib
from decimal import Decimal
from pathlib import Path

import pytest

from ecosystem.cli.up import first_orders
from ecosystem.embedded.mail_server import MailSink
from email_service.emails import compose
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


def email(id_, kind):
    payment = Payment(id="p1", order_id=id_, ccy="EUR", amount=Decimal(10))
    addressed = AddressedEmail(email=Email(kind=kind, order=order(id_, kind), payment=payment), customer=FRANZ)
    return compose(addressed, "Shop <shop@example.com>")


@pytest.fixture
def known(monkeypatch):
    """What the orders service answers, by order id."""
    orders = {}

    async def look_up(url, order_id):
        return orders.get(order_id)

    monkeypatch.setattr(first_orders, "_look_up", look_up)
    return orders


def test_emails_are_kept_and_the_first_order_of_each_state_is_reported_once(tmp_path, known):
    lines = []
    firsts = first_orders.FirstOrders("http://127.0.0.1:1", lines.append)
    sent = [
        ("o1", EmailKind.VALIDATED),
        ("o1", EmailKind.SHIPPED),
        ("o2", EmailKind.FAILED),
        ("o3", EmailKind.SHIPPED),
        ("o4", EmailKind.FAILED),
    ]
    known.update({id_: order(id_, kind) for id_, kind in sent})
    with MailSink(tmp_path / "mail", firsts.on_delivered) as sink, smtplib.SMTP("127.0.0.1", sink.port) as client:
        for id_, kind in sent:
            client.send_message(email(id_, kind))
    firsts.report()
    firsts.report()

    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        "The first order is SHIPPED: o1, 2 × mug for customer 15. Its e-mail:",
        "The first order is FAILED (no stock; too much): o2, 2 × mug for customer 15. Its e-mail:",
    ]
    assert len(list(sink.new.iterdir())) == 5
    for line, words in zip(lines, ("is on its way", "could not be accepted"), strict=True):
        assert words in Path(line.rsplit(" ", 1)[1]).read_text("ascii")


def test_an_order_that_cannot_be_looked_up_yet_is_reported_later(tmp_path, known):
    lines = []
    firsts = first_orders.FirstOrders("http://127.0.0.1:1", lines.append)
    firsts.on_delivered(email("o1", EmailKind.SHIPPED), tmp_path / "1")
    firsts.report()
    known["o1"] = order("o1", EmailKind.VALIDATED)
    firsts.report()
    assert lines == []
    known["o1"] = order("o1", EmailKind.SHIPPED)
    firsts.report()
    assert lines == [f"The first order is SHIPPED: o1, 2 × mug for customer 15. Its e-mail: {tmp_path / '1'}"]


def test_an_order_that_stays_unknown_gives_way_to_the_next(tmp_path, known):
    lines = []
    firsts = first_orders.FirstOrders("http://127.0.0.1:1", lines.append)
    firsts.on_delivered(email("o1", EmailKind.SHIPPED), tmp_path / "1")
    known["o2"] = order("o2", EmailKind.SHIPPED)
    for _ in range(200):
        firsts.report()
        firsts.on_delivered(email("o2", EmailKind.SHIPPED), tmp_path / "2")
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["o2"]


def test_other_emails_are_ignored(tmp_path, known):
    lines = []
    firsts = first_orders.FirstOrders("http://127.0.0.1:1", lines.append)
    other = email("o1", EmailKind.SHIPPED)
    del other["Message-ID"], other["X-Order-Id"]
    firsts.on_delivered(other, tmp_path / "1")
    firsts.report()
    assert lines == []
