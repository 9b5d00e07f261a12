"""The services answer every request as their OpenAPI documents say."""

import json
import os
import secrets

import pytest

from ecosystem.services import NAMES, build
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.http.openapi import document
from runtime.http.server import application
from runtime.http.signatures import FORWARDED_BY
from schemas.topics import DEAD_LETTERS
from tests.contracts.fuzzing import all_services, databases, fuzz
from tests.contracts.hooks import ENDED
from tests.workers import Deployment

MINUTES, SEED = os.environ.get("FUZZ_MINUTES"), os.environ.get("FUZZ_SEED")
SHORT = ("--max-examples", "40", "--seed", "1")


class Unstarted:
    """A host whose routes are listed and never called."""

    settings = Settings()


def operations(hosted: ServiceDefinition) -> set[str]:
    """The mounted routes of a service, as `GET /v1/orders/{id}`."""
    routes = application(Unstarted(), [hosted]).router.routes()
    answered = {f"{r.method} {r.resource.canonical}" for r in routes if r.resource and r.method != "HEAD"}
    return answered - OPERATIONAL


def described(*hosted: ServiceDefinition) -> set[str]:
    """The operations in a document."""
    return {f"{m.upper()} {path}" for path, methods in document(hosted)["paths"].items() for m in methods}


OPERATIONAL = {*described(), "GET /favicon.ico"}


@pytest.mark.parametrize("name", NAMES)
def test_a_service_answers_only_as_its_openapi_document_says(name):
    (hosted,) = build([name], Settings())

    assert operations(hosted) == described(hosted) - OPERATIONAL


@pytest.fixture(scope="module")
async def workers(kafka, postgres, tmp_path_factory):
    """The deployment and two workers with all services, for all tests of this module."""
    async with (
        Deployment(kafka, f"t-{secrets.token_hex(4)}-", tmp_path_factory.mktemp("state")) as deployment,
        all_services(deployment, databases(postgres)) as started,
    ):
        yield deployment, started


async def test_every_answer_to_fuzzed_requests_is_documented(workers, tmp_path):
    """`make fuzz MINUTES=10` fuzzes for longer, each time with another seed."""
    deployment, (worker, _) = workers
    chosen = () if SEED is None else ("--seed", SEED)
    options = ("--max-time", str(int(float(MINUTES) * 60)), *chosen) if MINUTES else SHORT

    await deployment.post(worker, id=ENDED, customerId=1, product="no such product", quantity=1, price=1)
    await deployment.outcome(worker, ENDED)
    report, said = await fuzz(worker.url, tmp_path, *options)

    assert report["exit_code"] == 0, said
    tested = report["valid_rates"]
    for name in NAMES:
        (hosted,) = build([name], Settings())
        assert operations(hosted) <= set(tested), f"of {name}"
    refused = [op for op in tested if not any([sum(n.values()) > n["rejected"] for n in tested[op].values()])]
    assert refused == [], "of these nothing came further than the first look at the request"
    assert await dead_letters(deployment) == [], "what was accepted could be processed by all"


async def dead_letters(deployment: Deployment):
    async with deployment.consumer() as consumer:
        topics = [t for t in await consumer.topics() if t.startswith(deployment.prefix) and t.endswith(DEAD_LETTERS)]
    assert topics
    letters = [await deployment.records(topic.removeprefix(deployment.prefix)) for topic in topics]
    return [(r.topic, r.value, r.headers) for of in letters for r in of]


async def test_an_unsigned_forwarding_header_grants_nothing(workers):
    """Workers forward requests through the documented routes. Forwarding headers need a valid signature."""
    deployment, (worker, _) = workers
    documented = (await deployment.ask(worker, "GET", "/openapi.json")).json()["paths"]
    headers = {FORWARDED_BY: str(worker.url), "X-Forwarded-At": "1", "X-Forwarded-Signature": "0" * 64}

    for path, methods in documented.items():
        for method, operation in methods.items():
            answer = await deployment.ask(worker, method.upper(), path, headers=headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Worker-Signature"), path
            assert "401" in operation["responses"], path


ENDLESS = {"/board/orders/{id}/events"}
"""Streams that wait for what does not exist yet."""

BAD_PATHS = ["%FF", "%zz", "%", "%00", "%C3%28", "%ED%A0%80", "%F0%9F", "%e2%80%8b", "x" * 7000]
BAD_JSON = [
    b'"\\ud83e"', b'"\\u0000"', b"1" + b"0" * 5000, b"1e999", b"-1e999", b"NaN", b"[" * 30_000, b'{"a":1,"a":2}',
    b"\xff", b'"\xed\xa0\x80"', b"null", b"", b'""',
]  # fmt: skip


@pytest.mark.parametrize("part", BAD_PATHS, ids=range(len(BAD_PATHS)))
async def test_a_path_that_is_not_utf8_is_rejected_or_not_found(workers, part):
    deployment, (worker, _) = workers
    documented = (await deployment.ask(worker, "GET", "/openapi.json")).json()["paths"]
    for path in [path for path in documented if "{" in path and path not in ENDLESS]:
        filled = path.split("{")[0] + part + path.rpartition("}")[2]
        answer = await deployment.ask(worker, "GET", f"{filled}?timeout=0")
        assert answer.status in {400, 404, 405}, (filled, answer)
        assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("value", BAD_JSON, ids=range(len(BAD_JSON)))
async def test_a_field_is_accepted_or_rejected_by_name(workers, value):
    """Puts values that no JSON Schema fuzzer generates, invalid JSON or text, into otherwise valid bodies."""
    deployment, (worker, _) = workers
    served = (await deployment.ask(worker, "GET", "/openapi.json")).json()
    bodies = 0
    for path, methods in served["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation:
                continue
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert served["components"]["schemas"][reference].get("examples"), f"{reference}: add one (wire.example)"
            sound = served["components"]["schemas"][reference]["examples"][0]
            for field in sound:
                others = {name: json.dumps(of).encode() for name, of in sound.items()}
                body = b",".join(b'"%s":%s' % (n.encode(), of) for n, of in (others | {field: value}).items())
                answer = await deployment.ask(
                    worker,
                    method.upper(),
                    path.translate(_NO_BRACES),
                    data=b"{%s}" % body,
                    headers={"Content-Type": "application/json"},
                )
                assert str(answer.status) in operation["responses"], (path, field, answer)
                assert answer.status < 500, (path, field, answer)
                if answer.status == 400:
                    assert [e["name"] for e in answer.json()["errors"]] in ([field], ["body"]), (path, field, answer)
                bodies += 1
    assert bodies


_NO_BRACES = str.maketrans("", "", "{}")
