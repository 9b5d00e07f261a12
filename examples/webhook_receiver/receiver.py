"""Verifies webhooks (https://www.standardwebhooks.com), and prints each event once.

`verify` is what a receiver of your own needs; most languages have a library for it.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLERANCE_S = 300
"""Seconds by which the clocks may differ, and for which a recorded request could be sent again."""
MAX_BODY = 1_000_000
"""Bytes of a body: events are far smaller."""
REMEMBERED = 10_000
"""Ids that are remembered to recognise repetitions. A real receiver keeps them in its database."""


class Rejected(Exception):
    """The request is not from who it claims, or not from now."""


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float | None = None) -> str:
    """Checks a request, and returns its `webhook-id`. Raises `Rejected`.

    Arguments:
        secrets: the valid ones, `whsec_…`: two while a secret is being replaced.
        headers: of the request; names in any case.
        body: as it was received.
        now: seconds since 1970. Default: the clock.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id_, timestamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise Rejected(f"the header {missing} is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
        raise Rejected("the timestamp is not a number")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_S:
        raise Rejected("the timestamp is too old, or in the future")
    signed = f"{id_}.{timestamp}.".encode() + body
    expected = [hmac.digest(_key(secret), signed, hashlib.sha256) for secret in secrets]
    for signature in signatures.split():
        version, _, digest = signature.partition(",")
        try:
            found = base64.b64decode(digest, validate=True)
        except binascii.Error:
            continue
        # `compare_digest` takes the same time wherever the first difference is.
        if version == "v1" and any(hmac.compare_digest(found, one) for one in expected):
            return id_
    raise Rejected("no signature is right")


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


class Receiver(ThreadingHTTPServer):
    """A server that answers 204 to verified events, and prints each once.

    Arguments:
        address: host and port; 0 picks a free port.
        secrets: the valid ones.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], secrets: Sequence[str]) -> None:
        super().__init__(address, _Handler)
        self.secrets = secrets
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, id_: str) -> bool:
        """Whether an id has not come before."""
        if id_ in self._seen:
            return False
        self._seen[id_] = None
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds for a request

    def do_POST(self) -> None:
        receiver = self.server
        assert isinstance(receiver, Receiver)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
            self.close_connection = True  # its body is not read
            self._answer(413 if length else 411)
            return
        body = self.rfile.read(int(length))
        try:
            id_ = verify(receiver.secrets, dict(self.headers.items()), body)
            event = json.loads(body)
        except Rejected as why:
            print(f"rejected: {why}", flush=True)
            self._answer(401)
            return
        except ValueError:
            self._answer(400)
            return
        self._answer(204)  # first the answer, then the work
        print(line(event) if receiver.is_new(id_) else f"{id_} has come before", flush=True)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Writes no access log."""


def line(event: dict[str, Any]) -> str:
    """An event as a line."""
    data = event["data"]
    what = data.get("id") or data.get("code") or data.get("topic") or data.get("text") or ""
    reasons = "; ".join(data.get("reasons") or ())
    return f"{event['timestamp']}  {event['type']:<16} {what}{f'  ({reasons})' if reasons else ''}"
