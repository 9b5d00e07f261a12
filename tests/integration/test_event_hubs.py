"""The core on brokers that answer as Azure Event Hubs: a connection string alone, and no transactions."""

import logging
import ssl

import pytest

from ecosystem.embedded.ports import free_ports
from runtime.common.settings import Guarantee
from runtime.errors import KafkaRejected
from schemas.topics import ORDERS
from tests.event_hubs import standard_tier
from tests.secured import CONNECTION_STRING, Secured, secured_kafka
from tests.workers import Deployment

ORDER = {"customerId": 1, "product": "JUMPERS", "quantity": 1, "price": 1}


@pytest.fixture(scope="module")
def hub_port():
    [port] = free_ports(1)
    return port


@pytest.fixture(scope="module")
def secured(tmp_path_factory, hub_port):
    with secured_kafka(tmp_path_factory.mktemp("hubs"), {"$ConnectionString": CONNECTION_STRING}, hub_port) as broker:
        yield broker


@pytest.fixture
async def deployment(secured, prefix, tmp_path):
    async with Deployment(secured.cluster.bootstrap_servers, prefix, tmp_path) as deployment:
        yield deployment


@pytest.fixture
def tier(secured: Secured, hub_port):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(secured.folder / "localhost.crt", secured.folder / "localhost.key")
    return lambda known: standard_tier(secured.cluster.listener_port("HUB", 1), hub_port, context, known=known)


@pytest.fixture
def variables(secured: Secured, hub_port, monkeypatch):
    """What a shop sets, and the issuer of this test's certificate."""
    monkeypatch.setenv("BOOTSTRAP_SERVERS", f"127.0.0.1:{hub_port}")
    monkeypatch.setenv("EVENTHUB_CONNECTIONSTRING", CONNECTION_STRING)
    monkeypatch.setenv("KAFKA_SSL_CAFILE", str(secured.cafile))
    return {"kafka_bootstrap_servers": f"127.0.0.1:{hub_port}"}


@pytest.mark.parametrize("known", [False, True], ids=["requests unknown", "requests refused"])
async def test_without_transactions_orders_are_processed_at_least_once(
    deployment: Deployment, tier, variables, caplog, known
):
    async with tier(known) as proxy:
        with caplog.at_level(logging.WARNING, "runtime"):
            worker = await deployment.start(**variables)
        await deployment.stock(JUMPERS=10)
        status, order = await deployment.post(worker, **ORDER)
        outcome = await deployment.outcome(worker, order["id"])
        await deployment.stop(worker)
    assert (status, outcome["state"]) == (201, "VALIDATED")
    assert [o.state for o in await deployment.values(ORDERS)] == ["CREATED", "VALIDATED"]
    assert worker.settings.processing_guarantee is Guarantee.AT_LEAST_ONCE
    assert bool(proxy.refused) == known
    [said] = [r.getMessage() for r in caplog.records if "no transactions" in r.getMessage()]
    assert "processing at least once" in said
    assert ("only supported in Premium" in said) == known
    assert CONNECTION_STRING not in caplog.text
    assert "c2VjcmV0LWtleQ" not in caplog.text


async def test_a_worker_that_was_told_exactly_once_does_not_start(deployment: Deployment, tier, variables):
    async with tier(known=True):
        with pytest.raises(KafkaRejected, match="set PROCESSING_GUARANTEE=at_least_once, or use the Premium"):
            await deployment.start(**variables, processing_guarantee="exactly_once")


async def test_another_connection_string_is_rejected(deployment: Deployment, tier, variables, monkeypatch):
    monkeypatch.setenv("EVENTHUB_CONNECTIONSTRING", CONNECTION_STRING.replace("c2VjcmV0", "b3RoZXI"))
    async with tier(known=False):
        with pytest.raises(KafkaRejected, match="check that EVENTHUB_CONNECTIONSTRING is of this namespace") as refused:
            await deployment.start(**variables)
    assert "b3RoZXI" not in str(refused.value)
