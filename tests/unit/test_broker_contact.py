"""What a worker makes of brokers without transactions, and of brokers that reject it."""

import logging

import pytest
from aiokafka.errors import KafkaConnectionError

from runtime.common.settings import Settings
from runtime.errors import KafkaRejected
from runtime.kafka.rejections import Rejection
from runtime.worker import broker


@pytest.fixture
def refusing(monkeypatch):
    async def why(_):
        return "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"

    monkeypatch.setattr(broker, "why_no_transactions", why)


async def test_kafka_that_refuses_transactions_is_a_missing_permission(refusing):
    with pytest.raises(KafkaRejected, match="allow DESCRIBE and WRITE on transactional ids that begin with 'shop-'"):
        await broker.with_guarantee(Settings(topic_prefix="shop-"))


async def test_at_least_once_asks_for_no_transactions(refusing):
    settings = Settings(processing_guarantee="at_least_once")
    assert await broker.with_guarantee(settings) is settings


async def test_a_connection_string_for_one_topic_is_noticed(monkeypatch, caplog):
    async def why(_):
        return None

    monkeypatch.setattr(broker, "why_no_transactions", why)
    string = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=a2V5=;EntityPath=orders"
    with caplog.at_level(logging.WARNING):
        await broker.with_guarantee(Settings(eventhub_connectionstring=string))
    [said] = [record.getMessage() for record in caplog.records]
    assert "topic=orders remedy=use a connection string of the namespace" in said
    assert "a2V5" not in said


async def test_brokers_are_waited_for_until_they_reject_us_for_good(monkeypatch, caplog):
    found = [None, Rejection("it is starting", final=False), Rejection("wrong login", final=True)]

    async def rejection(_):
        return found.pop(0)

    async def action():
        raise KafkaConnectionError("away")

    monkeypatch.setattr(broker, "find_rejection", rejection)
    monkeypatch.setattr(broker, "_PAUSE_S", 0.0)
    with caplog.at_level(logging.WARNING), pytest.raises(KafkaRejected, match="wrong login"):
        await broker.until_reached(Settings(), action)
    assert ["starting" in record.getMessage() for record in caplog.records] == [False, True]
