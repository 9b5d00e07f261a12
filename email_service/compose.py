"""Letters as they go out: subject, text and HTML from templates, and an identity that stays the same."""

import uuid
from email.message import EmailMessage
from email.utils import parseaddr

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from email_service.state import Addressed, Kind
from runtime.service import RefusedForGood
from schemas.addresses import address

_TEMPLATES = Environment(
    loader=PackageLoader("email_service"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LETTERS = uuid.UUID("3b0d7c55-9a0e-5b7e-8e1f-5a1f2c9d7e11")
_SUBJECTS = {
    Kind.VALIDATED: "Your order {id} is confirmed",
    Kind.FAILED: "Your order {id} could not be accepted",
    Kind.SHIPPED: "Your order {id} is on its way",
}


def message_id(order_id: str, kind: Kind, domain: str) -> str:
    """The Message-ID (RFC 5322, 3.6.4) of the letter of a kind for an order: a letter sent again is the same letter."""
    return f"<{uuid.uuid5(_LETTERS, f'{kind}/{order_id}')}@{domain}>"


def compose(addressed: Addressed, sender: str) -> EmailMessage:
    """The letter. Raises `RefusedForGood` if it has no kind or its customer no address to write to."""
    letter, customer = addressed.letter, addressed.customer
    if letter.kind is None:
        raise RefusedForGood("the letter has no kind")
    message = EmailMessage()
    try:
        message["To"] = address(customer.email, f"{customer.first_name} {customer.last_name}".strip())
        message["From"] = sender
        message["Subject"] = _SUBJECTS[letter.kind].format(id=letter.order.id)
    except ValueError as error:
        raise RefusedForGood(f"no letter can be addressed to customer {customer.id}: {error}") from None
    message["Message-ID"] = message_id(letter.order.id, letter.kind, parseaddr(sender)[1].partition("@")[2])
    message["X-Order-Id"] = letter.order.id
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday notice is to answer it
    known = {"order": letter.order, "payment": letter.payment, "customer": customer}
    message.set_content(_TEMPLATES.get_template(f"{letter.kind}.txt").render(known))
    message.add_alternative(_TEMPLATES.get_template(f"{letter.kind}.html").render(known), subtype="html")
    return message
