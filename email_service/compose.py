"""Letters as they go out: subject, text and HTML from templates, and an identity that stays the same."""

import uuid
from datetime import datetime
from decimal import Decimal
from email.message import EmailMessage
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from email_service.state import AddressedEmail, Email, EmailKind
from runtime.errors import SideEffectRejected
from runtime.mail.message import compose_email, domain_of
from schemas.addresses import address
from schemas.money import format_amount

_TEMPLATES = Environment(
    loader=PackageLoader("email_service"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LETTERS = uuid.UUID("3b0d7c55-9a0e-5b7e-8e1f-5a1f2c9d7e11")
_SUBJECTS = {
    EmailKind.VALIDATED: "Your order {id} is confirmed",
    EmailKind.FAILED: "Your order {id} could not be accepted",
    EmailKind.SHIPPED: "Your order {id} is on its way",
}


def message_id(order_id: str, kind: EmailKind, domain: str) -> str:
    """The Message-ID (RFC 5322, 3.6.4) of the letter of a kind for an order: a letter sent again is the same letter."""
    return f"<{uuid.uuid5(_LETTERS, f'{kind}/{order_id}')}@{domain}>"


def compose(addressed: AddressedEmail, sender: str, currency: str = "EUR") -> EmailMessage:
    """The letter. Raises `SideEffectRejected` if it has no kind or its customer no address to write to."""
    letter, customer = addressed.letter, addressed.customer
    if letter.kind is None:
        raise SideEffectRejected("the letter has no kind")
    known = {
        "order": letter.order,
        "customer": customer,
        "money": partial(format_amount, currency=currency),
        "paid": _paid(letter, currency),
        "payment": letter.payment,
        "payments": letter.payments or int(letter.payment is not None),
    }
    try:
        return compose_email(
            to=address(customer.email),
            name=f"{customer.first_name} {customer.last_name}",
            sender=sender,
            subject=_SUBJECTS[letter.kind].format(id=letter.order.id),
            at=_date(letter),
            message_id=message_id(letter.order.id, letter.kind, domain_of(sender)),
            headers={"X-Order-Id": letter.order.id},
            text=_TEMPLATES.get_template(f"{letter.kind}.txt").render(known),
            html=_TEMPLATES.get_template(f"{letter.kind}.html").render(known),
        )
    except ValueError as error:
        raise SideEffectRejected(f"no letter can be addressed to customer {customer.id}: {error}") from None


def _paid(letter: Email, currency: str) -> str:
    """What was paid. A letter of an earlier version has the payment alone, in whatever currency."""
    if letter.paid is None and letter.payment is not None:
        return format_amount(letter.payment.amount, letter.payment.ccy)
    return format_amount(letter.paid or Decimal(), currency)


def _date(letter: Email) -> datetime:
    """When the letter became due. One of an earlier version does not know: then when its order was made, which at least
    stays the same however often it is sent."""
    return letter.at or letter.order.created_at
