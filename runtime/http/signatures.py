"""Calls from worker to worker: marked, so that they go one step only, and signed, when keys are configured."""

import hashlib
import hmac
import time
from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import SecretStr
from yarl import URL

from runtime.http.answers import HttpProblem

FORWARDED_BY = "X-Forwarded-By"
SIGNED_AT = "X-Forwarded-At"
SIGNATURE = "X-Forwarded-Signature"

MAX_SKEW_S = 30.0
"""How far apart the clocks of two workers may be, and for how long a signature that was seen on the way is good."""


def marked(keys: Sequence[SecretStr], sender: URL, method: str, target: str) -> dict[str, str]:
    """The headers of a call to another worker; `target` is path and query as they stand in the request line."""
    headers = {FORWARDED_BY: str(sender)}
    if keys:
        headers[SIGNED_AT] = at = str(int(time.time()))
        headers[SIGNATURE] = _sign(keys[0], method, target, at)
    return headers


def verified(keys: Sequence[SecretStr], request: web.BaseRequest) -> bool:
    """Whether one of our workers signed this request, with any of the keys, just now."""
    at = request.headers.get(SIGNED_AT, "")
    signature = request.headers.get(SIGNATURE, "").encode(errors="replace")
    if not (at.isascii() and at.isdigit() and len(at) <= 12) or abs(time.time() - int(at)) > MAX_SKEW_S:
        return False
    target = request.rel_url.raw_path_qs
    # No early end: how long it takes must not tell which key came near.
    return any([hmac.compare_digest(_sign(key, request.method, target, at).encode(), signature) for key in keys])


def guard(keys: Sequence[SecretStr]) -> Middleware:
    """The middleware that refuses a mark which no worker of ours has made. Without keys every mark is believed."""

    @web.middleware
    async def signatures(request: web.Request, handler: Handler) -> web.StreamResponse:
        if FORWARDED_BY in request.headers and not verified(keys, request):
            raise HttpProblem(
                401,
                f"{FORWARDED_BY} is for calls between workers, and this one is not signed with a key of theirs.",
                headers={"WWW-Authenticate": "Worker-Signature"},
            )
        return await handler(request)

    return signatures


def _sign(key: SecretStr, method: str, target: str, at: str) -> str:
    text = "\n".join((method, target, at))
    return hmac.new(key.get_secret_value().encode(), text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
