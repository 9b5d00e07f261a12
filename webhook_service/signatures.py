"""Secrets and signatures of webhooks, by the Standard Webhooks specification. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

A secret is derived from a key of the environment, the id of its subscription, and its version. So no secret is stored.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence

from pydantic import SecretStr

PREFIX = "whsec_"
_KEY_ID_DIGITS = 12


class UnknownKey(Exception):
    """The key of a secret is not among those of the environment."""


class SecretKeys:
    """The keys from which secrets derive: the first makes new ones, the others are still valid.

    >>> keys = SecretKeys([SecretStr("k" * 32)])
    >>> first, second = (keys.secret(keys.current, "shop", version) for version in (1, 2))
    >>> len(first), first == keys.secret(keys.current, "shop", 1), first == second
    (32, True, False)
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = {_key_id(key): key for key in keys}
        self.current = next(iter(self._keys), None)
        """Id of the key that makes new secrets; `None` without a key."""

    def secret(self, key_id: str | None, subscription: str, version: int) -> bytes:
        """The secret of a version, 32 bytes. Raises `UnknownKey`."""
        key = self._keys.get(key_id or "")
        if key is None:
            raise UnknownKey(f"the key {key_id} is not in WEBHOOK_KEYS: add it again, or replace the secret")
        return _hmac(key, f"secret/{version}/{subscription}")


def to_text(secret: bytes) -> str:
    """The secret as receivers are given it."""
    return PREFIX + base64.b64encode(secret).decode()


def signatures(secrets: Iterable[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature with each secret.

    Arguments:
        secrets: the valid ones, newest first.
        webhook_id: the header `webhook-id`.
        timestamp: the header `webhook-timestamp`, seconds since 1970.
        body: as it is sent.
    """
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret, signed, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _key_id(key: SecretStr) -> str:
    return _hmac(key, "id").hex()[:_KEY_ID_DIGITS]


def _hmac(key: SecretStr, text: str) -> bytes:
    return hmac.digest(key.get_secret_value().encode(), text.encode(), hashlib.sha256)
