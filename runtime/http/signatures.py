"""Headers of forwarded requests: the forwarding worker, and a signature if WORKER_KEYS are configured."""

import hashlib
import hmac
import time
from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import SecretStr
from yarl import URL

from runtime.http.answers import HttpProblem
from runtime.http.connections import HANDED_OVER

FORWARDED_BY = "X-Forwarded-By"
SIGNED_AT = "X-Forwarded-At"
SIGNATURE = "X-Forwarded-Signature"

MAX_SKEW_S = 30.0
"""Seconds by which the clocks of two workers may differ, and for which an intercepted signature is valid."""


def forwarding_headers(keys: Sequence[SecretStr], sender: URL, method: str, target: str) -> dict[str, str]:
    """The headers of a request to another worker; `target` is path and query as in the request line."""
    headers = {FORWARDED_BY: str(sender)}
    if keys:
        headers[SIGNED_AT] = at = str(int(time.time()))
        headers[SIGNATURE] = _sign(keys[0], method, target, at)
    return headers


def is_signed(keys: Sequence[SecretStr], request: web.BaseRequest) -> bool:
    """Whether a worker has signed this request with one of the keys, within the last `MAX_SKEW_S`."""
    at = request.headers.get(SIGNED_AT, "")
    signature = request.headers.get(SIGNATURE, "").encode(errors="replace")
    return is_valid(keys, request.method, request.rel_url.raw_path_qs, at, signature)


def is_valid(keys: Sequence[SecretStr], method: str, target: str, at: str, signature: bytes) -> bool:
    """Whether a signature is that of a request, made with one of the keys within the last `MAX_SKEW_S`.

    Arguments:
        keys: of the workers.
        method: of the request.
        target: path and query as in the request line.
        at: value of `X-Forwarded-At`.
        signature: value of `X-Forwarded-Signature`.
    """
    if not (at.isascii() and at.isdigit() and len(at) <= 12) or abs(time.time() - int(at)) > MAX_SKEW_S:
        return False
    # Compares with all keys: the duration must not reveal anything about them.
    return any([hmac.compare_digest(_sign(key, method, target, at).encode(), signature) for key in keys])


def signature_check(keys: Sequence[SecretStr]) -> Middleware:
    """Middleware that rejects forwarded requests without a valid signature (401). Without keys it is not installed,
    and X-Forwarded-By is trusted."""

    @web.middleware
    async def signatures(request: web.Request, handler: Handler) -> web.StreamResponse:
        handed_over = request.get(HANDED_OVER)
        verified = handed_over is not None and handed_over.signed
        if FORWARDED_BY in request.headers and not verified and not is_signed(keys, request):
            raise HttpProblem(
                401,
                f"{FORWARDED_BY} is reserved for workers, and the request has no valid signature. Omit the header.",
                headers={"WWW-Authenticate": "Worker-Signature"},
            )
        return await handler(request)

    return signatures


def _sign(key: SecretStr, method: str, target: str, at: str) -> str:
    text = "\n".join((method, target, at))
    return hmac.new(key.get_secret_value().encode(), text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
