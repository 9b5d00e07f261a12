"""Where commands find the databases and keys of what runs."""

import os
import stat

import pytest

from checkin_service.settings import CheckinSettings
from ecosystem.cli import discovery
from ecosystem.cli.discovery import LocalSystemInfo
from history_service.settings import HistorySettings
from webhook_service.settings import WebhookSettings

KEY = 32 * "k"
OWN, OTHER = "postgresql://up/history", "postgresql://db/history"


@pytest.fixture
def running(tmp_path, monkeypatch):
    """`orders up`, with a history."""
    for name in ("KAFKA_BOOTSTRAP_SERVERS", discovery.HISTORY, "CHECKIN_DATABASE_URL", "WEBHOOK_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORDERS_DATA", str(tmp_path))
    with discovery.published(
        LocalSystemInfo(
            os.getpid(),
            "127.0.0.1:1",
            {},
            secrets={discovery.HISTORY: OWN, "CHECKIN_DATABASE_URL": OTHER, "WEBHOOK_KEYS": KEY},
        )
    ):
        yield tmp_path / "running.json"


def url(settings):
    found = settings.of(HistorySettings).history_database_url
    return found and found.get_secret_value()


def test_it_is_that_of_orders_up(running):
    assert (discovery.history_database(), url(discovery.settings())) == (OWN, OWN)


def test_other_databases_and_the_keys_of_webhooks_are_found_as_well(running, monkeypatch):
    assert discovery.settings().of(CheckinSettings).checkin_database_url.get_secret_value() == OTHER
    assert [key.get_secret_value() for key in discovery.settings().of(WebhookSettings).webhook_keys] == [KEY]
    monkeypatch.setenv("WEBHOOK_KEYS", KEY[::-1] + "1")
    assert [key.get_secret_value() for key in discovery.settings().of(WebhookSettings).webhook_keys] == [KEY + "1"]


def test_the_environment_comes_first(running, monkeypatch):
    monkeypatch.setenv(discovery.HISTORY, OTHER)
    assert (discovery.history_database(), url(discovery.settings())) == (OTHER, OTHER)


def test_other_brokers_have_another_history(running, monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert url(discovery.settings()) is None
    assert url(discovery.settings("kafka:9092")) is None


def test_nobody_else_can_read_its_password(running):
    assert OWN not in running.read_text()
    assert stat.S_IMODE((running.parent / "running.secrets").stat().st_mode) == 0o600


def test_without_orders_up_there_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv(discovery.HISTORY, raising=False)
    monkeypatch.setenv("ORDERS_DATA", str(tmp_path))
    assert discovery.history_database() == ""
