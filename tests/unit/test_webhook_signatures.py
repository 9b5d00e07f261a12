"""Secrets and signatures of webhooks: those of the specification, and derived from keys without being stored."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from runtime.common.settings import Settings
from webhook_service.settings import WebhookSettings
from webhook_service.signatures import SecretKeys, UnknownKey, signatures, to_text

SPECIFIED = {
    "secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": 1614265330,
    "body": b'{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
"""The example of the specification, which the libraries of all languages test."""

OLD, NEW = SecretStr("o" * 32), SecretStr("n" * 40)


def test_the_signature_is_that_of_the_specification():
    secret = base64.b64decode(SPECIFIED["secret"])
    signature = signatures([secret], SPECIFIED["id"], SPECIFIED["timestamp"], SPECIFIED["body"])
    assert signature == SPECIFIED["signature"]


@given(st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=5, unique=True), st.text())
def test_the_reference_implementation_accepts_each_valid_secret(secrets, text):
    body, now = text.encode(), int(time.time())
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(now)}
    headers["webhook-signature"] = signatures(secrets, "evt_1", now, body)
    for secret in secrets:
        Webhook(to_text(secret)).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(to_text(b"another")).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(to_text(secrets[0])).verify(body + b" ", headers, json_parse=False)


def test_a_secret_is_of_its_key_subscription_and_version():
    both = SecretKeys([NEW, OLD])
    derived = {
        (number, subscription, version): keys.secret(keys.current, subscription, version)
        for number, keys in enumerate((SecretKeys([OLD]), both))
        for subscription in ("a", "b", "1/a")
        for version in (1, 2, 11)
    }
    assert len(set(derived.values())) == len(derived)
    assert {len(secret) for secret in derived.values()} == {32}
    assert both.secret(SecretKeys([OLD]).current, "a", 1) == derived[0, "a", 1], "an older key is still good for it"


def test_a_removed_key_is_named_with_what_to_do():
    with pytest.raises(UnknownKey, match=r"is not in WEBHOOK_KEYS: add it again, or replace the secret"):
        SecretKeys([NEW]).secret(SecretKeys([OLD]).current, "a", 1)
    assert SecretKeys([]).current is None


def test_the_id_of_a_key_tells_nothing_of_it():
    keys = SecretKeys([OLD])
    assert keys.current is not None
    assert keys.current not in keys.secret(keys.current, "a", 1).hex()


def test_a_short_key_is_refused_without_being_shown():
    with pytest.raises(ValidationError, match="key 2 is shorter than 32 characters") as refused:
        Settings(webhook_keys=f"{'k' * 32},secretly-short").of(WebhookSettings)
    assert "secretly-short" not in repr(WebhookSettings(webhook_keys=("k" * 32,)))
    assert refused.value.errors()[0]["loc"] == ("webhook_keys",)
