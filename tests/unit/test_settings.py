"""Settings of runtime and services come from one source: the environment, and keywords."""

import pytest
from pydantic import ValidationError

from fulfilment_service.settings import FulfilmentSettings
from orders_service.settings import OrdersSettings
from runtime.common.settings import Settings
from validators.fraud.settings import FraudSettings


def test_keywords_reach_the_settings_of_services():
    settings = Settings(fraud_limit=5, currency="USD", required_checks="FRAUD_CHECK, INVENTORY_CHECK", partitions=2)
    assert settings.partitions == 2
    assert settings.of(FraudSettings) == FraudSettings(fraud_limit=5, currency="USD")
    assert settings.of(FulfilmentSettings).currency == "USD"
    assert settings.of(OrdersSettings).required_checks == ("FRAUD_CHECK", "INVENTORY_CHECK")


def test_keywords_override_the_environment(monkeypatch):
    monkeypatch.setenv("FRAUD_LIMIT", "7")
    assert Settings().of(FraudSettings).fraud_limit == 7
    assert Settings(fraud_limit=5).of(FraudSettings).fraud_limit == 5


def test_a_changed_copy_keeps_the_settings_of_services():
    settings = Settings(fraud_limit=5).model_copy(update={"http_port": 1, "currency": "USD"})
    assert settings.of(FraudSettings) == FraudSettings(fraud_limit=5, currency="USD")


def test_an_unknown_keyword_is_refused_by_name():
    with pytest.raises(ValidationError, match="no settings class that is imported has the field 'frud_limit'"):
        Settings(frud_limit=5)
    with pytest.raises(ValidationError, match="frud_limit"):
        FraudSettings(frud_limit=5)


def test_variables_of_others_are_ignored(monkeypatch):
    monkeypatch.setenv("FRAUD_LIMIT", "much")
    monkeypatch.setenv("FRUD_LIMIT", "much")
    Settings()
    with pytest.raises(ValidationError, match="fraud_limit"):
        Settings().of(FraudSettings)
