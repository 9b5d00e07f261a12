"""Composes e-mails from templates. The Message-ID identifies repetitions of an e-mail."""

import uuid
from datetime import datetime
from decimal import Decimal
from email.message import EmailMessage
from functools import partial

from email_service.state import AddressedEmail, Email, EmailKind
from runtime.mail import message
from runtime.mail.templates import Templates
from schemas.addresses import address
from schemas.messages import ATTEMPT_SEPARATOR, FIRST_ATTEMPT
from schemas.money import format_amount

_TEMPLATES = Templates("email_service")
_NAMESPACE = uuid.UUID("3b0d7c55-9a0e-5b7e-8e1f-5a1f2c9d7e11")
_SUBJECTS = {
    EmailKind.VALIDATED: "Your order {id} is confirmed",
    EmailKind.FAILED: "Your order {id} could not be accepted",
    EmailKind.SHIPPED: "Your order {id} is on its way",
    EmailKind.CANCELLED: "Your order {id} is cancelled",
}


def message_id(order_id: str, kind: EmailKind, domain: str, attempt: int = FIRST_ATTEMPT) -> str:
    """Message-ID of an e-mail about an order, or about a later attempt to decide it."""
    suffix = "" if attempt == FIRST_ATTEMPT else f"{ATTEMPT_SEPARATOR}{attempt}"
    return message.message_id(_NAMESPACE, f"{kind}/{order_id}{suffix}", domain)


def compose(addressed: AddressedEmail, sender: str, currency: str = "EUR") -> EmailMessage:
    """Composes the e-mail. Raises `ValueError` without a kind, or for a malformed address."""
    email, customer = addressed.email, addressed.customer
    if email.kind is None:
        raise ValueError("it has no kind")
    variables = {
        "order": email.order,
        "customer": customer,
        "money": partial(format_amount, currency=currency),
        "paid": _paid(email, currency),
        "payment": email.payment,
        "refund": email.paid is not None and email.paid > 0,
        "payments": email.payments or int(email.payment is not None),
    }
    order, domain = email.order, message.message_id_domain(sender)
    headers = {"X-Order-Id": order.id}
    if order.attempt is not None:
        headers["X-Order-Attempt"] = str(order.attempt)
    text, html = _TEMPLATES.render(email.kind, variables)
    return message.compose_email(
        to=address(customer.email),
        name=f"{customer.first_name} {customer.last_name}",
        sender=sender,
        subject=_SUBJECTS[email.kind].format(id=email.order.id),
        at=_date(email),
        message_id=message_id(order.id, email.kind, domain, order.attempt_number),
        headers=headers,
        text=text,
        html=html,
    )


def _paid(email: Email, currency: str) -> str:
    """Formats the sum paid. E-mails of earlier versions have only the payment, in any currency."""
    if email.paid is None and email.payment is not None:
        return format_amount(email.payment.amount, email.payment.ccy)
    return format_amount(email.paid or Decimal(), currency)


def _date(email: Email) -> datetime:
    """When the e-mail became due. For e-mails of earlier versions: when the order was created.

    Either is the same for every repetition.
    """
    return email.at or email.order.created_at
