"""The example of a receiver: it accepts what is signed and recent, and nothing else."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

import pytest

from examples.webhook_receiver.receiver import TOLERANCE_S, Receiver, Rejected, verify
from webhook_service.signatures import signatures, to_text

SECRET, OTHER = b"s" * 32, b"t" * 32
BODY = json.dumps({"type": "order.failed", "timestamp": "T", "data": {"id": "o1", "reasons": ["too much"]}}).encode()


IMPORTED_S = time.time()


@pytest.fixture(autouse=True)
def _present(monkeypatch):
    """Parameters below are signed when this module is imported, which may be long ago."""
    monkeypatch.setattr(time, "time", lambda: IMPORTED_S)


def signed(body=BODY, secrets=(SECRET,), at=None, id_="evt_1"):
    at = int(time.time()) if at is None else at
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(at),
        "webhook-signature": signatures(secrets, id_, at, body),
    }


def test_a_signature_by_any_valid_secret_is_accepted():
    for secrets in ((SECRET,), (OTHER, SECRET), (SECRET, OTHER)):
        assert verify([to_text(SECRET)], signed(secrets=secrets), BODY) == "evt_1"
    assert verify([to_text(OTHER), to_text(SECRET)], signed(), BODY) == "evt_1"


def without(name):
    return {key: value for key, value in signed().items() if key != name}


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        (signed(), BODY + b" ", "no signature is right"),
        (signed(secrets=(OTHER,)), BODY, "no signature is right"),
        (signed() | {"webhook-id": "evt_2"}, BODY, "no signature is right"),
        (signed() | {"webhook-signature": "v1,###"}, BODY, "no signature is right"),
        (signed() | {"webhook-signature": signed()["webhook-signature"].replace("v1", "v2")}, BODY, "no signature"),
        (signed() | {"webhook-signature": ""}, BODY, "no signature is right"),
        (signed(at=int(time.time()) - TOLERANCE_S - 60), BODY, "too old"),
        (signed(at=int(time.time()) + TOLERANCE_S + 600), BODY, "in the future"),
        (signed() | {"webhook-timestamp": "now"}, BODY, "not a number"),
        (without("webhook-id"), BODY, "'webhook-id' is missing"),
        (without("webhook-signature"), BODY, "'webhook-signature' is missing"),
    ],
)
def test_anything_else_is_rejected(headers, body, why):
    with pytest.raises(Rejected, match=why):
        verify([to_text(SECRET)], headers, body)


@contextmanager
def serving(capsys):
    with Receiver(("127.0.0.1", 0), [to_text(SECRET)]) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        try:
            yield http.client.HTTPConnection("127.0.0.1", receiver.server_port, timeout=60)
        finally:
            receiver.shutdown()
            thread.join()


def test_the_server_prints_each_event_once(capsys):
    with serving(capsys) as connection:

        def post(headers, body=BODY):
            connection.request("POST", "/", body, headers)
            response = connection.getresponse()
            response.read()
            return response.status

        assert post(signed()) == 204
        assert post(signed()) == 204
        assert post(signed(secrets=(OTHER,))) == 401
        assert post(signed(b"garbage"), b"garbage") == 400
        assert post(signed() | {"Content-Length": "99999999"}) == 413
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "T  order.failed     o1  (too much)",
        "evt_1 has come before",
        "rejected: no signature is right",
    ]
