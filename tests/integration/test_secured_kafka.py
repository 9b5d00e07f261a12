"""The core on a Kafka that demands TLS and a login, by each mechanism; what is wrong is said once."""

import asyncio
import os
import sys

import pytest
from aiohttp import web

from ecosystem.doctor.brokers import check_transactions
from ecosystem.doctor.finding import Level
from runtime.common.settings import Settings
from runtime.errors import KafkaRejected
from runtime.kafka.rejections import find_rejection
from runtime.kafka.transactions import why_no_transactions
from tests.secured import CLERK, PASSWORD, USER, Secured, forbid_transactions, secured_kafka, token
from tests.workers import PATIENCE_S, Deployment, until

ORDER = {"customerId": 1, "product": "JUMPERS", "quantity": 1, "price": 1}


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    with secured_kafka(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


@pytest.fixture
async def deployment(secured, prefix, tmp_path):
    async with Deployment(secured.cluster.bootstrap_servers, prefix, tmp_path) as deployment:
        yield deployment


async def brings_an_order_to_validated(deployment: Deployment, **settings):
    worker = await deployment.start(**settings)
    await deployment.stock(JUMPERS=1000)
    status, order = await deployment.post(worker, **ORDER)
    assert status == 201
    assert (await deployment.outcome(worker, order["id"]))["state"] == "VALIDATED"
    return worker


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_user_and_password(secured: Secured, deployment: Deployment, mechanism):
    await brings_an_order_to_validated(deployment, **secured.login(mechanism))


async def test_a_certificate_of_ours(secured: Secured, deployment: Deployment):
    await brings_an_order_to_validated(
        deployment,
        kafka_bootstrap_servers=secured.servers("MTLS"),
        kafka_security_protocol="SSL",
        kafka_ssl_cafile=secured.cafile,
        kafka_ssl_certfile=secured.folder / "client.crt",
        kafka_ssl_keyfile=secured.folder / "client.key",
    )


async def test_a_command_that_prints_tokens(secured: Secured, deployment: Deployment):
    command = f"{sys.executable} -c 'print(\"{token()}\")'"
    await brings_an_order_to_validated(
        deployment, **secured.login("OAUTHBEARER", kafka_sasl_oauthbearer_token_command=command)
    )


@pytest.fixture
async def token_endpoint():
    """A token endpoint whose tokens expire after four seconds. `asked` has each request's form and login."""
    asked = []

    async def answer(request):
        asked.append((dict(await request.post()), request.headers["Authorization"]))
        return web.json_response({"access_token": token(4), "expires_in": 4, "token_type": "Bearer"})

    app = web.Application()
    app.router.add_post("/token", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/token", asked
    await runner.cleanup()


async def test_tokens_are_renewed_before_they_expire(secured: Secured, deployment: Deployment, token_endpoint):
    """The broker ends connections whose token has expired, so orders must go on over new ones."""
    url, asked = token_endpoint
    worker = await brings_an_order_to_validated(
        deployment,
        **secured.login(
            "OAUTHBEARER",
            kafka_sasl_oauthbearer_token_endpoint_url=url,
            kafka_sasl_oauthbearer_client_id="orders",
            kafka_sasl_oauthbearer_client_secret="of-the-client",
            kafka_sasl_oauthbearer_scope="kafka",
        ),
    )
    before = len(asked)
    numbers = iter(range(10_000))

    async def next_order_after_two_tokens():
        order_id = f"o{next(numbers)}"
        status, _ = await deployment.post(worker, id=order_id, **ORDER)
        assert status == 201
        assert (await deployment.outcome(worker, order_id))["state"] == "VALIDATED"
        return len(asked) >= before + 2

    await until(next_order_after_two_tokens, "two tokens", every=0.2)
    assert asked[0] == ({"grant_type": "client_credentials", "scope": "kafka"}, "Basic b3JkZXJzOm9mLXRoZS1jbGllbnQ=")
    assert worker.failure is None


REJECTED = {
    "wrong password": (
        lambda s: s.login("PLAIN", kafka_sasl_password="wrong"),
        "rejects the login (Authentication failed: Invalid username or password): check KAFKA_SASL_USERNAME",
    ),
    "wrong SCRAM password": (
        lambda s: s.login("SCRAM-SHA-512", kafka_sasl_password="wrong"),
        "rejects the login",
    ),
    "expired token": (
        lambda s: s.login("OAUTHBEARER", kafka_sasl_oauthbearer_token_command=f"echo {token(-60)}"),
        "the token has expired already: check the clocks",
    ),
    "unknown issuer": (
        lambda s: s.login("PLAIN", kafka_ssl_cafile=s.folder / "other-ca.pem"),
        "is not trusted (unable to get local issuer certificate): set KAFKA_SSL_CAFILE",
    ),
    "system's issuers": (
        lambda s: s.login("PLAIN", kafka_ssl_cafile=None),
        "is not trusted",
    ),
    "no certificate of ours": (
        lambda s: {
            "kafka_bootstrap_servers": s.servers("MTLS"),
            "kafka_security_protocol": "SSL",
            "kafka_ssl_cafile": s.cafile,
        },
        "demands no certificate (KAFKA_SSL_CERTFILE)",
    ),
    "TLS where there is none": (
        lambda s: {
            "kafka_bootstrap_servers": s.cluster.bootstrap_servers,
            "kafka_security_protocol": "SSL",
            "kafka_ssl_cafile": s.cafile,
        },
        "closes connections that speak SSL: check that its listener expects this",
    ),
    "no TLS where it is demanded": (
        lambda s: {"kafka_bootstrap_servers": s.servers("LOGIN")},
        "closes connections that speak PLAINTEXT: check that its listener expects this KAFKA_SECURITY_PROTOCOL",
    ),
    "login where there is none": (
        lambda s: {
            "kafka_bootstrap_servers": s.cluster.bootstrap_servers,
            "kafka_security_protocol": "SASL_PLAINTEXT",
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": USER,
            "kafka_sasl_password": PASSWORD,
        },
        "expects no SASL: set KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SSL",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
async def test_what_the_broker_rejects_is_named_with_a_remedy(secured: Secured, case):
    changes, expected = REJECTED[case]
    found = await find_rejection(Settings(**changes(secured)))
    assert found is not None
    assert expected in found.reason
    assert "wrong" not in found.reason


async def test_what_is_right_is_not_rejected(secured: Secured):
    assert await find_rejection(Settings(**secured.login("SCRAM-SHA-256"))) is None
    assert await find_rejection(Settings(kafka_bootstrap_servers="127.0.0.1:1")) is None


def variables(secured: Secured, prefix, folder, mechanism="SCRAM-SHA-256", **changes):
    """The environment of a process that logs in."""
    settings = secured.login(mechanism, topic_prefix=prefix, state_dir=folder, http_port=0, **changes)
    names = [name for name in os.environ if not name.startswith(("KAFKA_", "BOOTSTRAP_", "EVENTHUB_"))]
    return {name: os.environ[name] for name in names} | {name.upper(): str(value) for name, value in settings.items()}


async def said_by(*arguments, env):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecosystem.cli", *arguments, env=env, stdout=-1, stderr=-2
    )
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_worker_with_a_wrong_password_ends_with_one_error_and_without_the_password(secured, prefix, tmp_path):
    env = variables(secured, prefix, tmp_path, "PLAIN", kafka_sasl_password="wr0ng", log_level="debug")
    code, said = await said_by("run", "orders", env=env)
    assert code == 1
    [error] = [line for line in said.splitlines() if " ERROR " in line and " aiokafka" not in line]
    assert "worker cannot start reason=localhost:" in error
    assert "rejects the login (" in error
    assert "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD" in error
    assert "wr0ng" not in said


async def test_commands_log_in_and_say_why_they_cannot(secured, prefix, tmp_path):
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    env = variables(secured, prefix, tmp_path)
    del env["KAFKA_SASL_PASSWORD"]
    env["KAFKA_SASL_PASSWORD_FILE"] = str(password)
    code, said = await said_by("stock", "set", "mug", "3", env=env)
    assert code == 0, said
    code, said = await said_by("tail", "--no-follow", "--from-beginning", env=env)
    assert (code, "mug" in said) == (0, True), said

    code, said = await said_by(
        "tail", "--no-follow", env=env | {"KAFKA_SSL_CAFILE": str(secured.folder / "other-ca.pem")}
    )
    assert code == 1
    assert said.startswith("Error: Kafka: the certificate of localhost:"), said
    assert "set KAFKA_SSL_CAFILE" in said


async def test_a_user_without_transactions_is_told_the_permission(secured: Secured, deployment: Deployment):
    forbid_transactions(secured.cluster.bootstrap_servers)
    clerk = secured.login("PLAIN", kafka_sasl_username=CLERK)
    await until(lambda: why_no_transactions(deployment.settings(**clerk)), "the rule is in force", every=0.2)
    with pytest.raises(KafkaRejected, match=r"TRANSACTIONAL_ID_AUTHORIZATION_FAILED.*allow DESCRIBE and WRITE"):
        await deployment.start(**clerk)
    [found] = await check_transactions(deployment.settings(**clerk))
    assert found.level is Level.PROBLEM
    await deployment.start(name="w1", **clerk, processing_guarantee="at_least_once")
