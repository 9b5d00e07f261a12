"""Tokens for SASL OAUTHBEARER, from a command or a token endpoint, renewed before they expire."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

from runtime.common.settings import Settings

log = logging.getLogger(__name__)

_TIMEOUT_S = 15.0
"""Seconds for a command or an endpoint to answer. A client waits for a token before it can connect."""

_RENEW_AT = 0.8
"""Part of a token's lifetime after which the next one is fetched, as Kafka's own clients do."""

_PAUSE_S = 5.0
"""Seconds between two attempts to renew a token that is still valid."""

_UNKNOWN_LIFETIME_S = 300.0
"""Seconds that a token is kept if neither the token nor the answer says when it expires."""


class TokenUnavailable(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """No token could be got. The text names the cause, and never has the token or a secret."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and when it expires.

    Arguments:
        text: of the token.
        lifetime_s: seconds from now until it expires.
    """

    text: str
    lifetime_s: float

    def __repr__(self) -> str:
        return f"Token(lifetime_s={self.lifetime_s:g})"


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Implements aiokafka's provider: keeps a token for most of its lifetime, and fetches one at a time.

    A token that cannot be renewed is used until it expires.

    Arguments:
        fetch: gets a new token.
        extensions: SASL extensions, by name.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Token]],
        extensions: dict[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._extensions = extensions or {}
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = self._expires_at = float("-inf")

    async def token(self) -> str:
        """Returns a token that has not expired. Raises `TokenUnavailable`."""
        async with self._lock:
            if self._clock() >= self._renew_at:
                await self._renew()
            return self._token

    def extensions(self) -> dict[str, str]:
        return self._extensions

    async def _renew(self) -> None:
        now = self._clock()
        try:
            token = await self._fetch()
        except TokenUnavailable as error:
            if now >= self._expires_at:
                raise
            log.warning("token not renewed, the last one is still valid reason=%s", error)
            self._renew_at = min(self._expires_at, now + _PAUSE_S)
            return
        if token.lifetime_s <= 0:
            raise TokenUnavailable("the token has expired already: check the clocks, and where it comes from")
        self._token = token.text
        self._renew_at, self._expires_at = now + _RENEW_AT * token.lifetime_s, now + token.lifetime_s


def token_provider(settings: Settings) -> TokenProvider:
    """The provider that the settings describe: a command, or a token endpoint."""
    if (command := settings.kafka_sasl_oauthbearer_token_command) is not None:
        return TokenProvider(lambda: from_command(command), settings.oauthbearer_extensions)
    return TokenProvider(lambda: from_endpoint(settings), settings.oauthbearer_extensions)


async def from_command(command: str) -> Token:
    """Runs a shell command that prints a token, or a JSON object with `access_token` and `expires_in`."""
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise TokenUnavailable(f"KAFKA_SASL_OAUTHBEARER_TOKEN_COMMAND printed nothing in {_TIMEOUT_S:g} s") from None
    if process.returncode:
        raise TokenUnavailable(
            f"KAFKA_SASL_OAUTHBEARER_TOKEN_COMMAND ended with code {process.returncode}: run it by hand"
        )
    return _token(output.decode("utf-8", "replace").strip(), "KAFKA_SASL_OAUTHBEARER_TOKEN_COMMAND")


async def from_endpoint(settings: Settings) -> Token:
    """Asks the token endpoint by client credentials (RFC 6749, section 4.4)."""
    url, secret = settings.kafka_sasl_oauthbearer_token_endpoint_url, settings.kafka_sasl_oauthbearer_client_secret
    assert url is not None
    assert secret is not None
    form = {"grant_type": "client_credentials"}
    if settings.kafka_sasl_oauthbearer_scope is not None:
        form["scope"] = settings.kafka_sasl_oauthbearer_scope
    login = f"{settings.kafka_sasl_oauthbearer_client_id}:{secret.get_secret_value()}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
            session.post(url, data=form, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise TokenUnavailable(
                    f"the token endpoint {url} answered {response.status}: check "
                    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID, _CLIENT_SECRET and _SCOPE"
                )
            return _token(await response.text(), f"the token endpoint {url}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TokenUnavailable(f"the token endpoint {url} does not answer ({error or 'timeout'})") from None


def _token(answer: str, source: str) -> Token:
    """Reads a token and its lifetime: from `expires_in`, else from the claim `exp`."""
    text, lifetime_s = answer, None
    if answer.startswith("{"):
        try:
            fields = json.loads(answer)
            text, lifetime_s = str(fields["access_token"]), fields.get("expires_in")
        except (ValueError, KeyError):
            raise TokenUnavailable(f"{source} gave JSON without access_token") from None
    if not text or any(character.isspace() for character in text):
        raise TokenUnavailable(f"{source} gave no token: one word, or JSON with access_token")
    try:
        return Token(text, _lifetime(text) if lifetime_s is None else float(lifetime_s))
    except (TypeError, ValueError):
        raise TokenUnavailable(f"{source} gave an expires_in that is no number") from None


def _lifetime(token: str) -> float:
    """Seconds until a JWT expires, by its claim `exp`; a default for tokens that are none."""
    try:
        body = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"]) - time.time()
    except (IndexError, KeyError, TypeError, ValueError):
        return _UNKNOWN_LIFETIME_S
