"""Malformed addresses are rejected by every reader, in the same way on every Python."""

import pytest
from pydantic import ValidationError

from email_service.emails import compose
from email_service.state import AddressedEmail, Email, EmailKind
from product_subscribers.notifications.settings import ProductNotificationsSettings
from runtime.common.settings import Settings
from schemas.addresses import address
from schemas.messages import Customer
from tests.samples import order

NONE = [
    "",
    "franz",
    "franz@",
    "@example.org",
    "a b@example.org",
    "a@b, c@d",
    "<a@b>",
    "(",
    "a@(",
    "a@[",
    "ž@b",
    "a@b\n",
]


@pytest.mark.parametrize("email", NONE)
def test_a_malformed_address_is_rejected(email):
    with pytest.raises(ValueError, match="is not an e-mail address"):
        address(email)


@pytest.mark.parametrize("email", ["franz@example.org", "f.k+orders@b.example", '"franz kafka"@example.org', "f@[::1]"])
def test_a_valid_address_is_unchanged(email):
    assert (address(email, "Franz Kafka").addr_spec, address(email).display_name) == (email, "")


@pytest.mark.parametrize("email", NONE)
def test_an_email_to_a_malformed_address_is_rejected(email):
    franz = Customer(id=15, first_name="Franz", last_name="Kafka", email=email, address="Praha", level="gold")
    with pytest.raises(ValueError, match="is not an e-mail address"):
        compose(
            AddressedEmail(email=Email(kind=EmailKind.SHIPPED, order=order()), customer=franz), "orders@example.com"
        )


@pytest.mark.parametrize("email", NONE)
def test_malformed_notification_addresses_in_settings_are_rejected(email):
    with pytest.raises(ValidationError, match=r"product_notifications_to\n.* is no address such as shop@example.org"):
        ProductNotificationsSettings(product_notifications_to=(email,))


@pytest.mark.parametrize("email", ["", "franz", "franz@", "a@b, c@d", "(", "a@(", "a@["])
def test_a_malformed_sender_in_settings_is_rejected(email):
    with pytest.raises(ValidationError, match=r"mail_from\n.* is no address such as Orders <orders@example.com>"):
        Settings(mail_from=email)


@pytest.mark.parametrize(
    "sender", ["o@example.com", "Orders <o@example.com>", '"Orders, here" <o@example.com>', "<o@b>"]
)
def test_a_sender_may_have_a_name(sender):
    assert Settings(mail_from=sender).mail_from == sender
